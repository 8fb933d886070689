"""`recsys compare`: which differences between runs are real."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.cli._evaluation import print_comparison
from recsys.cli._output import JsonOption, Output

if TYPE_CHECKING:
    from recsys.evaluation.evidence import Measured, SliceKey

RunsArgument = Annotated[
    list[Path], typer.Argument(metavar="RUN RUN...", help="Run directories; the first is what the others are held to.")
]
MetricOption = Annotated[
    list[str] | None, typer.Option("--metric", metavar="NAME", help="A metric to compare; may be repeated.")
]
SliceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--slice",
        metavar="BY[=SLICE]",
        help="Compare in slices, as item_frequency or item_frequency=tail; may be repeated.",
    ),
]
LevelOption = Annotated[float, typer.Option("--level", min=0.5, max=0.9999, help="Of intervals and verdicts.")]
USUAL = ("ndcg@10", "recall@10", "recall@100", "auc", "gauc", "logloss")
"""Metrics that are compared when none is named: those of these that the runs have."""


def compare(
    runs: RunsArgument,
    metrics: MetricOption = None,
    slices: SliceOption = None,
    level: LevelOption = 0.95,
    as_json: JsonOption = False,
) -> None:
    """Compare evaluated runs user by user: which differences are real, which could be noise."""
    from recsys.evaluation.comparison import compare as compare_runs
    from recsys.evaluation.evidence import MODEL, WHOLE, Measured, evidence_path

    out = Output(as_json)
    found = _by_name(runs, {path: Measured.read(evidence_path(path, MODEL)) for path in runs})
    name, first = next(iter(found.items()))
    where = _chosen(name, first, slices) if slices else [WHOLE]
    parts = [each.slices.get(key, each.whole) if slices else each.whole for each in found.values() for key in where]
    known = [metric for metric in parts[0].values if all(metric in part.values for part in parts)]
    chosen = list(dict.fromkeys(metrics or [])) or [metric for metric in USUAL if metric in known] or known
    differences = compare_runs(found, chosen, slices=where, level=level)
    print_comparison(differences, level, out)
    out.result({"reference": name, "differences": [each.model_dump(mode="json") for each in differences]})


def _by_name(paths: list[Path], found: dict[Path, Measured]) -> dict[str, Measured]:
    """By the folder's name, or by the whole path where names repeat."""
    names = [path.resolve().name for path in paths]
    return {
        (str(path) if names.count(name) > 1 else name): found[path] for name, path in zip(names, paths, strict=True)
    }


def _chosen(name: str, measured: Measured, wanted: list[str]) -> list[SliceKey]:
    """The slices that the options name.

    Raises:
        ConfigError: one that the run does not have.
    """
    from recsys.errors import ConfigError

    chosen: list[SliceKey] = []
    for text in wanted:
        by, _, part = text.partition("=")
        matching = [key for key in measured.slices if key[0] == by and part in ("", key[1])]
        if not matching:
            known = ", ".join(dict.fromkeys(key[0] if not part else "=".join(key) for key in measured.slices))
            raise ConfigError("--slice", f"{name} has no slice {text!r}", f"one of {known}" if known else "no slices")
        chosen += matching
    return list(dict.fromkeys(chosen))
