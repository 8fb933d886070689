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


def gini(exposure: NDArray[np.number]) -> float:
    """Gini coefficient of how often each of the N items was recommended: 0 all alike, near 1 one item alone.

    >>> gini(np.array([1, 1, 1, 1])), gini(np.array([0, 0, 0, 8]))
    (0.0, 0.75)
    """
    x = np.sort(np.asarray(exposure, np.float64))
    if len(x) == 0 or x[0] < 0 or x.sum() == 0:
        raise ValueError("exposures must not be negative, nor all 0")
    count = len(x)
    return float((2 * np.arange(1, count + 1) - count - 1) @ x / (count * x.sum()))


def novelty(items: Ragged, popularity: NDArray[np.number], total: int) -> NDArray[np.float64]:
    """[Q] mean self-information -log2((popularity + 1) / (total + 1)) of a row's items, in bits; NaN for an empty row.

    (Zhou et al. 2010, smoothed so that an item nobody had is finite.) `total` is what all popularities are shares of:
    the events, if popularity counts events.
    """
    return mean_popularity(items, -np.log2((np.asarray(popularity) + 1) / (total + 1)))


def intra_list_diversity(ranked: NDArray[np.integer], vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """[Q] mean cosine distance between the items of each ranking [Q, K] (-1: none); NaN below two items.

    (Ziegler et al. 2005.) Vectors [N, D] of length zero are at distance 1 from all. Memory goes with Q x K x D.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, lengths, out=np.zeros_like(vectors, np.float64), where=lengths > 0)
    present = ranked >= 0
    chosen = np.where(present[..., None], unit[np.maximum(ranked, 0)], 0.0)
    count = present.sum(1)
    # Σ_{i != j} cos = |Σ u|² - Σ |u|², so no K x K matrix is needed.
    total = np.square(chosen.sum(1)).sum(1) - np.square(chosen).sum((1, 2))
    pairs = count * (count - 1)
    return 1 - np.divide(total, pairs, out=np.full(len(ranked), np.nan), where=pairs > 0)


def category_miscalibration(
    recommended: NDArray[np.floating], history: NDArray[np.floating], smoothing: float = 0.01
) -> NDArray[np.float64]:
    """[Q] Kullback-Leibler divergence, in nats, of the recommended categories from the history's (Steck 2018, eq. 5).

    Args:
        recommended: [Q, C] share of each category among the recommended.
        history: [Q, C] share of each category in the history.
        smoothing: alpha, the share of the history's distribution mixed into the recommended one.

    >>> category_miscalibration(np.array([[0.5, 0.5]]), np.array([[0.5, 0.5]])).tolist()
    [0.0]
    """
    if recommended.shape != history.shape or not 0 < smoothing < 1:
        raise ValueError(f"shares must be [Q, C] alike, not {recommended.shape}, {history.shape}; smoothing in (0, 1)")
    mixed = (1 - smoothing) * recommended + smoothing * history
    ratio = np.divide(history, mixed, out=np.ones_like(mixed), where=history > 0)
    return np.sum(history * np.log(ratio), axis=1)
