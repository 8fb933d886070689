"""From a config to an index, and how near an index is to exact search."""

from __future__ import annotations

from numpy.typing import ArrayLike

from recsys.metrics import recall_at_k
from recsys.ragged import Ragged
from recsys.retrieval.config import ExactConfig, ScannConfig
from recsys.retrieval.exact import ExactIndex
from recsys.retrieval.index import Index
from recsys.retrieval.scann_index import ScannIndex


def build_index(vectors: ArrayLike, config: ExactConfig | ScannConfig) -> ExactIndex | ScannIndex:
    """The configured index over `vectors` [N, d].

    Raises:
        DataError: a value is NaN or infinite.
        InstallError: ScaNN is asked for and missing.
    """
    return ScannIndex.build(vectors, config) if isinstance(config, ScannConfig) else ExactIndex(vectors)


def recall_of(index: Index, exact: ExactIndex, queries: ArrayLike, k: int) -> float:
    """Mean over `queries` [Q, d] of the share of the exact best k that `index` finds among its best k."""
    k = min(k, exact.size)
    truth = exact.search(queries, k).ids
    relevant = Ragged.from_lists(list(truth))
    found = relevant.contains(index.search(queries, k).ids)
    return float(recall_at_k(found, relevant.lengths, k).mean())
