"""How an evaluation is printed: warnings first, then the numbers, then what they can bear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from recsys.cli._output import Output
from recsys.report import choice
from recsys.report.choice import MODEL

if TYPE_CHECKING:
    from recsys.evaluation import Difference, RunRecord
    from recsys.evaluation.record import Metrics, Ranges

RELATIVE = "RelaImpr"
RIVALS = 3
"""Baselines beside the model's metrics; the table of differences names all."""


def print_record(record: RunRecord, out: Output) -> None:
    """The test metrics of the model beside its baselines, its slices, and which differences are real."""
    for warning in record.warnings:
        out.text(f"warning: {warning}")
    _print_metrics(record, out)
    _print_calibration(record, out)
    _print_stages(record, out)
    print_differences(record.differences, out)
    _print_slices(record, out)
    _print_off_policy(record, out)


def _print_metrics(record: RunRecord, out: Output) -> None:
    users = record.counts.get("users_evaluated")
    what = f"{users:,} users" if users is not None else f"{record.counts['examples_evaluated']:,} examples"
    print_metrics(f"Test metrics of {record.name} ({what})", record.metrics, record.ranges.get(MODEL, {}), out)
    left_out = record.counts.get("users_without_relevant", 0)
    if left_out:
        who = "1 user" if left_out == 1 else f"{left_out:,} users"
        out.text(f"{who} had nothing new in the test part, and no part in the means.")


def print_metrics(title: str, metrics: Mapping[str, Metrics], ranges: Ranges, out: Output) -> None:
    """The model's metrics with their `ranges`, and those of the baselines that come nearest to it."""
    shown = choice.shown(list(metrics[MODEL]))
    rivals = choice.rivals(metrics, shown[0])[:RIVALS]
    rows = [
        [name, metrics[MODEL][name], choice.bounds(ranges.get(name)), *(metrics[rival].get(name) for rival in rivals)]
        for name in shown
    ]
    out.table(title, ["metric", MODEL, "95% interval", *rivals], rows)


def _print_calibration(record: RunRecord, out: Output) -> None:
    """A ranker's probabilities, in bins from low to high, beside what came of them."""
    curve = record.calibration
    if curve is not None:
        total = sum(curve.weight)
        bins = zip(curve.predicted, curve.observed, curve.weight, strict=True)
        rows = [[predicted, observed, f"{weight / total:.1%}"] for predicted, observed, weight in bins]
        out.table("Calibration: probabilities and what came of them", ["predicted", "observed", "examples"], rows)


def _print_stages(record: RunRecord, out: Output) -> None:
    """Where recall is lost, of two stages."""
    from recsys.evaluation.config import STAGES

    model = record.metrics[MODEL]
    ks = [name.split("@")[1] for name in model if name.startswith("reachable@")]
    if ks:
        found = [name for name in STAGES if f"{name}@{ks[0]}" in model]
        rows = [[name.replace("_", " "), *(model[f"{name}@{k}"] for k in ks)] for name in found]
        candidates = record.counts["candidates"]
        share = model[f"candidate_recall@{candidates}"]
        title = f"Where recall is lost: {candidates:,} candidates hold {share:.4f} of the relevant items"
        out.table(title, ["", *(f"@{k}" for k in ks)], rows)


def print_differences(differences: Sequence[Difference], out: Output) -> None:
    """The model against each baseline and its champion."""
    relative = any(each.rela_impr is not None for each in differences)
    rows = [
        [
            each.metric,
            each.against,
            f"{each.difference:+.4f}",
            f"{each.low:+.4f}, {each.high:+.4f}",
            *([choice.relative(each)] if relative else []),
            choice.verdict(each),
        ]
        for each in differences
    ]
    if rows:
        columns = ["metric", "against", "difference", "95% interval", *([RELATIVE] if relative else []), "verdict"]
        out.table("The model against baselines and champion, user by user", columns, rows)


def print_comparison(differences: Sequence[Difference], level: float, out: Output) -> None:
    """Metric by metric, and slice by slice: who differs from the reference, by how much, and whether that is real."""
    for metric, by, part in dict.fromkeys((each.metric, each.by, each.slice) for each in differences):
        mine = [each for each in differences if (each.metric, each.by, each.slice) == (metric, by, part)]
        relative = any(each.rela_impr is not None for each in mine)
        rows = [
            [
                each.run,
                each.value,
                f"{each.difference:+.4f}",
                f"{each.low:+.4f}, {each.high:+.4f}",
                *([choice.relative(each)] if relative else []),
                f"{each.p:.2g}",
                each.detectable,
                choice.verdict(each),
            ]
            for each in mine
        ]
        shown = [RELATIVE] if relative else []
        columns = ["run", metric, "difference", f"{level:.0%} interval", *shown, "p", "detectable", "verdict"]
        where = f" where {by} is {part}" if by else ""
        title = f"{metric}{where}: {mine[0].reference:.4f} in {mine[0].against}, {mine[0].users:,} users"
        out.table(title, columns, rows)
    out.text(f"p: paired sign-flip test over users, Holm-corrected for {len(differences)} comparisons")
    out.text("detectable: the smallest true difference that so many users show four times in five")


def _print_slices(record: RunRecord, out: Output) -> None:
    """The first metric that slices have, of the model and of the baseline that is best in it over all users."""
    found = choice.sliced_by(record)
    if found is None:
        return
    metric, best = found
    rows = []
    for each in record.slices:
        own, rival = (each.metrics.get(who, {}).get(metric) for who in (MODEL, best))
        name = f"{each.by}: {each.name}{' (small)' if each.small else ''}"
        values = [None if found is None else found.value for found in (own, rival)]
        rows.append([name, f"{each.users:,}", values[0], choice.bounds(own), values[1]])
    out.table(f"{metric} by slice", ["slice", "users", MODEL, "95% interval", best], rows)


def _print_off_policy(record: RunRecord, out: Output) -> None:
    if not record.off_policy:
        return
    rows = []
    for name, each in record.off_policy.items():
        rows.append([name, each.ips, choice.bounds(each.ips_bounds), each.snips, choice.bounds(each.snips_bounds)])
    events = max(each.events for each in record.off_policy.values())
    title = f"Mean reward that would have been earned on {events:,} logged events"
    out.table(title, ["policy", "ips", "95% interval", "snips", "95% interval"], rows)
