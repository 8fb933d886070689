"""Item-based nearest neighbours (Deshpande and Karypis 2004, "Item-Based Top-N Recommendation Algorithms").

Two items are as similar as the sets of users who had them: cosine, shrunk for small sets,

    s(i, j) = |U_i ∩ U_j| / (sqrt(|U_i| |U_j|) + shrinkage),

and only each item's nearest neighbours are kept. A candidate scores the sum of its similarities to the items of a
history whose neighbour it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys.evaluation.baselines.sparse_scores import incidence, largest, row_of_entry
from recsys.ragged import Ragged

HISTORY = 200
"""The newest events of a history that are looked at: of longer ones the older part says less and costs more."""
NEIGHBOURS = 100
"""Kept of each item."""
SHRINKAGE = 10.0
"""Keeps items that one or two users share from being each other's nearest."""
UNIT = 1 << 23
"""Similarities are whole numbers, multiples of 1 / UNIT. So the sums over a history are exact in int32, in whatever
order they are added, and equal scores are equal."""
ENTRIES = 1 << 20
"""Similarities held at once while neighbours are chosen: bounds the memory, and few are sorted faster than many."""


@dataclass(frozen=True)
class ItemKNN:
    """Scores N items by their similarity to a history."""

    neighbours: sparse.csr_array
    """[N, N] int32: row i holds the similarity, in 1 / UNIT, of item i to its nearest items."""

    @classmethod
    def fit(cls, baskets: Ragged, items: int, *, neighbours: int = NEIGHBOURS, shrinkage: float = SHRINKAGE) -> Self:
        """Who had what, to who is near whom. Of equally similar items those with the lowest numbers are kept.

        Args:
            baskets: for each user the items that the user had; repetitions do not count.
            items: N.
            neighbours: most of each item.
            shrinkage: not negative; 0 for the plain cosine.
        """
        had = _sets(baskets, items)
        by_item = had.T.tocsr()
        users = np.diff(by_item.indptr)
        # Row i of the product costs, and holds at most, as many numbers as the baskets with item i have items.
        size = np.minimum(by_item @ baskets.lengths, items)
        rows = [
            largest(_similar(by_item[start:stop] @ had, start, users, shrinkage), neighbours)
            for start, stop in _blocks(size, items)
        ]
        kept = sparse.vstack(rows, format="csr")
        kept.sort_indices()
        return cls(kept)

    def scores(self, histories: Ragged, best: int) -> sparse.csr_array:
        """As `Scorer.scores`, in 1 / UNIT, for histories of at most `HISTORY` items."""
        return _sets(histories, self.neighbours.shape[0]) @ self.neighbours

    def pairs(self, histories: Ragged, items: NDArray[np.integer]) -> NDArray[np.float64]:
        """As `Scorer.pairs`."""
        held = _sets(histories, self.neighbours.shape[0])
        if held.nnz == 0:
            return np.zeros(len(items))
        row = row_of_entry(held)
        return np.bincount(row, self.neighbours[held.indices, items[row]], minlength=len(items)) / UNIT


def _sets(rows: Ragged, items: int) -> sparse.csr_array:
    """[R, N] int32: 1 where a row holds an item."""
    held = incidence(rows, items)
    held.data[:] = 1
    return held


def _similar(together: sparse.csr_array, start: int, users: NDArray[np.integer], shrinkage: float) -> sparse.csr_array:
    """[b, N] similarities of the items `start`.. to all others, from how many users had both."""
    row, column = start + row_of_entry(together), together.indices
    norm = np.sqrt(users[row].astype(np.float64) * users[column]) + shrinkage
    found = np.rint(UNIT * together.data / norm).astype(np.int32)
    found[row == column] = 0
    similar = sparse.csr_array((found, column, together.indptr), shape=together.shape)
    similar.eliminate_zeros()
    return similar


def _blocks(size: NDArray[np.int64], items: int) -> list[tuple[int, int]]:
    """(start, stop) of consecutive rows whose sizes add up to about `ENTRIES`, and for which `largest` fits int64."""
    most_rows = max(1, (1 << 62) // (UNIT * items))
    total = np.cumsum(np.maximum(size, ENTRIES // most_rows + 1))
    starts = np.flatnonzero(np.diff(total // ENTRIES, prepend=-1))
    return list(pairwise([*starts.tolist(), len(size)]))
