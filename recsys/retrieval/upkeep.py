"""Whether an index still keeps its promise once items have come and gone, and a new one where it does not.

ScaNN puts a new vector into the leaf and the codes that were trained on others. The mean recall over all queries hardly
shows what that costs, since few of their best items are new: so new items are also looked for by queries near them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.metrics import recall_at_k
from recsys.ragged import Ragged
from recsys.retrieval.config import ScannConfig
from recsys.retrieval.exact import ExactIndex
from recsys.retrieval.index import Vectors
from recsys.retrieval.scann_index import ScannIndex
from recsys.retrieval.tuning import tune

LOOKED_FOR = 256
"""New items, and held-out queries, by which an index is measured again, at most."""
TINY = np.float32(1e-12)


@dataclass(frozen=True)
class Upkeep:
    """What an index finds after an update."""

    recall: dict[int, float]
    """By held-out queries, at each cut-off of the promise."""
    near: float | None
    """Of pairs of a query near a new item and that item, if it is among the exact best: how many are found. None where
    there are none."""

    def holds(self, config: ScannConfig) -> bool:
        """Whether the promise is still kept."""
        promised = config.promised
        near = self.near is None or self.near >= max(promised.values())
        return near and all(self.recall[k] >= promised[k] for k in promised)


def measure(index: ScannIndex, ids: NDArray[np.int64], queries: Vectors) -> Upkeep:
    """Measure an index after the items `ids` have come or changed, by held-out `queries` [Q, d]."""
    k = min(index.config.depth, len(index.rows))
    some = _spread(queries)
    best, found = index.exact.search(some, k).ids, index.search(some, k).ids
    recall = {}
    for cut in index.config.promised:
        truth = Ragged.from_lists(list(best[:, :cut]))
        recall[cut] = float(recall_at_k(truth.contains(found[:, :cut]), truth.lengths, min(cut, k)).mean())
    return Upkeep(recall, _near(index, _spread(ids), queries, k))


def _near(index: ScannIndex, ids: NDArray[np.int64], queries: Vectors, k: int) -> float | None:
    if not len(ids):
        return None
    near, own = near_queries(index.vectors[ids], queries), np.tile(ids, 2)[:, np.newaxis]
    there = (index.exact.search(near, k).ids == own).any(axis=1)
    found = (index.search(near, k).ids == own).any(axis=1)
    return float(found[there].mean()) if there.any() else None


def near_queries(items: Vectors, queries: Vectors) -> Vectors:
    """[2 m, d] for each of `items` [m, d] first the held-out query nearest to it in angle, moved half-way to it; then,
    in the same order, those moved all the way. Each is as long as the query was.
    """
    length = np.linalg.norm(queries, axis=1, keepdims=True)
    nearest = ((items / _long(items)) @ (queries / np.maximum(length, TINY)).T).argmax(axis=1)
    direction = items / _long(items)
    between = queries[nearest] / np.maximum(length[nearest], TINY) + direction
    return np.concatenate([length[nearest] * between / _long(between), length[nearest] * direction])


def _long(vectors: Vectors) -> Vectors:
    """[m, 1] their lengths, none of them 0."""
    return np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), TINY)


def _spread(rows: NDArray[Any]) -> NDArray[Any]:
    """At most `LOOKED_FOR` of the rows, evenly apart."""
    return rows[np.linspace(0, len(rows) - 1, LOOKED_FOR).astype(int)] if len(rows) > LOOKED_FOR else rows


def kept_up(index: ExactIndex | ScannIndex, ids: NDArray[np.int64], queries: Vectors) -> ExactIndex | ScannIndex:
    """The index, if it keeps its promise after the items `ids` have come or changed; or else one that is built anew and
    tuned by the queries near them as well as by the held-out ones.

    Raises:
        ExportError: the new one does not keep it either.
    """
    if isinstance(index, ExactIndex) or not index.config.leaves or not len(queries):
        return index  # what scores every item misses none
    if measure(index, ids, queries).holds(index.config):
        return index
    near = near_queries(index.vectors[_spread(ids)], queries)
    return tune(index.catalogue, np.concatenate([queries, near]), index.asked)
