"""Which differences between runs are real, and which could be noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from statistics import NormalDist

import numpy as np

from recsys.config.base import Config
from recsys.errors import DataError
from recsys.evaluation.evidence import WHOLE, Evidence, Measured, SliceKey, Values
from recsys.metrics import adjust, bootstrap_interval, minimal_detectable_difference, randomization_test

DRAWS = 10_000
"""Sign flips of a comparison, at least."""


class RelaImpr(Config):
    """`recsys.metrics.rela_impr` of a run over its reference, and its interval at the comparison's level."""

    value: float
    low: float
    high: float


class Difference(Config):
    """One run against another in one metric, over the same users."""

    run: str
    against: str
    """The reference."""
    metric: str
    by: str = ""
    """By what was sliced; empty for all users."""
    slice: str = ""
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
    """The smallest true difference that these users show, among as many comparisons, with probability 0.8."""
    real: bool
    """Whether p is below 1 - level."""
    users: int
    rela_impr: RelaImpr | None = None
    """Of AUC and GAUC, where the reference is above 1/2."""


def compare(
    runs: Mapping[str, Measured],
    metrics: Sequence[str],
    *,
    slices: Sequence[SliceKey] = (WHOLE,),
    level: float = 0.95,
    seed: int = 0,
) -> list[Difference]:
    """Every run against the first, user by user, in every metric.

    Args:
        runs: by name; the first is the reference.
        metrics: names that all of them have.
        slices: where; `WHOLE` is all users.
        level: of the intervals; p-values below 1 - level count as real differences.
        seed: of the resampling.

    Raises:
        DataError: fewer than two runs, evidence of different data, parts or users, or a metric or slice that one of
            them lacks.
    """
    reference, *others = runs
    if not others:
        raise DataError("runs", "one run", "at least two to compare")
    pairs = [(reference, name) for name in others]
    return _corrected(_differences(runs, pairs, metrics, slices, level, seed), level)


def hold_against(
    run: str, measured: Mapping[str, Measured], metrics: Sequence[str], *, level: float = 0.95, seed: int = 0
) -> list[Difference]:
    """One run against each of the others (its baselines, its champion), in the metrics that both have.

    Raises:
        DataError: evidence of different data, parts or users.
    """
    found = list[Difference]()
    for name in measured:
        if name != run:
            shared = [metric for metric in metrics if metric in measured[name].whole.values]
            found += _differences(measured, [(name, run)], shared, [WHOLE], level, seed)
    return _corrected(found, level)


def _differences(
    runs: Mapping[str, Measured],
    pairs: Sequence[tuple[str, str]],
    metrics: Sequence[str],
    slices: Sequence[SliceKey],
    level: float,
    seed: int,
) -> list[Difference]:
    """Each pair is (reference, run)."""
    found, draws = list[Difference](), _draws(len(slices) * len(pairs) * len(metrics), level)
    for key in slices:
        parts = {name: _part(name, runs[name], key) for pair in pairs for name in pair}
        for pair in pairs:
            _must_match(*((name, runs[name], parts[name]) for name in pair))
            _must_slice_alike(key, *((name, runs[name]) for name in pair))
        for metric in metrics:
            for name, evidence in parts.items():
                if metric not in evidence.values:
                    raise DataError(name, f"no metric {metric!r}", f"one of {', '.join(evidence.values)}")
            for against, run in pairs:
                found += _difference((against, parts[against]), (run, parts[run]), metric, key, level, seed, draws)
    return found


def _corrected(found: list[Difference], level: float) -> list[Difference]:
    """For so many comparisons. What could be detected is that of the least p of all, to be on the safe side."""
    if not found:
        return []
    p_values, each_level = adjust([each.p for each in found]), 1 - (1 - level) / len(found)
    wider = _reach(each_level) / _reach(level)
    return [
        each.model_copy(
            update={"p": float(p), "real": bool(p < 1 - level), "detectable": float(each.detectable * wider)}
        )
        for each, p in zip(found, p_values, strict=True)
    ]


