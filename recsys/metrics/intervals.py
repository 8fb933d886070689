"""Where the true value of a metric may lie: intervals over users, who are drawn independently; their events are not.

A metric is one value per user, and optionally a weight (the user's impressions, for a metric that is a ratio of sums);
the estimate is always Σ w x / Σ w. Users of weight 0 do not count: neither their values, which may be NaN, nor their
number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys.metrics.sparse_intervals import are_sparse, sparse_interval

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
MANY = 10_000
"""From so many users on formulas stand in for draws: they are nearer to the limit of many draws than some thousand
draws are (`benchmarks/significance.py`).
"""
BLOCK = 1 << 21
"""Numbers drawn at once: bounds the memory."""
CALIBRATION = 0.05
"""Most that the width of an interval is moved for its coverage's sake."""
ROUNDING = 1e-12
"""A sum that should be 0 is below this share of its terms."""


@dataclass(frozen=True)
class Interval:
    """An estimate and where its true value may lie; all finite."""

    estimate: float
    low: float
    high: float
    users: int
    """That count."""


def bootstrap_interval(
    values: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    level: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
    signed: bool = False,
) -> Interval:
    """`bootstrap_intervals` of one metric.

    Args:
        values: [U] one for each user.
        weights: [U] not negative, 1 by default.
        level: the share of such intervals that hold the true value.
        resamples: draws of as many users as count, with replacement.
        seed: of the draws.
        signed: whether the values are differences, which may be below 0.

    Raises:
        ValueError: fewer than two users count, or unsound arguments.
    """
    x, w = counted_users(values, weights)
    return _Sample.of(x[:, None], w[:, None]).intervals(level, resamples, seed, signed)[0]


def bootstrap_intervals(
    values: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    level: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
    signed: bool = False,
) -> list[Interval | None]:
    """Bootstrap-t intervals of (weighted) means over users (Efron and Tibshirani 1993, section 12.5).

    Each resample's mean is studentised by its own standard error, so that skewed metrics keep their coverage where the
    percentile bootstrap falls short. The quantiles are read where coverage is right to second order (Hall 1988, Annals
    of Statistics 16, 927-953); with a hundred users it would be some 2% off. From `MANY` users on nothing is drawn: the
    quantiles of the studentised mean come from its Edgeworth expansion, made monotone (Hall 1992, Journal of the Royal
    Statistical Society B 54, 221-228) and extended to ratios of sums.

    Where few users are not 0, their number decides in place of resamples, most of which hold none of them
    (`recsys.metrics.sparse_intervals`). An end that the resamples leave open all the same is the least or greatest
    value of any user.

    Args:
        values: [U, M] one for each user and metric; metrics with the same users share the draws.
        weights: [U] or [U, M] not negative, 1 by default.
        level: the share of such intervals that hold the true value.
        resamples: draws of as many users as count, with replacement.
        seed: of the draws.
        signed: whether the values are differences, which may be below 0.

    Returns:
        M intervals; None for a metric in which fewer than two users count.

    Raises:
        ValueError: unsound arguments.
    """
    x, w = _metrics(values, weights)
    found: list[Interval | None] = [None] * x.shape[1]
    for columns, counted in _alike(np.broadcast_to(w > 0, x.shape)):
        if counted.sum() >= 2:
            of_users = w[counted]
            sample = _Sample.of(x[counted][:, columns], of_users if w.shape[1] == 1 else of_users[:, columns])
            for column, interval in zip(columns, sample.intervals(level, resamples, seed, signed), strict=True):
                found[column] = interval
    return found


def counted_users(values: ArrayLike, weights: ArrayLike | None) -> tuple[Vector, Vector]:
    """Values and weights of the users who count.

    Raises:
        ValueError: fewer than two of them, or unsound arguments.
    """
    x = np.asarray(values, np.float64)
    w = np.ones_like(x) if weights is None else np.asarray(weights, np.float64)
    if x.ndim != 1 or x.shape != w.shape:
        raise ValueError(f"values and weights must be [U] alike, not {x.shape}, {w.shape}")
    _must_be_sound(x, w)
    if len(x) and not w.any():
        raise ValueError("weights must not be all 0")
    x, w = x[w > 0], w[w > 0]
    if len(x) < 2:
        raise ValueError(f"{len(x)} users say nothing about their spread: at least 2")
    return x, w


