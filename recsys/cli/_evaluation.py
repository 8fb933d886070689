"""How an evaluation is printed: warnings first, then the numbers, then what they can bear."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from recsys.cli._output import Output

if TYPE_CHECKING:
    from recsys.evaluation import Difference, RunRecord
    from recsys.evaluation.record import Metrics, Ranges

FIRST_CUT_OFF = ("ndcg", "graded_ndcg", "hit_rate", "mrr", "map", "coverage", "gini", "novelty", "popularity_lift")
FIRST_CUT_OFF_CATEGORIES = ("diversity", "miscalibration")
"""Ranking metrics that people are shown at the first cut-off; recall at every one. `metrics.json` has them all."""
POINTWISE = ("auc", "gauc", "logloss", "normalized_entropy", "ece", "base_rate")
MODEL = "model"


def print_record(record: RunRecord, out: Output) -> None:
    """The test metrics of the model beside its baselines, its slices, and which differences are real."""
    for warning in record.warnings:
        out.text(f"warning: {warning}")
    _print_metrics(record, out)
    if record.differences:
        print_differences(record.differences, 0.95, out)
    _print_slices(record, out)
    _print_off_policy(record, out)


def _print_metrics(record: RunRecord, out: Output) -> None:
    users = record.counts.get("users_evaluated")
    what = f"{users:,} users" if users is not None else f"{record.counts['examples_evaluated']:,} examples"
    print_metrics(f"Test metrics of {record.name} ({what})", record.metrics, record.ranges.get(MODEL, {}), out)
    left_out = record.counts.get("users_without_relevant", 0)
    if left_out:
        out.text(f"{left_out:,} users had nothing new in the test part; they are left out of the means.")


def print_metrics(title: str, metrics: Mapping[str, Metrics], ranges: Ranges, out: Output) -> None:
    """The model's metrics with their `ranges`, and those of its baselines."""
    names = list(metrics)
    rows = []
    for metric in _shown(list(metrics[MODEL])):
        model, *others = (metrics[name].get(metric) for name in names)
        rows.append([metric, model, _interval(ranges.get(metric)), *others])
    out.table(title, ["metric", MODEL, "95% interval", *names[1:]], rows)


def _shown(metrics: Sequence[str]) -> list[str]:
    recalls = [name for name in metrics if name.startswith("recall@")]
    k = recalls[0].split("@")[1] if recalls else ""
    ranking = [f"{name}@{k}" for name in FIRST_CUT_OFF + FIRST_CUT_OFF_CATEGORIES if f"{name}@{k}" in metrics]
    return ranking[:1] + recalls + ranking[1:] + [name for name in POINTWISE if name in metrics]


def _interval(found: object) -> str | None:
    low, high = getattr(found, "low", None), getattr(found, "high", None)
    return None if low is None else f"{low:.4f} to {high:.4f}"


def print_differences(differences: Iterable[Difference], level: float, out: Output) -> None:
    """Metric by metric (and slice by slice): who differs from whom, by how much, and whether that is real."""
    found = list(differences)
    for metric, by, part in dict.fromkeys((each.metric, each.by, each.slice) for each in found):
        mine = [each for each in found if (each.metric, each.by, each.slice) == (metric, by, part)]
        rows = [
            [
                each.run,
                each.value,
                each.against,
                each.reference,
                f"{each.difference:+.4f}",
                f"{each.low:+.4f} to {each.high:+.4f}",
                f"{each.p:.2g}",
                each.detectable,
                "real" if each.real else "could be noise",
            ]
            for each in mine
        ]
        columns = ["run", metric, "against", "its", "difference", f"{level:.0%} interval", "p", "detectable", "verdict"]
        where = f" where {by} is {part}" if by else ""
        users = {each.users for each in mine}
        out.table(f"{metric}{where}, {' or '.join(f'{n:,}' for n in sorted(users))} users", columns, rows)
    out.text(f"p: paired sign-flip test over users, Holm-corrected for {len(found)} comparisons")
    out.text("detectable: the smallest true difference that so many users show four times in five")
    out.text("")


def _print_slices(record: RunRecord, out: Output) -> None:
    """The first metric that slices have, model beside baselines."""
    metrics = [name for name in _shown(list(record.metrics[MODEL])) if _in_slices(record, name)]
    if not metrics:
        return
    metric = metrics[0]
    others = [name for name in record.metrics if name != MODEL]
    rows = []
    for each in record.slices:
        ranges = [each.metrics.get(name, {}).get(metric) for name in (MODEL, *others)]
        model, *rest = (None if found is None else found.value for found in ranges)
        users = f"{each.users:,}{' (small)' if each.small else ''}"
        rows.append([each.by, each.name, users, model, _interval(ranges[0]), *rest])
    out.table(f"{metric} by slice", ["by", "slice", "users", MODEL, "95% interval", *others], rows)


def _in_slices(record: RunRecord, metric: str) -> bool:
    return any(metric in each.metrics.get(MODEL, {}) for each in record.slices)


def _print_off_policy(record: RunRecord, out: Output) -> None:
    if not record.off_policy:
        return
    rows = [
        [name, each.ips, each.snips, round(each.effective_samples), each.clipped]
        for name, each in record.off_policy.items()
    ]
    events = max(each.events for each in record.off_policy.values())
    out.table(
        f"Mean reward that would have been earned on {events:,} logged events",
        ["policy", "ips", "snips", "effective events", "clipped"],
        rows,
    )
