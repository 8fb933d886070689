"""Ranking metrics at a cut-off, one value in [0, 1] per query. `docs/metrics.md` holds them against other libraries.

They take `hits` [Q, K], whether the item at each rank (best first) is relevant, and `relevant` [Q], how many relevant
items the query has in the whole catalogue. They raise ValueError for a query without relevant items, for which none of
them is defined: leave such queries out, and count them.

They see ranks, not scores: whoever ranks decides between equal scores. A rank without an item (a ranking shorter than
k) is a miss.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.ragged import Ragged

Hits = NDArray[np.bool_]
Counts = NDArray[np.integer]
PerQuery = NDArray[np.float64]


def hits(ranked: NDArray[np.integer], relevant: Ragged) -> Hits:
    """[Q, K] whether each recommended item is relevant to its query.

    Args:
        ranked: [Q, K] items, best first, distinct in a row; -1 where there is none.
        relevant: the distinct relevant items of each of the Q queries.

    Raises:
        ValueError: an item stands twice in a row of either.

    >>> hits(np.array([[7, 3, -1]]), Ragged.from_lists([[3, 5]])).tolist()
    [[False, True, False]]
    """
    rising = np.sort(ranked, axis=1)
    again = (rising[:, 1:] == rising[:, :-1]) & (rising[:, 1:] >= 0)
    if again.any():
        row, place = np.argwhere(again)[0]
        raise ValueError(f"the ranking of query {row} holds item {rising[row, place]} twice")
    rows = relevant.row_of_value
    order = np.lexsort((relevant.values, rows))
    same = (np.diff(relevant.values[order]) == 0) & (np.diff(rows[order]) == 0)
    if same.any():
        first = order[np.flatnonzero(same)[0]]
        raise ValueError(f"item {relevant.values[first]} is twice relevant to query {rows[first]}")
    return relevant.contains(ranked)


def _top(hits: Hits, relevant: Counts, k: int) -> Hits:
    """The first k ranks, once the arguments are known to be sound."""
    if hits.ndim != 2 or hits.dtype != np.bool_ or relevant.shape != hits.shape[:1]:
        raise ValueError(f"hits must be bool [Q, K] and relevant [Q], not {hits.dtype} {hits.shape}, {relevant.shape}")
    if not 1 <= k <= hits.shape[1]:
        raise ValueError(f"k is {k}, but the ranking holds ranks 1 to {hits.shape[1]}")
    if len(relevant) and relevant.min() < 1:
        raise ValueError(f"{np.sum(relevant < 1)} of {len(relevant)} queries have no relevant items: leave them out")
    if np.any(hits.sum(axis=1) > relevant):
        raise ValueError("more hits than relevant items: a ranking holds an item twice, or relevant is wrong")
    return hits[:, :k]


def recall_at_k(hits: Hits, relevant: Counts, k: int) -> PerQuery:
    """[Q] share of the query's relevant items among the first k; at most k / relevant."""
    return _top(hits, relevant, k).sum(axis=1) / relevant


def precision_at_k(hits: Hits, relevant: Counts, k: int) -> PerQuery:
    """[Q] share of the first k ranks that hold a relevant item; k ranks, even if fewer hold an item."""
    return _top(hits, relevant, k).mean(axis=1)


def hit_rate_at_k(hits: Hits, relevant: Counts, k: int) -> PerQuery:
    """[Q] 1 if any of the first k is relevant, else 0."""
    return np.asarray(_top(hits, relevant, k).any(axis=1), np.float64)


def ndcg_at_k(hits: Hits, relevant: Counts, k: int) -> PerQuery:
    """[Q] discounted gain sum_r hit_r / log2(r + 1) of the first k, over that of the best ranking possible.

    The best ranking has min(relevant, k) hits at the top (Järvelin and Kekäläinen 2002, with binary gains).
    """
    top = _top(hits, relevant, k)
    discount = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discount)[np.minimum(relevant, k) - 1]
    return top @ discount / ideal


def mrr_at_k(hits: Hits, relevant: Counts, k: int) -> PerQuery:
    """[Q] 1 / rank of the first relevant item, 0 if it is not among the first k."""
    top = _top(hits, relevant, k)
    return np.where(top.any(axis=1), 1 / (top.argmax(axis=1) + 1), 0.0)


def map_at_k(hits: Hits, relevant: Counts, k: int) -> PerQuery:
    """[Q] average precision: the sum of precision@r over the hits r <= k, over min(relevant, k).

    So the best ranking has 1 at every k. trec_eval and ranx divide by `relevant`: the same where that is at most k.
    """
    top = _top(hits, relevant, k)
    precision = np.cumsum(top, axis=1) / np.arange(1, k + 1)
    return np.sum(precision * top, axis=1) / np.minimum(relevant, k)


def graded_ndcg_at_k(gains: NDArray[np.floating], ideal: NDArray[np.floating], k: int) -> PerQuery:
    """[Q] Σ_r gain_r / log2(r + 1) of the first k ranks, over that of the best ranking (Järvelin and Kekäläinen 2002).

    Args:
        gains: [Q, K] gain of the item at each rank, 0 for an irrelevant one. For the exponential form pass 2^grade - 1.
        ideal: [Q, J] gains of the query's relevant items, falling, padded with 0.
        k: the cut-off.

    Raises:
        ValueError: a query without gain, gains below 0 or not falling in `ideal`, a sum of gains above the ideal one.
    """
    if gains.ndim != 2 or ideal.ndim != 2 or len(gains) != len(ideal):
        raise ValueError(f"gains must be [Q, K] and ideal [Q, J], not {gains.shape}, {ideal.shape}")
    if not 1 <= k <= gains.shape[1]:
        raise ValueError(f"k is {k}, but the ranking holds ranks 1 to {gains.shape[1]}")
    if (gains < 0).any() or (ideal < 0).any() or (np.diff(ideal, axis=1) > 0).any():
        raise ValueError("gains must not be negative, and ideal gains must fall")
    if np.any(ideal.sum(1) <= 0):
        raise ValueError(f"{np.sum(ideal.sum(1) <= 0)} of {len(ideal)} queries have no gain: leave them out")
    discount = 1 / np.log2(np.arange(2, max(k, ideal.shape[1]) + 2))
    best = ideal[:, :k] @ discount[: min(k, ideal.shape[1])]
    found = gains[:, :k] @ discount[:k]
    if np.any(found > best * (1 + 1e-9)):
        raise ValueError("more gain than the ideal ranking: a ranking holds an item twice, or ideal is wrong")
    return found / best