def standard_error(x: Vector, w: Vector) -> float:
    """Of Σ w x / Σ w, for users who all count."""
    return float(_Sample.of(x[:, None], w[:, None]).error[0])


def _metrics(values: ArrayLike, weights: ArrayLike | None) -> tuple[Matrix, Matrix]:
    """[U, M] values, [U, M] or [U, 1] weights."""
    x = np.asarray(values, np.float64)
    if x.ndim != 2:
        raise ValueError(f"values must be [U, M], not {x.shape}")
    w = np.ones((len(x), 1)) if weights is None else np.asarray(weights, np.float64)
    w = w[:, None] if w.ndim == 1 else w
    if w.shape not in (x.shape, (len(x), 1)):
        raise ValueError(f"weights must be [U] or [U, M] for values {x.shape}, not {w.shape}")
    _must_be_sound(x, w)
    return x, w


def _must_be_sound(x: NDArray[np.float64], w: NDArray[np.float64]) -> None:
    if not np.isfinite(w).all() or np.any(w < 0):
        raise ValueError("weights must be finite and not negative")
    if not np.isfinite(x[np.broadcast_to(w > 0, x.shape)]).all():
        raise ValueError("values must be finite: give weight 0 to users for whom the metric is not defined")


def _alike(counts: NDArray[np.bool_]) -> Iterator[tuple[list[int], NDArray[np.bool_]]]:
    """Columns [U, M] that count the same users, and whom."""
    groups: dict[bytes, list[int]] = {}
    for column in range(counts.shape[1]):
        groups.setdefault(np.packbits(counts[:, column]).tobytes(), []).append(column)
    for columns in groups.values():
        yield columns, counts[:, columns[0]]


