"""`recsys plan`: what a plan of smaller tables keeps, and how two differ. Needs no TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys.cli._output import JsonOption, Output

if TYPE_CHECKING:
    from recsys.embeddings.plan import EmbeddingPlan, VocabularyPlan

app = typer.Typer(help="Show and compare plans of smaller tables.", no_args_is_help=True, rich_markup_mode=None)
NONE = "none"
"""Where nothing of a field is kept."""


@app.command()
def show(
    path: Annotated[Path, typer.Argument(metavar="PLAN", help="A plan's folder.")], as_json: JsonOption = False
) -> None:
    """Show what a plan keeps of each field, and in how many bytes."""
    from recsys.embeddings.plan import EmbeddingPlan

    out, plan = Output(as_json), EmbeddingPlan.load(path)
    rows = [_row(plan, table, field) for table, field in _fields(plan)]
    out.text(f"{path}  plan {plan.digest[:12]}")
    told = {name: value for name, value in plan.origin.model_dump().items() if value not in (None, "", {})}
    out.text("origin: " + ", ".join(f"{name} {_told(value)}" for name, value in told.items()))
    columns = ("table", "field", "ids", "rows", "width", "numbers", "bytes", "full", "share")
    out.table("What is kept, and its bytes in float32 with all indices", columns, [tuple(row.values()) for row in rows])
    share = plan.bytes() / plan.full_bytes
    out.text(f"{plan.bytes():,} bytes of {plan.full_bytes:,} ({share:.2%}, {1 / max(share, 1e-9):.1f} times smaller)")
    out.result(
        {
            "path": path,
            "digest": plan.digest,
            "origin": plan.origin.model_dump(),
            "bytes": plan.bytes(),
            "full_bytes": plan.full_bytes,
            "fields": rows,
        }
    )


@app.command()
def diff(
    first: Annotated[Path, typer.Argument(metavar="PLAN")],
    second: Annotated[Path, typer.Argument(metavar="PLAN")],
    as_json: JsonOption = False,
) -> None:
    """Show in which fields two plans differ, and how much they have in common."""
    from recsys.embeddings.plan import EmbeddingPlan

    out, plans = Output(as_json), (EmbeddingPlan.load(first), EmbeddingPlan.load(second))
    found = []
    for table, field in dict.fromkeys([*_fields(plans[0]), *_fields(plans[1])]):
        rows = [_row(plan, table, field) if (table, field) in _fields(plan) else None for plan in plans]
        both = {f"{key} {n}": row and row[key] for key in ("rows", "width", "bytes") for n, row in enumerate(rows, 1)}
        found.append({"table": table, "field": field, **both, "common": _common(*plans, table, field)})
    for number, (path, plan) in enumerate(zip((first, second), plans, strict=True), 1):
        out.text(f"{number}: {path}  plan {plan.digest[:12]}, {plan.origin.method}, {plan.bytes():,} bytes")
    out.table("What two plans keep", list(found[0]), [tuple(row.values()) for row in found], fraction=".2f")
    out.text("common: numbers that both keep, of those that either keeps; a dash where vocabularies differ")
    same = plans[0].digest == plans[1].digest
    out.text("the plans are the same, but perhaps for their origin" if same else "the plans differ")
    sizes = [plan.bytes() for plan in plans]
    out.result({"digests": [plan.digest for plan in plans], "same": same, "bytes": sizes, "fields": found})


def _fields(plan: EmbeddingPlan) -> list[tuple[str, str]]:
    return [(name, field) for name, table in plan.tables.items() for field in table.vocabularies]


def _row(plan: EmbeddingPlan, table: str, field: str) -> dict[str, Any]:
    """What is kept of one field."""
    whole = plan.tables[table]
    own = whole.model_copy(update={"vocabularies": {field: whole.vocabularies[field]}})
    numbers = sum(block.numbers for block in own.blocks)
    return {
        "table": table,
        "field": field,
        "ids": whole.vocabularies[field].ids,
        "rows": sum(block.kept_rows for block in own.blocks),
        "width": _width(whole.vocabularies[field]),
        "numbers": numbers,
        "bytes": own.bytes(),
        "full": own.full_bytes,
        "share": own.bytes() / own.full_bytes,
    }


def _width(vocabulary: VocabularyPlan) -> str:
    """The widths of its rows; where single numbers are kept, how many of an id on the mean."""
    from recsys.embeddings.plan import RowBlock

    widths = sorted({len(b.columns) for b in vocabulary.blocks if isinstance(b, RowBlock) and b.stored_rows})
    singles = [block for block in vocabulary.blocks if not isinstance(block, RowBlock)]
    words = [str(widths[0]) if len(widths) == 1 else f"{widths[0]} to {widths[-1]}"] if widths else []
    if singles:
        mean = sum(block.numbers for block in singles) / sum(block.ids for block in singles)
        words.append(f"mean {mean:.2g}")
    return "; ".join(words) or NONE


def _common(first: EmbeddingPlan, second: EmbeddingPlan, table: str, field: str) -> float | None:
    """Jaccard's index of the kept numbers; None where one lacks the field, or has another vocabulary or width."""
    tables = [plan.tables.get(table) for plan in (first, second)]
    vocabularies = [whole.vocabularies.get(field) if whole else None for whole in tables]
    one, other = vocabularies
    if not one or not other or not tables[0] or not tables[1]:
        return None
    if (one.digest, tables[0].dim) != (other.digest, tables[1].dim):
        return None
    masks = one.mask(tables[0].dim), other.mask(tables[1].dim)
    either = int((masks[0] | masks[1]).sum())
    return int((masks[0] & masks[1]).sum()) / either if either else 1.0


def _told(value: object) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{name} {number:.4f}" for name, number in value.items()) + ")"
    return f"{value:,}" if isinstance(value, int) else str(value)
