"""Exact search: every item is scored, tile by tile, and only what can be among the best is looked at twice."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from math import ceil
from pathlib import Path
from threading import Lock
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import ThreadpoolController

from recsys.errors import DataError
from recsys.ragged import Ragged
from recsys.retrieval.allowed import Allowed
from recsys.retrieval.catalogue import Catalogue
from recsys.retrieval.folder import new_folder
from recsys.retrieval.index import Neighbours, Vectors, checked_search

QUERIES, ITEMS = 256, 4_096
"""A tile: so many queries against so many items. Its scores (4 MiB) are still in the cache when they are filtered."""
GATHERED = 65_536
"""Most vectors that are copied together for a tile, where only some of the items are allowed."""
FEW = 16
"""Queries of which each core takes all, against its share of the items."""
SHARED = 32_768
"""Items that are worth a core."""
SPARE = 4
"""Candidates of a query, in multiples of k, that are held beside its best k before both are merged."""

Keys = NDArray[np.int64]
"""A score and an id in one number, so that rising keys are falling scores, and rising ids where scores are equal."""


class ExactIndex:
    """Maximum inner product search that finds the true best. Equal scores are ordered by id, lowest first.

    Runs on the CPU, in float32: an accelerator's TF32 would not be exact. However many queries and items there are, a
    core holds 10 MiB beside the result where k is 100, and 90 MiB at worst, when all scores are equal.
    """

    def __init__(
        self, vectors: ArrayLike | Catalogue, *, queries_at_once: int = QUERIES, items_at_once: int = ITEMS
    ) -> None:
        """Index `vectors` [N, d].

        Args:
            vectors: float32, finite; as they are to be multiplied. A catalogue is shared, not copied.
            queries_at_once: most queries that a core scores in one step.
            items_at_once: most items that it scores them against.

        Raises:
            DataError: a value is NaN or infinite.
            ValueError: there are no vectors.
        """
        self.catalogue = vectors if isinstance(vectors, Catalogue) else Catalogue(vectors)
        self._longest = _longest(self.vectors)
        self._queries, self._items = queries_at_once, items_at_once

    @property
    def vectors(self) -> Vectors:
        """[N, d]."""
        return self.catalogue.vectors

    @property
    def alive(self) -> Allowed | None:
        """As `Index.alive`."""
        return self.catalogue.alive

    @property
    def size(self) -> int:
        """N."""
        return len(self.vectors)

    @property
    def dim(self) -> int:
        """d."""
        return int(self.vectors.shape[1])

    def search(
        self, queries: ArrayLike, k: int, exclude: Ragged | None = None, allowed: Allowed | None = None
    ) -> Neighbours:
        """As `Index.search`; equal scores by id, lowest first."""
        array = checked_search(self, queries, k, exclude, allowed)
        if _longest(array) * self._longest > float(np.finfo(np.float32).max):
            raise DataError("queries", "their inner products with the vectors overflow float32", "shorter vectors")
        legal = self.catalogue.legal(allowed)
        ids = None if legal is None else legal.ids
        if 0 < len(array) <= FEW:
            return self._few(array, k, exclude, ids)
        found = Neighbours(np.empty((len(array), k), np.int32), np.empty((len(array), k), np.float32))
        step = max(
            1, min(ceil(len(array) / _cores()), self._queries, QUERIES * ITEMS // k)
        )  # what is kept grows with k
        whole = (0, self.size if ids is None else len(ids))

        def rank(start: int) -> None:
            rows = slice(start, min(start + step, len(array)))
            without = exclude.slice(rows.start, rows.stop) if exclude is not None else None
            keys = self._best(array[rows], k, without, ids, whole)
            found.ids[rows], found.scores[rows] = _unpack(np.sort(keys, axis=1))

        _on_all_cores(rank, range(0, len(array), step))
        return found

    def _few(self, queries: Vectors, k: int, exclude: Ragged | None, legal: NDArray[np.int64] | None) -> Neighbours:
        """Few queries: a core takes its share of the items, if there are enough for that."""
        count = self.size if legal is None else len(legal)
        step = max(SHARED, ceil(count / _cores()))
        kept = dict[int, Keys]()

        def rank(start: int) -> None:
            kept[start] = self._best(queries, k, exclude, legal, (start, min(start + step, count)))

        _on_all_cores(rank, range(0, max(count, 1), step))
        return _unpack(np.sort(_smallest(list(kept.values()), k), axis=1))

    def _best(
        self,
        queries: Vectors,
        k: int,
        exclude: Ragged | None,
        legal: NDArray[np.int64] | None,
        part: tuple[int, int],
    ) -> Keys:
        """[q, k] the best of each query among a part, from where to where, of the items `legal` (or of all), in any
        order.

        A score is a candidate if it is above the k-th best of the items before, whose ids are lower: few are. Where
        many are, as in the first tile, the scores themselves tell a better bound.
        """
        rows, places = _places(exclude, legal)
        floor = np.full(len(queries), -np.inf, np.float32)
        kept = [np.full((len(queries), k), _NONE)]
        for low, high in self._tiles(part, len(queries), gathered=legal is not None):
            # [items, q]: BLAS is a quarter faster this way round.
            scores = self.vectors[slice(low, high) if legal is None else legal[low:high]] @ queries.T
            here = (places >= low) & (places < high)
            scores[places[here] - low, rows[here]] = -np.inf  # which no score is, as none overflows
            above = scores > floor
            if np.count_nonzero(above) > SPARE * k * len(queries):
                bound = _lower_bound(scores, k)
                above &= scores >= bound
                floor = np.maximum(floor, bound)
            kept.append(_candidates(scores, above, low if legal is None else legal[low:high]))
            if sum(keys.shape[1] for keys in kept) > (1 + SPARE) * k:
                kept = [_smallest(kept, k)]
                floor = _unpack(kept[0][:, -1]).scores
        return _smallest(kept, k)

    def _tiles(self, part: tuple[int, int], queries: int, *, gathered: bool) -> Iterator[tuple[int, int]]:
        """From where to where the tiles of a part reach: as many scores in each, however few the queries."""
        step = self._items * max(1, self._queries // max(queries, 1))
        if gathered:
            step = min(step, max(self._items, GATHERED))
        for low in range(*part, step):
            yield low, min(low + step, part[1])

    def upsert(self, ids: ArrayLike, vectors: ArrayLike) -> None:
        """As `Index.upsert`."""
        self.put(*self.catalogue.checked(ids, vectors))

    def put(self, ids: NDArray[np.int64], vectors: Vectors) -> None:
        """`upsert` of what the catalogue has `checked`."""
        self.catalogue.upsert(ids, vectors)
        self._longest = max(self._longest, _longest(vectors))

    def delete(self, ids: ArrayLike) -> None:
        """As `Index.delete`."""
        self.catalogue.delete(ids)

    def save(self, folder: Path) -> None:
        """As `Index.save`: what the catalogue writes."""
        with new_folder(folder) as draft:
            self.catalogue.save(draft)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The index over `folder`/vectors.npy.

        Raises:
            BundleError: it is missing or not to be read.
        """
        return cls(Catalogue.load(folder))


