"""From a config to an index."""

from __future__ import annotations

from numpy.typing import ArrayLike

from recsys.metrics import recall_at_k
from recsys.ragged import Ragged
from recsys.retrieval.catalogue import Catalogue
from recsys.retrieval.config import ExactConfig, ScannConfig
from recsys.retrieval.exact import ExactIndex
from recsys.retrieval.index import Index
from recsys.retrieval.scann_index import ScannIndex
from recsys.retrieval.tuning import tune


def build_index(
    vectors: ArrayLike | Catalogue, config: ExactConfig | ScannConfig, queries: ArrayLike | None = None, seed: int = 0
) -> ExactIndex | ScannIndex:
    """The configured index over `vectors` [N, d], tuned to its promise by held-out `queries` [Q, d]; without them one
    of which nothing is promised.

    Raises:
        DataError: a value is NaN or infinite.
        ExportError: ScaNN cannot keep the promise.
        InstallError: ScaNN is asked for and missing.
        ValueError: the config does not fit the vectors.
    """
    if isinstance(config, ExactConfig):
        return ExactIndex(vectors)
    if queries is None:
        return ScannIndex.build(vectors, config)
    return tune(vectors, queries, config, seed)


def recall_of(index: Index, exact: ExactIndex, queries: ArrayLike, k: int) -> float:
    """Mean over `queries` [Q, d] of the share of the exact best k that `index` finds among its best k."""
    k = min(k, exact.size)
    truth = exact.search(queries, k).ids
    relevant = Ragged.from_lists(list(truth))
    found = relevant.contains(index.search(queries, k).ids)
    return float(recall_at_k(found, relevant.lengths, k).mean())
