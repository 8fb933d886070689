"""Could a difference be noise? Intervals and tests over users, who are drawn independently; their events are not.

All functions take one value per user (a metric, or the difference of one between two models), and optionally a weight
(the user's impressions, for a metric that is a ratio of sums). The estimate is always Σ w x / Σ w.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Vector = NDArray[np.float64]
BLOCK = 1 << 24
"""Numbers drawn at once: bounds the memory."""


@dataclass(frozen=True)
class Interval:
    """An estimate and where its true value may lie."""

    estimate: float
    low: float
    high: float
    users: int


def bootstrap_interval(
    values: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    level: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> Interval:
    """Bootstrap-t interval of a (weighted) mean over users (Efron and Tibshirani 1993, section 12.5).

    Each resample's mean is studentised by its own standard error, so that skewed metrics keep their coverage where the
    percentile bootstrap falls short.

    Args:
        values: [U] one for each user.
        weights: [U] not negative, 1 by default.
        level: the share of such intervals that hold the true value.
        resamples: draws of U users with replacement.
        seed: of the draws.

    Raises:
        ValueError: fewer than two users, or unsound arguments.
    """
    x, w = _checked(values, weights)
    estimate = _mean(x, w)
    spread = _standard_error(x, w)
    if spread == 0.0:
        return Interval(estimate, estimate, estimate, len(x))
    students = np.concatenate([_studentised(x, w, estimate, draws) for draws in _draws(len(x), resamples, seed)])
    low, high = np.quantile(students, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(estimate - high * spread), float(estimate - low * spread), len(x))


def randomization_test(
    differences: ArrayLike, weights: ArrayLike | None = None, *, resamples: int = 10_000, seed: int = 0
) -> float:
    """Two-sided p-value of paired differences by flipping the sign of each user's at random (Fisher 1935).

    The observed signs count as one of the draws, so that p is never 0 and the test never too eager.

    Args:
        differences: [U] of each user, model minus champion.
        weights: [U] not negative, 1 by default.
        resamples: draws of the signs.
        seed: of the draws.

    Raises:
        ValueError: fewer than two users, or unsound arguments.
    """
    x, w = _checked(differences, weights)
    contribution = w * x
    observed = abs(contribution.sum())
    rng = np.random.default_rng(seed)
    as_large = 0
    for size in _sizes(len(x), resamples):
        signs = rng.integers(0, 2, (size, len(x)), dtype=np.int8)
        flipped = 2 * (signs @ contribution) - contribution.sum()
        as_large += int(np.sum(np.abs(flipped) >= observed * (1 - 1e-12)))
    return (1 + as_large) / (1 + resamples)


def adjust(p_values: ArrayLike, method: Literal["holm", "benjamini_hochberg"] = "holm") -> Vector:
    """[M] p-values corrected for M comparisons.

    `holm` (1979) bounds the chance of any false discovery, `benjamini_hochberg` (1995) their expected share.

    >>> adjust([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, np.float64)
    if p.ndim != 1 or np.any((p < 0) | (p > 1)) or np.isnan(p).any():
        raise ValueError("p-values must be [M] in [0, 1]")
    order, count = np.argsort(p, kind="stable"), len(p)
    if method == "holm":
        sorted_ = np.maximum.accumulate(p[order] * (count - np.arange(count)))
    else:
        sorted_ = np.minimum.accumulate((p[order] * count / np.arange(1, count + 1))[::-1])[::-1]
    adjusted = np.empty(count)
    adjusted[order] = np.minimum(sorted_, 1.0)
    return adjusted


def minimal_detectable_difference(
    differences: ArrayLike, weights: ArrayLike | None = None, *, level: float = 0.95, power: float = 0.8
) -> float:
    """The smallest true difference that a two-sided test at `level` finds with probability `power`, given these users.

    Raises:
        ValueError: fewer than two users, or unsound arguments.
    """
    x, w = _checked(differences, weights)
    normal = NormalDist()
    return (normal.inv_cdf((1 + level) / 2) + normal.inv_cdf(power)) * _standard_error(x, w)


def _checked(values: ArrayLike, weights: ArrayLike | None) -> tuple[Vector, Vector]:
    x = np.asarray(values, np.float64)
    w = np.ones_like(x) if weights is None else np.asarray(weights, np.float64)
    if x.ndim != 1 or x.shape != w.shape:
        raise ValueError(f"values and weights must be [U] alike, not {x.shape}, {w.shape}")
    if len(x) < 2:
        raise ValueError(f"{len(x)} users say nothing about their spread: at least 2")
    if not (np.isfinite(x).all() and np.isfinite(w).all()):
        raise ValueError("values and weights must be finite: leave out users for whom the metric is not defined")
    if np.any(w < 0) or w.sum() == 0:
        raise ValueError("weights must not be negative, nor all 0")
    return x, w


def _mean(x: Vector, w: Vector) -> float:
    return float((w * x).sum() / w.sum())


def _standard_error(x: Vector, w: Vector) -> float:
    """Of a ratio of sums over independent users, by linearisation; of a plain mean, the usual s / sqrt(U)."""
    count = len(x)
    residual = w * (x - _mean(x, w))
    return float(np.sqrt(count / (count - 1) * (residual**2).sum()) / w.sum())


def _studentised(x: Vector, w: Vector, estimate: float, draws: NDArray[np.intp]) -> Vector:
    """(mean - estimate) / standard error of each draw [R, U]; infinite where all users drawn are alike."""
    count = len(x)
    drawn_x, drawn_w = x[draws], w[draws]
    total = drawn_w.sum(1)
    means = (drawn_w * drawn_x).sum(1) / total
    squares = ((drawn_w * (drawn_x - means[:, None])) ** 2).sum(1)
    errors = np.sqrt(count / (count - 1) * squares) / total
    difference = means - estimate
    infinite = np.where(difference == 0, 0.0, np.copysign(np.inf, difference))
    return np.divide(difference, errors, out=infinite, where=errors > 0)


def _draws(users: int, resamples: int, seed: int) -> Iterator[NDArray[np.intp]]:
    rng = np.random.default_rng(seed)
    for size in _sizes(users, resamples):
        yield rng.integers(0, users, (size, users))


def _sizes(users: int, resamples: int) -> Iterator[int]:
    most = max(1, BLOCK // users)
    for start in range(0, resamples, most):
        yield min(most, resamples - start)
