"""Which of many numbers people are shown, in which order, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recsys.evaluation.comparison import Difference
    from recsys.evaluation.off_policy import Bounds
    from recsys.evaluation.record import Metrics, Range, RunRecord

MODEL = "model"
FIRST_CUT_OFF = ("ndcg", "graded_ndcg", "hit_rate", "mrr", "map", "coverage", "gini", "novelty", "popularity_lift")
FIRST_CUT_OFF_CATEGORIES = ("diversity", "miscalibration")
"""Ranking metrics that people are shown at the first cut-off; recall at every one. `metrics.json` has them all."""
POINTWISE = ("auc", "gauc", "logloss", "normalized_entropy", "ece", "base_rate")
FALLING = ("logloss", "normalized_entropy", "ece")
"""Metrics of which less is better."""


def shown(metrics: Sequence[str]) -> list[str]:
    """Of all metrics those that people are shown, the headline's first."""
    recalls = [name for name in metrics if name.startswith("recall@")]
    k = recalls[0].split("@")[1] if recalls else ""
    ranking = [f"{name}@{k}" for name in FIRST_CUT_OFF + FIRST_CUT_OFF_CATEGORIES if f"{name}@{k}" in metrics]
    further = [name for name in metrics if "." in name and name.rpartition(".")[2] in POINTWISE]  # of a head
    return ranking[:1] + recalls + ranking[1:] + [name for name in POINTWISE if name in metrics] + further


def rivals(metrics: Mapping[str, Metrics], metric: str) -> list[str]:
    """Baselines and champion, the best one first."""
    found = [name for name in metrics if name != MODEL and metric in metrics[name]]
    return sorted(found, key=lambda name: -metrics[name][metric])


def sliced_by(record: RunRecord) -> tuple[str, str] | None:
    """The first metric that slices have, and the baseline that is best in it over all users (or the model, where none
    has it); None where nothing was sliced.
    """
    inside = {metric for each in record.slices for metric in each.metrics.get(MODEL, {})}
    metric = next((name for name in shown(list(record.metrics[MODEL])) if name in inside), None)
    if metric is None:
        return None
    measured = {name for each in record.slices for name in each.metrics}  # a champion has none here
    return metric, next((name for name in rivals(record.metrics, metric) if name in measured), MODEL)


def bounds(found: Bounds | Range | None) -> str | None:
    """Nothing where all users are alike: their spread is not known, rather than 0."""
    if found is None or found.low == found.high:
        return None
    digits = 4 if abs(found.high) < 10 else 3
    return f"{found.low:.{digits}f}–{found.high:.{digits}f}"


def relative(difference: Difference) -> str | None:
    """The relative improvement in percent, with its interval."""
    found = difference.rela_impr
    return None if found is None else f"{found.value:+.1%} ({found.low:+.1%}, {found.high:+.1%})"


def is_better(difference: Difference) -> bool:
    """Whether the run's value is the better one, be that real or not."""
    falling = difference.metric.rpartition(".")[2] in FALLING
    return difference.difference != 0 and (difference.difference > 0) != falling


def verdict(difference: Difference) -> str:
    """Whether a difference is real."""
    return "real" if difference.real else "maybe noise"
