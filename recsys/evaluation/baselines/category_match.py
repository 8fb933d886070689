"""How well an item's categories match those of a history."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys.data.dataset import MISSING
from recsys.evaluation.baselines.sparse_scores import first, incidence
from recsys.ragged import Ragged


@dataclass(frozen=True)
class CategoryMatch:
    """Scores N items by the share of a history's events that have the item's category, added up over its categories.

    Items of equal categories are of one kind, and score alike.
    """

    kind: NDArray[np.intp]
    """[N] of each item."""
    categories: sparse.csr_array
    """[G, C] int32: 1 where a kind has a category."""

    @classmethod
    def of(cls, ids: NDArray[np.integer]) -> Self:
        """From [N] or [N, L] category ids of the items; 0 is none, and neither order nor repetitions count."""
        table = np.sort(ids if ids.ndim == 2 else ids[:, None], axis=1)
        table[:, 1:][table[:, 1:] == table[:, :-1]] = MISSING
        kinds, kind = np.unique(np.sort(table, axis=1), axis=0, return_inverse=True)
        rows, columns = np.nonzero(kinds != MISSING)
        known, codes = np.unique(kinds[rows, columns], return_inverse=True)
        return cls(kind.reshape(-1), incidence(Ragged.from_pairs(rows, codes, len(kinds)), max(1, len(known))))

    def scores(self, histories: Ragged, best: int) -> sparse.csr_array:
        """As `Scorer.scores`, times the length of the history."""
        return self._profiles(histories) @ self.categories.T @ first(self._items, best)

    def pairs(self, histories: Ragged, items: NDArray[np.integer]) -> NDArray[np.float64]:
        """As `Scorer.pairs`."""
        matches = self._profiles(histories).multiply(self.categories[self.kind[items]]).sum(axis=1)
        return matches / np.maximum(histories.lengths, 1)

    @cached_property
    def _items(self) -> sparse.csr_array:
        """[G, N] int32: 1 where an item is of a kind."""
        items = Ragged.from_pairs(self.kind, np.arange(len(self.kind)), self.categories.shape[0])
        return incidence(items, len(self.kind))

    def _profiles(self, histories: Ragged) -> sparse.csr_array:
        """[R, C] int32: how many events of each history have each category."""
        kinds = Ragged(self.kind[histories.values], histories.offsets)
        return incidence(kinds, self.categories.shape[0]) @ self.categories
