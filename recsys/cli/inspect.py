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

    from recsys.embeddings.health import TableHealth

PICTURE = "inspect/norm-by-frequency.png"
"""In the run directory."""
LEGEND = (
    "MB: 1,000,000 bytes on disk, all that a table needs; slots: what its optimizer keeps for it, on disk too.",
    "untrained: share of the ids (of hashed and multiplexed tables: of the rows) that are as before training.",
    "rank: effective rank (RankMe) of all rows, at most dim. ids/row: (feature, id) pairs on a row that is read.",
    "colliding: share of a feature's ids that share all their rows with another id of it.",
)


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
        raise NotImplementedError
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


def _show(title: str, tables: Sequence[TableHealth], out: Output) -> None:
    columns = ("table", "method", "rows", "dim", "parameters", "MB", "slots MB", "untrained", "rank", "ids/row")
    lines = [
        (t.name, _method(t), t.rows, t.dim, t.parameters, _mb(t.bytes), _mb(t.optimizer_bytes), t.untrained,
         t.effective_rank, t.ids_per_row)
        for t in tables
    ]  # fmt: skip
    out.table(title, columns, lines)
    collisions = [(v.feature, t.name, v.ids, v.colliding) for t in tables for v in t.vocabularies]
    if collisions:
        out.table("Collisions within features", ("feature", "table", "ids", "colliding"), collisions)
    for line in LEGEND:
        out.text(line)


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
