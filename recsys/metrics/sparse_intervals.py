"""Intervals of a metric that hardly any user has.

Where a handful of users hold all that is not 0, many resamples hold none of them, and the bootstrap has nothing to say.
Such users come like rare events: their number is a Poisson count, and the metric a sum of counts, each weighing what a
user adds to it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv

Vector = NDArray[np.float64]
FEW = 20
"""So many users who are not 0 are enough for the bootstrap ..."""
RARE = 0.1
"""... and so is this share of all of them."""


def are_sparse(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """[M] whether few of the users [U, M] have a metric at all, and not none."""
    held = (values != 0).sum(0)
    return (held > 0) & (held < FEW) & (held <= RARE * len(values))


def sparse_interval(pulls: Vector, level: float, signed: bool) -> tuple[float, float]:
    """Where the sum of `pulls`, what each user adds to a metric, may truly lie.

    Gains and losses are two sums; the interval of their difference recovers the variance from the bounds of each
    (Zou and Donner 2008).

    Args:
        pulls: of the users who are not 0.
        level: the share of such intervals that hold the true value.
        signed: whether users may lose as well as gain, though none of these few may have.
    """
    largest = float(np.abs(pulls).max())
    gained, lost = pulls[pulls > 0], -pulls[pulls < 0]
    low, high = _poisson_bounds(gained, largest, level)
    if not signed and not len(lost):
        return low, high
    least, most = _poisson_bounds(lost, largest, level)
    gain, loss = gained.sum(), lost.sum()
    return (
        float(gain - loss - np.hypot(gain - low, most - loss)),
        float(gain - loss + np.hypot(high - gain, loss - least)),
    )


def _poisson_bounds(pulls: Vector, largest: float, level: float) -> tuple[float, float]:
    """Of a weighted sum of Poisson counts, by the gamma distribution (Fay and Feuer 1997); exact for equal weights
    (Garwood 1936). `largest` is what one more user might have added.
    """
    total, square = float(pulls.sum()), float(pulls @ pulls)
    tail = (1 - level) / 2
    low = square / total * gammaincinv(total**2 / square, tail) if len(pulls) else 0.0
    total, square = total + largest, square + largest**2
    return float(low), float(square / total * gammaincinv(total**2 / square, 1 - tail))
