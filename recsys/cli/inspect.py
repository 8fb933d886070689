"""`recsys inspect`: the embedding tables of a trained run or of a bundle."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.cli._output import JsonOption, Output
from recsys.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from recsys.embeddings.health_record import TableHealth

PICTURE = "inspect/norm-by-frequency.png"
"""In the run directory."""
LEGEND = {
    "MB": "MB: 1,000,000 bytes on disk, of all that a table needs",
    "slots": "slots: MB of what its optimizer keeps for it, on disk as well",
    "untrained": "untrained: share of the ids (of hashed or multiplexed tables: the rows) that are as before training",
    "rank": "rank: effective rank (RankMe) of all rows, at most dim",
    "ids/row": "ids/row: (feature, id) pairs that read a row, mean over the rows that are read",
}


def inspect(
    path: Annotated[Path, typer.Argument(metavar="RUN_OR_BUNDLE", help="A run directory, or a bundle.")],
    as_json: JsonOption = False,
) -> None:
    """Show what has become of the embedding tables.

    Sizes in memory and on disk, collisions, ids that training never reached, effective rank. Of a run, also a picture
    of the vectors' lengths against the ids' frequencies.
    """
    from recsys.run_directory import RunDirectory

    out = Output(as_json)
    if not path.is_dir():
        found = "is a file" if path.exists() else "no such folder"
        raise ConfigError(str(path), found, "a run directory (runs/NAME) or a bundle (runs/NAME/bundle/N)")
    if RunDirectory(path).origin() is None:
        _inspect_bundle(path, out)
    else:
        _inspect_run(path, out)


def _inspect_run(path: Path, out: Output) -> None:
    from recsys.evaluation.norm_picture import norm_picture
    from recsys.experiment import Experiment

    experiment = Experiment.from_yaml(path, ["training.strategy=default"])
    inspection = experiment.inspect()
    name = experiment.config.name
    _show(f"Embedding tables of {name}: best weights, sizes as in the checkpoint", inspection.tables, out)
    picture = path / PICTURE
    _save(norm_picture(f"Vectors of {name}, by how often training met their ids", inspection.norms), picture)
    out.wrote(picture)
    out.result({"path": path, "tables": inspection.tables, "picture": picture})


def _inspect_bundle(path: Path, out: Output) -> None:
    from recsys.bundle import Bundle
    from recsys.evaluation.inspection import inspect_bundle

    bundle = Bundle.load(path)
    tables = inspect_bundle(bundle)
    copies = ", ".join(f"{table.copies} of {table.name}" for table in tables)
    _show(f"Embedding tables of {bundle.folder}, sizes of all copies in its SavedModels ({copies})", tables, out)
    out.result({"path": bundle.folder, "tables": tables, "picture": None})


def _show(title: str, tables: Sequence[TableHealth], out: Output) -> None:
    columns: dict[str, list[object]] = {
        "table": [table.name for table in tables],
        "method": [_method(table) for table in tables],
        "rows": [table.rows for table in tables],
        "dim": [table.dim for table in tables],
        "params": [table.parameters for table in tables],
        "MB": [_mb(table.bytes) for table in tables],
        "slots": [_mb(table.optimizer_bytes) for table in tables],
        "untrained": [table.untrained for table in tables],
        "rank": [table.effective_rank for table in tables],
        "ids/row": [table.ids_per_row for table in tables],
    }
    told = {name: cells for name, cells in columns.items() if any(cell is not None for cell in cells)}
    out.table(title, list(told), zip(*told.values(), strict=True), fraction=".3g")
    collisions = [(v.feature, t.name, v.ids, v.colliding) for t in tables for v in t.vocabularies]
    if collisions:
        found = "Share of a feature's ids that share all their rows with another id of it"
        out.table(found, ("feature", "table", "ids", "colliding"), collisions)
    for name in told:
        if name in LEGEND:
            out.text(LEGEND[name])


def _mb(size: int | None) -> float | None:
    return None if size is None else size / 1e6


def _method(table: TableHealth) -> str:
    return table.method if table.precision == "float32" else f"{table.method}, {table.precision}"


def _save(figure: Figure, path: Path) -> None:
    """Whole, or not at all."""
    from recsys.files import draft_folder

    with draft_folder(path) as draft:
        figure.savefig(draft / path.name)
        os.replace(draft / path.name, path)