@dataclass(frozen=True)
class _Sample:
    """U users who count in each of M metrics."""

    x: Matrix
    """[U, M]"""
    w: Matrix
    """[U, M], or [U, 1] for all metrics, with mean 1."""
    estimate: Vector
    """[M] Σ w x / Σ w"""
    error: Vector
    """[M] its standard error: by linearisation, which for a plain mean is s / √U."""

    @classmethod
    def of(cls, x: Matrix, w: Matrix) -> Self:
        w = w / w.mean(0)
        estimate = (w * x).mean(0)
        error = np.sqrt(((w * (x - estimate)) ** 2).sum(0) / (len(x) - 1) / len(x))
        return cls(x, w, estimate, error)

    def intervals(self, level: float, resamples: int, seed: int, signed: bool) -> list[Interval]:
        """One for each metric."""
        normal = NormalDist().inv_cdf((1 + level) / 2)
        with np.errstate(divide="ignore", invalid="ignore"):  # where all users are alike, which is mended below
            quantiles = self._expanded(normal) if len(self.x) >= MANY else self._resampled(normal, resamples, seed)
            ends = self.estimate - quantiles[::-1] * self.error
        extremes = np.stack([self.x.min(0), self.x.max(0)])
        ends = np.where(self.error == 0, self.estimate, np.where(np.isfinite(ends), ends, extremes))
        for column in np.flatnonzero(are_sparse(self.x)):
            pulls = (self.w * self.x)[:, column] / len(self.x)
            ends[:, column] = sparse_interval(pulls[pulls != 0], level, signed)
        rows = zip(self.estimate.tolist(), *ends.tolist(), strict=True)
        return [Interval(estimate, low, high, len(self.x)) for estimate, low, high in rows]

    def _expanded(self, normal: float) -> Matrix:
        """[2, M] quantiles of (estimate - truth) / error in the limit of many users, at Φ(± normal).

        With e = w (x - truth), its skewness γ and ρ = E[w e] / σ, one has P(T <= t) = Φ(t + (γ/6 + (γ/3 - ρ) t²) / √U)
        to first order; ρ is what a random denominator adds. The square is completed to a cube, which is monotone and
        can be inverted.
        """
        spread, skewness, _ = self._moments()
        root = np.sqrt(len(self.x))
        curvature = (skewness / 3 - (self.w * self.w * (self.x - self.estimate)).mean(0) / spread) / root
        shifted = np.array([[-normal], [normal]]) - skewness / 6 / root
        cube = np.cbrt(1 + 3 * curvature * shifted)
        return 3 * shifted / (cube**2 + cube + 1)  # (cube - 1) / curvature, without its 0 / 0

    def _resampled(self, normal: float, resamples: int, seed: int) -> Matrix:
        """[2, M] quantiles of (mean - estimate) / standard error of resamples, at Φ(± normal)."""
        centred = self.x - self.estimate  # the estimate of all is then 0, and little is lost to cancellation
        squared = self.w**2
        parts = [self.w, self.w * centred, squared, squared * centred, squared * centred**2]
        terms, cuts = np.concatenate(parts, axis=1), np.cumsum([part.shape[1] for part in parts])[:-1]
        students = np.concatenate(
            [
                _studentised(np.split(counts @ terms, cuts, axis=1), len(self.x))
                for counts in _resample_counts(len(self.x), resamples, seed)
            ]
        )
        students.sort(axis=0)
        # No interpolation, which is not defined between a number and infinity.
        tails = [NormalDist().cdf(-each) for each in self._calibrated(normal)]
        low = (np.array(tails) * (resamples - 1)).astype(np.intp)
        return np.take_along_axis(students, np.stack([low, resamples - 1 - low]), axis=0)

    def _calibrated(self, normal: float) -> Vector:
        """[M] the normal quantile at which bootstrap-t intervals have the level that `normal` means.

        They cover Φ(z) - (κ - 3/2 γ²) z (1 + 2 z²) φ(z) / 6U on each side, κ being the excess kurtosis (Hall
        1988). Moments of few users are rough, so that z moves by no more than `CALIBRATION`.
        """
        _, skewness, kurtosis = self._moments()
        shift = (kurtosis - 1.5 * skewness**2) * (1 + 2 * normal**2) / 6 / len(self.x)
        return normal * (1 + np.clip(np.nan_to_num(shift), -CALIBRATION, CALIBRATION))

    def _moments(self) -> tuple[Vector, Vector, Vector]:
        """[M] standard deviation, skewness and excess kurtosis of w (x - estimate)."""
        pull = self.w * (self.x - self.estimate)
        square = pull * pull
        spread = np.sqrt(square.mean(0))
        return spread, (square * pull).mean(0) / spread**3, (square * square).mean(0) / spread**4 - 3


def _studentised(sums: list[Matrix], users: int) -> Matrix:
    """[R, M] mean / standard error of resamples, from their Σw, Σwx, Σw², Σw²x and Σw²x²; ±∞ without spread."""
    total, weighted, squared, product, squares = sums
    mean = weighted / total
    left = squares - 2 * mean * product + mean**2 * squared  # Σ w² (x - mean)²
    left[left <= ROUNDING * squares] = 0.0
    error = np.sqrt(users / (users - 1) * left) / total
    infinite = np.where(mean == 0, 0.0, np.copysign(np.inf, mean))
    return np.divide(mean, error, out=infinite, where=error > 0)


def _resample_counts(users: int, resamples: int, seed: int) -> Iterator[Matrix]:
    """[R, U] how often each user was drawn, in blocks of resamples."""
    rng = np.random.default_rng(seed)
    for size in block_sizes(users, resamples):
        drawn = rng.integers(0, users, (size, users)) + users * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * users).reshape(size, users).astype(np.float64)


def block_sizes(numbers: int, rows: int) -> Iterator[int]:
    """How many rows of so many numbers to draw at once."""
    most = max(1, BLOCK // numbers)
    for start in range(0, rows, most):
        yield min(most, rows - start)