def _places(exclude: Ragged | None, legal: NDArray[np.int64] | None) -> tuple[NDArray[np.int64], NDArray[np.integer]]:
    """Rows of queries, and parallel to them the places, among the `legal` items, of what they must not get."""
    if exclude is None:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    rows, ids = exclude.row_of_value, exclude.values
    if legal is None:
        return rows, ids
    places = np.searchsorted(legal, ids)
    there = places < len(legal)
    there[there] = legal[places[there]] == ids[there]
    return rows[there], places[there]


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


def _candidates(scores: Vectors, chosen: NDArray[np.bool_], ids: int | NDArray[np.int64]) -> Keys:
    """[q, most chosen of a query] keys of the chosen of the scores [items, q]; `ids` of the items, or the first's."""
    queries = scores.shape[1]
    flat = np.flatnonzero(chosen)
    items = flat // queries
    rows = flat - items * queries
    counts = np.bincount(rows, minlength=queries)
    order = np.argsort(rows.astype(np.min_scalar_type(queries)), kind="stable")  # short numbers go by radix
    places = np.arange(len(flat)) - np.repeat(np.cumsum(counts) - counts, counts)
    keys = np.full((queries, counts.max()), _NONE)
    keys[rows[order], places] = _pack(scores.ravel()[flat], ids + items if isinstance(ids, int) else ids[items])[order]
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
"""One search at a time has all cores."""


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))


class _OneThreadEach:
    """BLAS starts no threads of its own while anybody is inside: it is slow to wake them, and we have ours. How many it
    may start is the whole process' affair, so the first to enter limits them and the last to leave lets go.
    """

    def __init__(self) -> None:
        self._inside, self._lock = 0, Lock()
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._limit = _blas().limit(limits=1, user_api="blas")

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._limit.restore_original_limits()


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


_ONE_THREAD_EACH = _OneThreadEach()


def _on_all_cores(work: Callable[[int], None], starts: Sequence[int]) -> None:
    """`work` at each of `starts`, a thread a core."""
    with _ONE_THREAD_EACH:
        if len(starts) == 1:
            work(starts[0])
            return
        with _CORES, ThreadPoolExecutor(_cores()) as pool:
            for _ in pool.map(work, starts):
                pass
