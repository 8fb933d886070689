"""Beyond accuracy: how much of the catalogue is recommended, and how popular it is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.ragged import Ragged


def coverage(ranked: NDArray[np.integer], catalogue_size: int) -> float:
    """Share of the catalogue's items that stand in at least one ranking [Q, K] (-1: none).

    >>> coverage(np.array([[0, 1], [1, -1]]), 4)
    0.5
    """
    if catalogue_size < 1:
        raise ValueError(f"a catalogue of {catalogue_size} items cannot be covered")
    if ranked.size and ranked.max() >= catalogue_size:
        raise ValueError(f"item {ranked.max()} is not in a catalogue of {catalogue_size} items")
    return len(np.unique(ranked[ranked >= 0])) / catalogue_size


def mean_popularity(items: Ragged, popularity: NDArray[np.number]) -> NDArray[np.float64]:
    """[Q] mean popularity [N] of each row's items; NaN for an empty row.

    >>> mean_popularity(Ragged.from_lists([[0, 2], [1]]), np.array([4, 1, 2])).tolist()
    [3.0, 1.0]
    """
    totals = np.bincount(items.row_of_value, popularity[items.values].astype(np.float64), minlength=len(items))
    return np.divide(totals, items.lengths, out=np.full(len(items), np.nan), where=items.lengths > 0)
