"""What the categories of the recommended items say about diversity and about the user's own tastes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.data.dataset import MISSING
from recsys.metrics import category_miscalibration
from recsys.ragged import Ragged

PerUser = NDArray[np.float64]


class Categories:
    """The categories of a catalogue's items.

    Args:
        ids: [N] or [N, L] category ids of each item, 0 for none.
    """

    def __init__(self, ids: NDArray[np.integer]) -> None:
        table = ids if ids.ndim == 2 else ids[:, None]
        rows, columns = np.nonzero(table != MISSING)
        self._known, codes = np.unique(table[rows, columns], return_inverse=True)
        pairs = np.unique(rows * max(len(self._known), 1) + codes)  # an item may name a category twice
        self._of = Ragged.from_pairs(*np.divmod(pairs, max(len(self._known), 1)), len(table))

    def __len__(self) -> int:
        """C."""
        return len(self._known)

    def shares(self, items: Ragged) -> NDArray[np.float64]:
        """[Q, C] share of each category among a row's items; an item's share is divided among its categories. All 0 for
        a row without any.
        """
        weight = self._sums(items, 1.0)
        total = weight.sum(1, keepdims=True)
        return np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)

    def diversity(self, items: Ragged) -> PerUser:
        """[Q] mean cosine distance between a row's items, as sets of categories; NaN below two items with any.

        (Ziegler et al. 2005; `recsys.metrics.intra_list_diversity` of the 0/1 vectors, without making them.)
        """
        count = np.bincount(items.row_of_value, self._of.lengths[items.values] > 0, minlength=len(items))
        # The vectors have length 1, so Σ_{i != j} cos = |Σ u|² - count.
        total = np.square(self._sums(items, 0.5)).sum(1) - count
        pairs = count * (count - 1)
        return 1 - np.divide(total, pairs, out=np.full(len(items), np.nan), where=pairs > 0)

    def miscalibration(self, recommended: Ragged, history: NDArray[np.float64]) -> PerUser:
        """[Q] Kullback-Leibler divergence, in nats, of the recommended categories from those of the `history` [Q, C]
        (Steck 2018); NaN for a user without history.
        """
        found = category_miscalibration(self.shares(recommended), history)
        return np.where(history.sum(1) > 0, found, np.nan)

    def _sums(self, items: Ragged, power: float) -> NDArray[np.float64]:
        """[Q, C] sum over a row's items of 1 / (number of its categories)^power, at its categories."""
        of = self._of.take(items.values)
        place = np.repeat(items.row_of_value, of.lengths) * len(self) + of.values
        weight = np.repeat(1.0 / np.maximum(of.lengths, 1) ** power, of.lengths)
        sums = np.bincount(place, weight, minlength=len(items) * len(self)).astype(np.float64, copy=False)
        return sums.reshape(len(items), len(self))
