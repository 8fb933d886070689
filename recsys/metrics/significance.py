"""Could a difference be noise? Tests over users, who are drawn independently; their events are not.

As in `intervals`, a metric is one value per user and optionally a weight, its estimate is Σ w x / Σ w, and users of
weight 0 do not count.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from recsys.metrics.intervals import MANY, ROUNDING, Vector, block_sizes, counted_users, standard_error

DOMINANCE = 1e-3
"""Below this Σ a⁴ / (Σ a²)² no term dominates Σ ±a, and the normal distribution gives its tails to 2%."""


def randomization_test(
    differences: ArrayLike, weights: ArrayLike | None = None, *, resamples: int = 10_000, seed: int = 0
) -> float:
    """Two-sided p-value of paired differences by flipping the sign of each user's at random (Fisher 1935).

    The observed signs count as one of the draws, so that p is never 0 and the test never too eager. Where `MANY` users
    have a difference and none of them dominates, p is the normal limit: a sum of random signs has no skewness, so the
    limit is nearer than the draws are.

    Args:
        differences: [U] of each user, model minus champion.
        weights: [U] not negative, 1 by default.
        resamples: draws of the signs.
        seed: of the draws.

    Raises:
        ValueError: fewer than two users count, or unsound arguments.
    """
    x, w = counted_users(differences, weights)
    terms = w * x
    terms = terms[terms != 0]  # no sign changes the others
    least = 1 / (1 + resamples)
    squares = terms**2
    if len(terms) >= MANY and (squares**2).sum() < DOMINANCE * squares.sum() ** 2:
        return max(sys.float_info.min, math.erfc(abs(terms.sum()) / math.sqrt(2 * squares.sum())))
    observed = abs(terms.sum()) - ROUNDING * np.abs(terms).sum()
    as_large = sum(int(np.sum(np.abs(sums) >= observed)) for sums in _sign_flips(terms, resamples, seed))
    return least * (1 + as_large)


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
        ValueError: fewer than two users count, or unsound arguments.
    """
    x, w = counted_users(differences, weights)
    normal = NormalDist()
    return (normal.inv_cdf((1 + level) / 2) + normal.inv_cdf(power)) * standard_error(x, w)


def _sign_flips(terms: Vector, resamples: int, seed: int) -> Iterator[Vector]:
    """[R] sums of the terms with random signs, in blocks.

    Each random byte holds the signs of eight terms; the sums of those under all 256 bytes are looked up.
    """
    eights = np.pad(terms, (0, -len(terms) % 8)).reshape(-1, 8)
    signs = 1.0 - 2.0 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    sums = (eights @ signs.T).ravel()
    starts = 256 * np.arange(len(eights))
    rng = np.random.default_rng(seed)
    for size in block_sizes(max(1, len(eights)), resamples):
        yield sums[rng.integers(0, 256, (size, len(eights)), dtype=np.uint8) + starts].sum(1)
