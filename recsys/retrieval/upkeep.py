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
from recsys.retrieval.curve import Pairs
from recsys.retrieval.exact import ExactIndex
from recsys.retrieval.index import Vectors
from recsys.retrieval.near import Near
from recsys.retrieval.scann_index import ScannIndex
from recsys.retrieval.tuning import tune

LOOKED_FOR = 256
"""New items, and held-out queries, by which an index is measured again, at most."""


@dataclass(frozen=True)
class Upkeep:
    """What an index finds after an update."""

    recall: dict[int, float]
    """By held-out queries, at each cut-off of the promise."""
    near: Pairs
    """With new items."""

    def holds(self, config: ScannConfig) -> bool:
        """Whether the promise is still kept."""
        return self.near.keep(config) and all(self.recall[k] >= recall for k, recall in config.promised.items())


def measure(index: ScannIndex, near: Near, queries: Vectors) -> Upkeep:
    """Measure an index after items have come or changed, by held-out `queries` [Q, d] and by those `near` the items."""
    k = min(index.config.depth, len(index.rows))
    some = _spread(queries)
    best, found = index.exact.search(some, k).ids, index.search(some, k).ids
    recall = {}
    for cut in index.config.promised:
        truth = Ragged.from_lists(list(best[:, :cut]))
        recall[cut] = float(recall_at_k(truth.contains(found[:, :cut]), truth.lengths, min(cut, k)).mean())
    return Upkeep(recall, near.found(lambda those: index.search(those, near.depth)))


def near_new(index: ScannIndex, ids: NDArray[np.int64], queries: Vectors) -> Near:
    """Pairs with the items `ids` that have come or changed, or with some of them."""
    return Near.to(index.exact, _spread(ids), queries, min(index.config.depth, len(index.rows)))


def _spread(rows: NDArray[Any]) -> NDArray[Any]:
    """At most `LOOKED_FOR` of the rows, evenly apart."""
    return rows[np.linspace(0, len(rows) - 1, LOOKED_FOR).astype(int)] if len(rows) > LOOKED_FOR else rows


def kept_up(index: ExactIndex | ScannIndex, ids: NDArray[np.int64], queries: Vectors) -> ExactIndex | ScannIndex:
    """The index, if it keeps its promise after the items `ids` have come or changed; or else one that is built anew and
    keeps it, for the queries near them as for the held-out ones.

    Raises:
        ExportError: the new one does not keep it either.
    """
    if isinstance(index, ExactIndex) or not index.config.leaves or not len(queries):
        return index  # what scores every item misses none
    near = near_new(index, ids, queries)
    if measure(index, near, queries).holds(index.config):
        return index
    return tune(index.catalogue, queries, index.asked, near=near)