def _reach(level: float, power: float = 0.8) -> float:
    """Standard errors between nothing and what a test at this level finds with this probability."""
    normal = NormalDist()
    return normal.inv_cdf((1 + level) / 2) + normal.inv_cdf(power)


def _draws(comparisons: int, level: float) -> int:
    """Enough sign flips for the least p, corrected, to be far below 1 - level."""
    return max(DRAWS, ceil(20 * comparisons / (1 - level)))


def _must_slice_alike(key: SliceKey, one: tuple[str, Measured], other: tuple[str, Measured]) -> None:
    if key != WHOLE and one[1].slicings.get(key[0]) != other[1].slicings.get(key[0]):
        found = f"were sliced by {key[0]} in two ways"
        raise DataError(f"{one[0]}, {other[0]}", found, "one definition", "evaluate both with the same slices")


def _part(name: str, measured: Measured, key: SliceKey) -> Evidence:
    if key == WHOLE:
        return measured.whole
    if key not in measured.slices:
        known = ", ".join(f"{by}={value}" for by, value in measured.slices) or "none: set evaluation.slices"
        raise DataError(name, f"no slice {'='.join(key)}", f"one of {known}", "evaluate it with the same slices")
    return measured.slices[key]


def _difference(
    reference: tuple[str, Evidence],
    run: tuple[str, Evidence],
    metric: str,
    key: SliceKey,
    level: float,
    seed: int,
    draws: int,
) -> list[Difference]:
    """With one user or none there is nothing to be said."""
    (against, held_to), (name, evidence) = reference, run
    weights = held_to.weight(metric)
    counted = (weights > 0) & (evidence.weight(metric) > 0)
    before, after, w = held_to.values[metric][counted], evidence.values[metric][counted], weights[counted]
    if len(w) < 2:
        return []
    interval = bootstrap_interval(after - before, w, level=level, seed=seed, signed=True)
    found = Difference(
        run=name,
        against=against,
        metric=metric,
        by=key[0],
        slice=key[1],
        reference=float(np.average(before, weights=w)),
        value=float(np.average(after, weights=w)),
        difference=interval.estimate,
        low=interval.low,
        high=interval.high,
        p=randomization_test(after - before, w, resamples=draws, seed=seed),
        detectable=minimal_detectable_difference(after - before, w, level=level),
        real=False,
        users=int(counted.sum()),
        rela_impr=_rela_impr(before, after, w, level, seed) if metric.rpartition(".")[2] in ("auc", "gauc") else None,
    )
    return [found]


def _rela_impr(before: Values, after: Values, weights: Values, level: float, seed: int) -> RelaImpr | None:
    """A ratio of two means, of which each user has a share: what it would move if the user counted more."""
    base = float(np.average(before, weights=weights))
    if base <= 0.5:
        return None
    ratio = float(np.average(after - before, weights=weights)) / (base - 0.5)
    shares = ratio + (after - before - ratio * (before - 0.5)) / (base - 0.5)
    interval = bootstrap_interval(shares, weights, level=level, seed=seed, signed=True)
    return RelaImpr(value=ratio, low=interval.low, high=interval.high)


def _must_match(one: tuple[str, Measured, Evidence], other: tuple[str, Measured, Evidence]) -> None:
    place = f"{one[0]}, {other[0]}"
    digests, parts = ([getattr(each[1], name) for each in (one, other)] for name in ("data_digest", "part"))
    if digests[0] != digests[1]:
        raise DataError(
            place,
            f"were measured on different data ({digests[0][:12]}, {digests[1][:12]})",
            "runs of one prepared data set",
            "give both the same data and schema",
        )
    if parts[0] != parts[1]:
        raise DataError(place, f"were measured on the {parts[0]} and the {parts[1]} part", "one part")
    users = one[2].users, other[2].users
    if not np.array_equal(*users):
        raise DataError(
            place,
            f"have other users ({len(users[0]):,} and {len(users[1]):,})",
            "the same users, one by one",
            "evaluate both again",
        )
