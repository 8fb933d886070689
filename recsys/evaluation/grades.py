"""Gains of relevant items, for graded nDCG."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.metrics import graded_ndcg_at_k
from recsys.ragged import Ragged

Gains = NDArray[np.float64]


def gains_of(targets: Ragged, relevant: Ragged, gain: NDArray[np.floating], items: int) -> Gains:
    """The gain of each of `targets.values`: of the same row's events with this item the largest.

    Args:
        targets: for each user distinct items, rising, all of them in `relevant`.
        relevant: for each user the items of the events.
        gain: of each of `relevant.values`.
        items: N.
    """
    wanted = targets.row_of_value * items + targets.values
    event = relevant.row_of_value * items + relevant.values
    at, kept = _places(wanted, event)
    gains = np.zeros(len(wanted))
    np.maximum.at(gains, at[kept], gain[kept])
    return gains


def graded_ndcg(
    ranked: NDArray[np.integer], targets: Ragged, gains: Gains, items: int, ks: tuple[int, ...]
) -> dict[str, NDArray[np.float64]]:
    """`graded_ndcg@K` -> [Q] of rankings [Q, K], -1 for none; NaN for a user whose items all have gain 0."""
    wanted = targets.row_of_value * items + targets.values
    at, kept = _places(wanted, np.arange(len(ranked))[:, None] * items + ranked)
    shown = np.where(kept & (ranked >= 0), gains[at], 0.0)
    ideal = np.zeros((len(ranked), int(targets.lengths.max())))
    falling = gains[np.lexsort((-gains, targets.row_of_value))]
    ideal[targets.row_of_value, np.arange(len(wanted)) - np.repeat(targets.offsets[:-1], targets.lengths)] = falling
    graded = ideal[:, 0] > 0
    found = {f"graded_ndcg@{k}": np.full(len(ranked), np.nan) for k in ks}
    for k in ks:
        found[f"graded_ndcg@{k}"][graded] = graded_ndcg_at_k(shown[graded], ideal[graded], k)
    return found


def _places(wanted: NDArray[np.int64], keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where each key stands in `wanted`, which rises, and whether it stands there at all."""
    at = np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)
    return at, wanted[at] == keys
