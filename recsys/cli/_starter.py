"""The starter YAML that `recsys init` writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recsys.data.infer import Inference
    from recsys.schema.config import SchemaConfig

_ID_DIM = 32
_DIM = 8
_TOWER = {"hidden": [64], "output_dim": 32}
_STEPS = 32
"""Batches in an epoch, at least, where the log is long enough."""


def starter(name: str, source: dict[str, str], inference: Inference) -> str:
    """The YAML of an experiment on `source`, with comments that tell what to look at."""
    from recsys.config.dialect import dump

    schema = inference.table_schema
    data: dict[str, Any] = {"source": {"kind": "files", **source}}
    if inference.positives is not None:
        data["positives"] = inference.positives.model_dump(mode="json", exclude_none=True)
    data["split"] = inference.split.model_dump(mode="json", exclude_none=True)
    sections = [
        (
            "Starter by `recsys init`: a guess from names and values. Read it, then: recsys run THIS_FILE",
            {"name": name},
        ),
        ("", {"seed": 0}),
        (_about_data(inference), {"data": data}),
        (_about_schema(inference), {"schema": _schema(schema)}),
        ("Tables hold vectors, features name a table; those that name the same one share it.", _embeddings(inference)),
        ("Both towers end in vectors of one width.", {"model": {"kind": "two_tower", "query": _TOWER, "item": _TOWER}}),
        (
            "More in a step is faster, fewer learn more from a short log.",
            {"training": {"batch_size": _batch(inference.events)}},
        ),
    ]
    return "\n".join(_comment(comment) + dump(section) for comment, section in sections)


def _about_data(inference: Inference) -> str:
    lines = ["Paths are relative to this file."]
    if inference.positives is None:
        lines.append("Every event counts as positive; see `positives` to choose by a column.")
    if inference.split.kind == "temporal":
        lines.append(
            "split: one moment for all users; or kind: leave_last_out, random, by_user, cold_users, cold_items."
        )
    return "\n".join(lines)


def _about_schema(inference: Inference) -> str:
    lines = [
        "user and item features describe one user or item; context features one event, and are part of each request."
    ]
    return "\n".join([*lines, *inference.notes])


def _schema(schema: SchemaConfig) -> dict[str, Any]:
    """What is not default, the kind of a feature first."""
    plain = schema.model_dump(mode="json", exclude_defaults=True)
    plain["features"] = {name: {"kind": value.pop("kind"), **value} for name, value in plain["features"].items()}
    return plain


def _embeddings(inference: Inference) -> dict[str, Any]:
    """One table for each feature that reads one; a history reads the table of the feature it repeats."""
    from recsys.embeddings.config import reads_table
    from recsys.schema.config import Sequence

    schema = inference.table_schema
    tables: dict[str, dict[str, int]] = {}
    features: dict[str, dict[str, str]] = {}
    for name, feature in schema.features.items():
        if not reads_table(feature):
            continue
        table = feature.of if isinstance(feature, Sequence) else name
        features[name] = {"table": table}
        tables.setdefault(table, {"dim": _ID_DIM if schema.column(name) in (schema.user, schema.item) else _DIM})
    return {"embeddings": {"tables": tables, "features": features}}


def _batch(events: int) -> int:
    """A power of two that leaves `_STEPS` batches; from 16 to the default, 4,096."""
    return 2 ** min(12, max(4, (events // _STEPS).bit_length() - 1))


def _comment(text: str) -> str:
    return "".join(f"# {line}\n" for line in text.splitlines())
