"""Exact search: every item is scored, tile by tile, and only what can be among the best is looked at twice."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from math import ceil
from pathlib import Path
from threading import Lock
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import ThreadpoolController

from recsys.errors import DataError
from recsys.ragged import Ragged
from recsys.retrieval.folder import load_vectors, new_folder
from recsys.retrieval.index import VECTORS, Neighbours, Vectors, checked_search, finite_vectors

QUERIES, ITEMS = 256, 4_096
"""A tile: so many queries against so many items. Its scores (4 MiB) are still in the cache when they are filtered."""
FEW = 16
"""Queries that are not worth a second core."""
SPARE = 4
"""Candidates of a query, in multiples of k, that are held beside its best k before both are merged."""

Keys = NDArray[np.int64]
"""A score and an id in one number, so that rising keys are falling scores, and rising ids where scores are equal."""


class ExactIndex:
    """Maximum inner product search that finds the true best. Equal scores are ordered by id, lowest first.

    Runs on the CPU, in float32: an accelerator's TF32 would not be exact. However many queries and items there are, a
    core holds 10 MiB beside the result where k is 100, and 90 MiB at worst, when all scores are equal.
    """

    def __init__(self, vectors: ArrayLike, *, queries_at_once: int = QUERIES, items_at_once: int = ITEMS) -> None:
        """Index `vectors` [N, d].

        Args:
            vectors: float32, finite; as they are to be multiplied.
            queries_at_once: most queries that a core scores in one step.
            items_at_once: most items that it scores them against.

        Raises:
            DataError: a value is NaN or infinite.
            ValueError: there are no vectors.
        """
        self.vectors = finite_vectors(vectors, "vectors")
        if len(self.vectors) == 0:
            raise ValueError("an index needs at least one vector")
        self._longest = _longest(self.vectors)
        self._queries, self._items = queries_at_once, items_at_once

    @property
    def size(self) -> int:
        """N."""
        return len(self.vectors)

    @property
    def dim(self) -> int:
        """d."""
        return int(self.vectors.shape[1])

    def search(self, queries: ArrayLike, k: int, exclude: Ragged | None = None) -> Neighbours:
        """As `Index.search`; equal scores by id, lowest first."""
        array = checked_search(self, queries, k, exclude)
        if _longest(array) * self._longest > float(np.finfo(np.float32).max):
            raise DataError("queries", "their inner products with the vectors overflow float32", "shorter vectors")
        found = Neighbours(np.empty((len(array), k), np.int32), np.empty((len(array), k), np.float32))
        share = max(FEW, ceil(len(array) / _cores()))
        step = max(1, min(share, self._queries, QUERIES * ITEMS // k))  # what is kept of a query grows with k

        def rank(start: int) -> None:
            rows = slice(start, min(start + step, len(array)))
            keys = self._best(array[rows], k, exclude.slice(rows.start, rows.stop) if exclude is not None else None)
            found.ids[rows], found.scores[rows] = _unpack(np.sort(keys, axis=1))

        _on_all_cores(rank, range(0, len(array), step))
        return found

    def _best(self, queries: Vectors, k: int, exclude: Ragged | None) -> Keys:
        """[q, k] the best of each query, in any order.

        A score is a candidate if it is above the k-th best of the items before, whose ids are lower: few are. Where
        many are, as in the first tile, the scores themselves tell a better bound.
        """
        rows, ids = (exclude.row_of_value, exclude.values) if exclude is not None else (np.empty(0, np.int64),) * 2
        floor = np.full(len(queries), -np.inf, np.float32)
        kept = [np.full((len(queries), k), _NONE)]
        for low in range(0, self.size, self._items):
            # [items, q]: BLAS is a quarter faster this way round.
            scores = self.vectors[low : low + self._items] @ queries.T
            here = (ids >= low) & (ids < low + len(scores))
            scores[ids[here] - low, rows[here]] = -np.inf  # which no score is, as none overflows
            above = scores > floor
            if np.count_nonzero(above) > SPARE * k * len(queries):
                bound = _lower_bound(scores, k)
                above &= scores >= bound
                floor = np.maximum(floor, bound)
            kept.append(_candidates(scores, above, low))
            if sum(keys.shape[1] for keys in kept) > (1 + SPARE) * k:
                kept = [_smallest(kept, k)]
                floor = _unpack(kept[0][:, -1]).scores
        return _smallest(kept, k)

    def save(self, folder: Path) -> None:
        """As `Index.save`: `vectors.npy`."""
        with new_folder(folder) as draft:
            np.save(draft / VECTORS, self.vectors)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The index over `folder`/vectors.npy.

        Raises:
            BundleError: it is missing or not to be read.
        """
        return cls(load_vectors(folder))


