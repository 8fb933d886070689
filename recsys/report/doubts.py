"""What makes a run's numbers doubtful, the worst first."""

from __future__ import annotations

from collections.abc import Iterator
from math import pi, sqrt

from recsys.embeddings.health_record import HealthRecord, TableHealth
from recsys.evaluation.comparison import Difference
from recsys.evaluation.record import CalibrationRecord, RunRecord
from recsys.report import choice
from recsys.report.choice import MODEL
from recsys.report.document import Warned
from recsys.report.found import Found

COLLAPSED = 0.2
"""A table whose effective rank is below this share of what it could be has collapsed."""
WIDE = 4
"""Narrower tables than this have no directions to lose."""
UNCALIBRATED = 0.1
"""An expected calibration error above this share of the rarer label's share is too much."""
NOISE = 2.0
"""And it has to be so many times what chance alone would give."""
POOR_INDEX = 0.9
"""An index that finds less of the best items than this is worth a word."""


def doubts(found: Found) -> tuple[Warned, ...]:
    """Everything that a reader should know before the first number."""
    warned = list(_all(found))
    return tuple(sorted(warned, key=lambda each: not each.serious))


def _all(found: Found) -> Iterator[Warned]:
    record = found.record
    if record is not None:
        yield from (Warned(text=text, serious=True) for text in record.warnings)
        yield from _beaten(record.differences)
        yield from _uncalibrated(record)
        yield from _small(record)
        yield from _not_measurable(record)
    if found.backtest is not None:
        for window in found.backtest.windows:
            yield from (Warned(text=f"{window.name}: {text}", serious=True) for text in window.warnings)
        yield from _beaten(found.backtest.differences)
    if found.health is not None:
        yield from _collapsed(found.health)
    yield from _stale(found)
    index = None if found.manifest is None else found.manifest.index
    if index is not None and index.recall < POOR_INDEX:
        found_share = f"{index.recall:.1%} of what exact search finds (recall@{index.k})"
        yield Warned(text=f"The index finds {found_share}; the metrics here are exact search's", serious=False)


def _beaten(differences: tuple[Difference, ...]) -> Iterator[Warned]:
    """By whom, in the first metric that is compared, and from whom it cannot be told apart."""
    first = [each for each in differences if each.metric == differences[0].metric]
    for each in first:
        if each.real and not choice.is_better(each):
            values = f"{each.reference:.4f} against {each.value:.4f}"
            yield Warned(text=f"{each.against} is better than the model in {each.metric}: {values}", serious=True)
    alike = [f"{each.against} ({each.reference:.4f}, p {each.p:.2g})" for each in first if not each.real]
    if alike:
        text = f"In {first[0].metric} ({first[0].value:.4f}) the model is not proven to differ from {', '.join(alike)}"
        yield Warned(text=text, serious=False)


def _uncalibrated(record: RunRecord) -> Iterator[Warned]:
    curve, ece = record.calibration, record.metrics[MODEL].get("ece")
    examples = record.counts.get("examples_evaluated", 0)
    if curve is None or ece is None or not examples:
        return
    if ece > calibration_limit(curve, examples):
        total = sum(curve.weight)
        predicted, observed = (
            sum(value * weight for value, weight in zip(values, curve.weight, strict=True)) / total
            for values in (curve.predicted, curve.observed)
        )
        text = (
            f"The probabilities are not calibrated: they are off by {ece:.4f} in the mean (ECE); "
            f"{predicted:.4f} is predicted and {observed:.4f} observed over all"
        )
        yield Warned(text=text, serious=True)


def calibration_limit(curve: CalibrationRecord, examples: int) -> float:
    """The ECE up to which probabilities pass: a tenth of the rarer label's share, or twice what chance gives.

    Were every probability r, a bin of n examples would be off by E |N(0, r (1 - r) / n)| = sqrt(2 r (1 - r) / (π n)).
    """
    total = sum(curve.weight)
    rate = sum(value * weight for value, weight in zip(curve.observed, curve.weight, strict=True)) / total
    chance = sqrt(2 * rate * (1 - rate) * len(curve.weight) / (pi * examples))
    return max(UNCALIBRATED * min(rate, 1 - rate), NOISE * chance)


def _small(record: RunRecord) -> Iterator[Warned]:
    small = [f"{each.by} {each.name} ({each.users:,})" for each in record.slices if each.small]
    if small:
        shown = ", ".join(small[:4]) + (f" and {len(small) - 4} more" if len(small) > 4 else "")
        what = "slice has" if len(small) == 1 else "slices have"
        yield Warned(text=f"{len(small)} {what} too few users to say much: {shown}", serious=False)


def _not_measurable(record: RunRecord) -> Iterator[Warned]:
    known = record.ranges.get(MODEL, {})
    first = choice.shown(list(record.metrics[MODEL]))[0]
    if choice.bounds(known.get(first)) is None:
        yield Warned(text=f"How far {first} would vary with other users is not known: there are too few", serious=False)
    if len(record.metrics) == 1:
        yield Warned(text="Nothing stands beside the model: no baseline was measured", serious=False)


def _collapsed(health: HealthRecord) -> Iterator[Warned]:
    for table in health.tables:
        if has_collapsed(table):
            text = (
                f"Table {table.name} has collapsed: its effective rank is {table.effective_rank:.1f}, "
                f"and {_most(table)} would be possible"
            )
            yield Warned(text=text, serious=True)


def has_collapsed(table: TableHealth) -> bool:
    """Whether its rows have come to lie in few directions."""
    most = _most(table)
    return table.effective_rank is not None and most >= WIDE and table.effective_rank < COLLAPSED * most


def _most(table: TableHealth) -> int:
    return min(table.rows, table.dim)


def _stale(found: Found) -> Iterator[Warned]:
    record = found.record
    if record is None:
        return
    if found.manifest is not None and found.manifest.config_digest != record.config_digest:
        text = f"Bundle {found.manifest.version} was exported from another config than the one that was evaluated"
        yield Warned(text=text, serious=True)
    if found.health is not None and found.health.config_digest != record.config_digest:
        yield Warned(
            text="the tables were inspected under another config than the one that was evaluated", serious=False
        )
