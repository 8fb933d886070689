"""The index that a two-tower model is served by, tuned by queries of users who were held out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.prepared import Features, Prepared
from recsys.embeddings.served import ServedRows
from recsys.errors import ExportError
from recsys.models.two_tower import TwoTower
from recsys.retrieval.build import build_index
from recsys.retrieval.config import ExactConfig, IndexConfig
from recsys.retrieval.exact import ExactIndex
from recsys.retrieval.index import Vectors
from recsys.retrieval.scann_index import ScannIndex

TUNED_BY = 1_000
"""Most held-out queries by which an index is tuned."""


@dataclass(frozen=True)
class Queries:
    """Held-out users with their vectors.

    Attributes:
        users: [Q] user indices.
        vectors: [Q, d].
    """

    users: NDArray[np.int32]
    vectors: Vectors

    def __len__(self) -> int:
        return len(self.users)


def held_out_queries(model: TwoTower, prepared: Prepared, served: Mapping[str, ServedRows]) -> Queries:
    """The first users of the validation part, embedded from served rows."""
    held_out = prepared.held_out("valid")
    users = held_out.user_index[:TUNED_BY]
    if not len(users):
        return Queries(users, np.empty((0, 1), np.float32))
    query: Features = {name: column[:TUNED_BY] for name, column in held_out.query.items()}
    return Queries(users, model.query_vectors(query, served))


def tuned_index(vectors: Vectors, config: IndexConfig, queries: Queries, name: str) -> ExactIndex | ScannIndex:
    """The configured index over `vectors` [N, d], which keeps its promise for the queries; `name` is the data's.

    Raises:
        DataError: a value is NaN or infinite.
        ExportError: the index cannot keep its promise, there is nobody to measure it by, or it does not fit the
            catalogue.
        InstallError: ScaNN is asked for and missing.
    """
    if not len(queries) and not isinstance(config, ExactConfig):
        raise ExportError(
            f"{name}: valid",
            "no positives, so no query to measure the index with",
            cure="enlarge the share in data.split, or set retrieval.index.kind to exact",
        )
    try:
        return build_index(vectors, config, queries.vectors)
    except ValueError as error:
        raise ExportError("retrieval.index", str(error)) from error
