"""What the categories of the recommended items say about diversity and about the user's own tastes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.data.dataset import MISSING, CategoricalInfo
from recsys.data.prepared import Prepared
from recsys.metrics import category_miscalibration
from recsys.ragged import Ragged

PerUser = NDArray[np.float64]


def category_ids(prepared: Prepared, feature: str) -> NDArray[np.int32]:
    """[N] or [N, L] category ids of the catalogue's items, 0 for none: what training never saw tells nothing, and two
    unknown categories are not alike.
    """
    info, ids = prepared.info.features[feature], prepared.values(feature)
    assert isinstance(info, CategoricalInfo)
    return np.where(ids <= info.oov_rows, MISSING, ids)


class Categories:
    """The categories of a catalogue's items.

    Args:
        ids: [N] or [N, L] category ids of each item, 0 for none.
    """

    def __init__(self, ids: NDArray[np.integer]) -> None:
        table = np.sort(ids if ids.ndim == 2 else ids[:, None], axis=1)
        table[:, 1:][table[:, 1:] == table[:, :-1]] = MISSING  # an item may name a category twice
        known, codes = np.unique(table, return_inverse=True)
        self._first = int(len(known) > 0 and known[0] == MISSING)  # MISSING is the lowest of all, if it is there
        self._columns = len(known)
        self._codes = codes.reshape(table.shape)
        held = table != MISSING
        self._count = held.sum(1)
        self._held = held.astype(np.float64)

    def __len__(self) -> int:
        """C."""
        return self._columns - self._first

    def shares(self, items: Ragged) -> NDArray[np.float64]:
        """[Q, C] share of each category among a row's items; an item's share is divided among its categories. All 0 for
        a row without any.
        """
        return _shares(self._sums(items, 1.0))

    def diversity(self, items: Ragged) -> PerUser:
        """[Q] mean cosine distance between a row's items, as sets of categories; NaN below two items with any.

        (Ziegler et al. 2005; `recsys.metrics.intra_list_diversity` of the 0/1 vectors, without making them.)
        """
        return _diversity(self._sums(items, 0.5), self._counts(items))

    def miscalibration(self, recommended: Ragged, history: NDArray[np.float64]) -> PerUser:
        """[Q] Kullback-Leibler divergence, in nats, of the recommended categories from those of the `history` [Q, C]
        (Steck 2018); NaN for a user without history.
        """
        return _miscalibration(self._sums(recommended, 1.0), history)

    def of_rankings(
        self, ranked: NDArray[np.integer], ks: tuple[int, ...], history: NDArray[np.float64]
    ) -> dict[str, PerUser]:
        """`diversity@K` and `miscalibration@K` -> [Q] of rankings [Q, K], -1 for none; cut-offs `ks` rise.

        As the methods of these names say, but each rank is looked at once for all cut-offs.
        """
        found, before = dict[str, PerUser](), 0
        unit = share = count = np.zeros(1)
        for k in ks:
            items = _rows(ranked[:, before:k])
            unit, share = unit + self._sums(items, 0.5), share + self._sums(items, 1.0)
            count, before = count + self._counts(items), k
            found[f"diversity@{k}"] = _diversity(unit, count)
            found[f"miscalibration@{k}"] = _miscalibration(share, history)
        return found

    def _counts(self, items: Ragged) -> PerUser:
        """[Q] a row's items that have categories."""
        return np.bincount(items.row_of_value[self._count[items.values] > 0], minlength=len(items)).astype(np.float64)

    def _sums(self, items: Ragged, power: float) -> NDArray[np.float64]:
        """[Q, C] sum over a row's items of 1 / (number of its categories)^power, at its categories."""
        weight = (self._held / np.maximum(self._count, 1)[:, None] ** power)[items.values]
        place = self._codes[items.values] + (items.row_of_value * self._columns)[:, None]
        sums = np.bincount(place.ravel(), weight.ravel(), minlength=len(items) * self._columns)
        return sums.reshape(len(items), self._columns)[:, self._first :].astype(np.float64, copy=False)


def _rows(ranked: NDArray[np.integer]) -> Ragged:
    there = ranked >= 0
    return Ragged(ranked[there], np.concatenate([[0], np.cumsum(there.sum(1))]))


def _shares(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    total = sums.sum(1, keepdims=True)
    return np.divide(sums, total, out=np.zeros_like(sums), where=total > 0)


def _diversity(sums: NDArray[np.float64], count: PerUser) -> PerUser:
    """Of the sums of vectors u of length 1: Σ_{i != j} cos = |Σ u|² - count."""
    pairs = count * (count - 1)
    return 1 - np.divide(np.square(sums).sum(1) - count, pairs, out=np.full(len(sums), np.nan), where=pairs > 0)


def _miscalibration(sums: NDArray[np.float64], history: NDArray[np.float64]) -> PerUser:
    return np.where(history.sum(1) > 0, category_miscalibration(_shares(sums), history), np.nan)