def _longest(vectors: Vectors) -> float:
    return float(np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64).max(initial=0.0)))


def _lower_bound(scores: Vectors, k: int) -> Vectors:
    """[q] what at least k of a query's scores [items, q] reach: the k-th largest of the maxima of some 4 k groups."""
    items, queries = scores.shape
    size = max(1, items // (4 * k))
    groups = items // size
    if groups < k:
        return np.full(queries, -np.inf, np.float32)
    maxima = scores[: size * groups].reshape(size, groups, queries).max(axis=0)
    return np.partition(maxima.T, groups - k, axis=1)[:, groups - k]


def _candidates(scores: Vectors, chosen: NDArray[np.bool_], first_id: int) -> Keys:
    """[q, most chosen of a query] keys of the chosen of the scores [items, q], whose first row is item `first_id`."""
    queries = scores.shape[1]
    flat = np.flatnonzero(chosen)
    items = flat // queries
    rows = flat - items * queries
    counts = np.bincount(rows, minlength=queries)
    order = np.argsort(rows.astype(np.min_scalar_type(queries)), kind="stable")  # short numbers go by radix
    places = np.arange(len(flat)) - np.repeat(np.cumsum(counts) - counts, counts)
    keys = np.full((queries, counts.max()), _NONE)
    keys[rows[order], places] = _pack(scores.ravel()[flat], items + first_id)[order]
    return keys


def _smallest(kept: Sequence[Keys], k: int) -> Keys:
    """[q, k] the k smallest keys of each row, the largest of them last."""
    keys = np.concatenate(kept, axis=1)
    keys.partition(k - 1, axis=1)
    return keys[:, :k].copy()


def _rising(bits: NDArray[np.int32]) -> NDArray[np.int32]:
    """The bits of float32 numbers as integers of the same order, and back: those of negative ones are turned over."""
    return bits ^ (bits >> 31 & 0x7FFFFFFF)


def _pack(scores: Vectors, ids: NDArray[np.int64]) -> Keys:
    """The score, turned round, in the upper half; the id in the lower one. -0 counts as 0."""
    bits = (scores + np.float32(0)).view(np.int32)
    return (~_rising(bits)).astype(np.int64) << 32 | ids


def _unpack(keys: Keys) -> Neighbours:
    return Neighbours(keys.astype(np.int32), _rising(~(keys >> 32).astype(np.int32)).view(np.float32))


_NONE = _pack(np.array([-np.inf], np.float32), np.array([0xFFFFFFFF]))[0]
"""No item: id -1 and score -inf, behind all others."""

_CORES = Lock()
"""One search at a time has all cores; how many threads BLAS may start is the whole process' affair."""


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def _on_all_cores(work: Callable[[int], None], starts: Sequence[int]) -> None:
    """`work` at each of `starts`: a thread a core, in which BLAS starts none of its own."""
    if len(starts) == 1:
        work(starts[0])
        return
    with _CORES, _blas().limit(limits=1, user_api="blas"), ThreadPoolExecutor(_cores()) as pool:
        for _ in pool.map(work, starts):
            pass
