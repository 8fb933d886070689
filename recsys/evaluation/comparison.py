"""Which differences between runs are real, and which could be noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from recsys.config.base import Config
from recsys.errors import DataError
from recsys.evaluation.evidence import Evidence
from recsys.metrics import adjust, bootstrap_interval, minimal_detectable_difference, randomization_test


class Difference(Config):
    """One run against the reference in one metric, over the same users."""

    run: str
    metric: str
    reference: float
    """The reference's value."""
    value: float
    """The run's."""
    difference: float
    low: float
    high: float
    """Bootstrap-t interval of the difference, at the comparison's level."""
    p: float
    """Of the sign-flip test, corrected for all comparisons (Holm)."""
    detectable: float
    """The smallest true difference that these users show with probability 0.8."""
    real: bool
    """Whether p is below 1 - level."""
    users: int


def compare(
    runs: Mapping[str, Evidence], metrics: Sequence[str], *, level: float = 0.95, seed: int = 0
) -> list[Difference]:
    """Every run against the first, user by user, in every metric.

    Args:
        runs: by name; the first is the reference.
        metrics: names that all of them have.
        level: of the intervals; p-values below 1 - level count as real differences.
        seed: of the resampling.

    Raises:
        DataError: fewer than two runs, evidence of different data, parts or users, or a metric that one of them lacks.
    """
    reference_name, *others = runs
    if not others:
        raise DataError("runs", "one run", "at least two to compare")
    reference = runs[reference_name]
    for name in others:
        _must_match(reference_name, reference, name, runs[name])
    for name, evidence in runs.items():
        for metric in metrics:
            if metric not in evidence.values:
                raise DataError(name, f"no metric {metric!r}", f"one of {', '.join(evidence.values)}")
    found = [_difference(reference, name, runs[name], metric, level, seed) for metric in metrics for name in others]
    corrected = adjust([each.p for each in found])
    return [
        each.model_copy(update={"p": float(p), "real": bool(p < 1 - level)})
        for each, p in zip(found, corrected, strict=True)
    ]


def _difference(reference: Evidence, name: str, evidence: Evidence, metric: str, level: float, seed: int) -> Difference:
    weights = reference.weight(metric)
    counted = (weights > 0) & (evidence.weight(metric) > 0)
    before, after, w = reference.values[metric][counted], evidence.values[metric][counted], weights[counted]
    interval = bootstrap_interval(after - before, w, level=level, seed=seed)
    return Difference(
        run=name,
        metric=metric,
        reference=float(np.average(before, weights=w)),
        value=float(np.average(after, weights=w)),
        difference=interval.estimate,
        low=interval.low,
        high=interval.high,
        p=randomization_test(after - before, w, seed=seed),
        detectable=minimal_detectable_difference(after - before, w, level=level),
        real=False,
        users=int(counted.sum()),
    )


def _must_match(reference_name: str, reference: Evidence, name: str, evidence: Evidence) -> None:
    place = f"{reference_name}, {name}"
    if reference.data_digest != evidence.data_digest:
        raise DataError(
            place,
            f"were measured on different data ({reference.data_digest[:12]}, {evidence.data_digest[:12]})",
            "runs of one prepared data set",
            "give both the same data and schema",
        )
    if reference.part != evidence.part:
        raise DataError(place, f"were measured on the {reference.part} and the {evidence.part} part", "one part")
    if not np.array_equal(reference.users, evidence.users):
        raise DataError(
            place,
            f"have other users ({len(reference.users):,} and {len(evidence.users):,})",
            "the same users, one by one",
            "evaluate both again",
        )
