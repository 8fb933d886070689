"""`recsys compare`: which differences between runs are real."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.cli._output import JsonOption, Output

if TYPE_CHECKING:
    from recsys.evaluation.comparison import Difference
    from recsys.evaluation.evidence import Evidence

RunsArgument = Annotated[
    list[Path], typer.Argument(metavar="RUN RUN...", help="Run directories; the first is what the others are held to.")
]
MetricOption = Annotated[
    list[str] | None, typer.Option("--metric", metavar="NAME", help="A metric to compare; may be repeated.")
]
LevelOption = Annotated[float, typer.Option("--level", min=0.5, max=0.9999, help="Of intervals and verdicts.")]
USUAL = ("ndcg@10", "recall@10", "recall@100", "auc", "gauc", "logloss")
"""Metrics that are compared when none is named: those of these that the runs have."""


def compare(
    runs: RunsArgument, metrics: MetricOption = None, level: LevelOption = 0.95, as_json: JsonOption = False
) -> None:
    """Compare evaluated runs user by user: which differences are real, which could be noise."""
    from recsys.evaluation.comparison import compare as compare_evidence
    from recsys.evaluation.evidence import Evidence

    out = Output(as_json)
    found = _by_name(runs, {path: Evidence.read(path / "evaluation" / "model.parquet") for path in runs})
    first = next(iter(found.values()))
    chosen = metrics or [name for name in USUAL if name in first.values] or list(first.values)
    differences = compare_evidence(found, chosen, level=level)
    _print(differences, next(iter(found)), level, out)
    out.result({"reference": next(iter(found)), "differences": [each.model_dump(mode="json") for each in differences]})


def _by_name(paths: list[Path], found: dict[Path, Evidence]) -> dict[str, Evidence]:
    """By the folder's name, or by the whole path where names repeat."""
    names = [path.resolve().name for path in paths]
    return {
        (str(path) if names.count(name) > 1 else name): found[path] for name, path in zip(names, paths, strict=True)
    }


def _print(differences: list[Difference], reference: str, level: float, out: Output) -> None:
    for metric in dict.fromkeys(each.metric for each in differences):
        mine = [each for each in differences if each.metric == metric]
        rows = [
            [
                each.run,
                each.value,
                f"{each.difference:+.4f}",
                f"{each.low:+.4f} to {each.high:+.4f}",
                f"{each.p:.2g}",
                each.detectable,
                "real" if each.real else "could be noise",
            ]
            for each in mine
        ]
        columns = ["run", metric, "difference", f"{level:.0%} interval", "p", "detectable", "verdict"]
        out.table(f"{metric}: {mine[0].reference:.4f} in {reference}, {mine[0].users:,} users", columns, rows)
    out.text(f"p: paired sign-flip test over users, Holm-corrected for {len(differences)} comparisons")
    out.text("detectable: the smallest true difference that so many users show four times in five")
