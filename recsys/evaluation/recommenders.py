"""Whatever ranks the catalogue for users can be evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recsys.ragged import Ragged
from recsys.retrieval.index import Index, Vectors


class Recommender(Protocol):
    """Ranks a catalogue of `items` items for `users` users, who are numbered as in the part under test."""

    @property
    def users(self) -> int:
        """Q."""
        ...

    @property
    def items(self) -> int:
        """N."""
        ...

    def recommend(self, rows: NDArray[np.integer], k: int, exclude: Ragged) -> NDArray[np.int32]:
        """[n, k] items for the users `rows` [n], best first, none twice, none of `exclude` [n rows]; -1 where none is
        left.
        """
        ...


@dataclass(frozen=True)
class Nearest:
    """The items whose vectors have the largest inner product with the user's."""

    index: Index
    queries: Vectors
    """[Q, d]"""

    @property
    def users(self) -> int:
        """Q."""
        return len(self.queries)

    @property
    def items(self) -> int:
        """N."""
        return self.index.size

    def recommend(self, rows: NDArray[np.integer], k: int, exclude: Ragged) -> NDArray[np.int32]:
        """As `Recommender.recommend`."""
        return self.index.search(self.queries[rows], k, exclude).ids
