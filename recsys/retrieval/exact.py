"""Exact search: every item is scored, block by block."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys.errors import DataError
from recsys.ragged import Ragged
from recsys.retrieval.folder import load_vectors, new_folder
from recsys.retrieval.index import VECTORS, Neighbours, Vectors, checked_search, finite_vectors

SCORES = 16 * 2**20
"""Scores held at once: 64 MiB of float32 (twice that while items are masked), however many queries and items."""
ITEMS = 65_536
"""Items in a block: wide ones are faster than many, as each block's best are merged."""


class ExactIndex:
    """Maximum inner product search that finds the true best. Equal scores are ordered by id, lowest first.

    Runs on the CPU, in float32: an accelerator's TF32 would not be exact.
    """

    def __init__(self, vectors: ArrayLike, *, scores_at_once: int = SCORES, items_at_once: int = ITEMS) -> None:
        """Index `vectors` [N, d].

        Args:
            vectors: float32, finite; as they are to be multiplied.
            scores_at_once: bounds the memory of a search, in scores of 4 bytes.
            items_at_once: most items scored in one step.

        Raises:
            DataError: a value is NaN or infinite.
            ValueError: there are no vectors.
        """
        self.vectors = finite_vectors(vectors, "vectors")
        if len(self.vectors) == 0:
            raise ValueError("an index needs at least one vector")
        self._longest = _longest(self.vectors)
        self._items = min(len(self.vectors), items_at_once, scores_at_once)
        self._queries = max(1, scores_at_once // self._items)

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
        mask = _Mask(exclude) if exclude is not None else None
        ids = np.full((len(array), k), -1, np.int32)
        scores = np.full((len(array), k), -np.inf, np.float32)
        best = _kernel()
        # Blocks of items rise, so that what was found so far comes first and merging keeps the lowest ids first.
        for low in range(0, self.size, self._items):
            block = self.vectors[low : low + self._items]
            found = min(k, low)
            for start in range(0, len(array), self._queries):
                rows = slice(start, min(start + self._queries, len(array)))
                masked = mask.within(rows, low, low + len(block)) if mask else np.empty((0, 2), np.int64)
                best_ids, best_scores = best(
                    array[rows], block, np.int32(low), masked, ids[rows, :found], scores[rows, :found], np.int32(k)
                )
                width = best_ids.shape[1]
                ids[rows, :width], scores[rows, :width] = best_ids, best_scores
        # No score overflows, so that -inf is the mask and nothing else.
        ids[np.isneginf(scores)] = -1
        return Neighbours(ids, scores)

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


class _Mask:
    """Excluded (query, item) pairs, cut out by block."""

    def __init__(self, exclude: Ragged) -> None:
        self._offsets = exclude.offsets
        self._pairs = np.stack([exclude.row_of_value, exclude.values.astype(np.int64)], axis=1)

    def within(self, rows: slice, low: int, high: int) -> NDArray[np.int64]:
        """[M, 2] the pairs of these queries and of items low..high, counted from the block's corner."""
        pairs = self._pairs[self._offsets[rows.start] : self._offsets[rows.stop]]
        pairs = pairs[(pairs[:, 1] >= low) & (pairs[:, 1] < high)]
        return pairs - np.array([rows.start, low])


@cache
def _kernel() -> Callable[..., Any]:
    import tensorflow as tf

    matrix, ids = tf.TensorSpec([None, None], tf.float32), tf.TensorSpec([None, None], tf.int32)
    scalar = tf.TensorSpec([], tf.int32)
    pairs = tf.TensorSpec([None, 2], tf.int64)

    @tf.function(input_signature=[matrix, matrix, scalar, pairs, ids, matrix, scalar], autograph=False)
    def best(
        queries: Any, vectors: Any, first_id: Any, masked: Any, best_ids: Any, best_scores: Any, k: Any
    ) -> tuple[Any, Any]:
        """The best k of what was found so far and of the items `first_id`.. with these vectors."""
        scores = tf.matmul(queries, vectors, transpose_b=True)
        scores = tf.tensor_scatter_nd_update(scores, masked, tf.fill([tf.shape(masked)[0]], -np.inf))
        top = tf.math.top_k(scores, tf.minimum(k, tf.shape(vectors)[0]))
        best_ids = tf.concat([best_ids, top.indices + first_id], axis=1)
        best_scores = tf.concat([best_scores, top.values], axis=1)
        top = tf.math.top_k(best_scores, tf.minimum(k, tf.shape(best_scores)[1]))
        return tf.gather(best_ids, top.indices, batch_dims=1), top.values

    def on_cpu(*arguments: Any) -> tuple[Any, Any]:
        with tf.device("/CPU:0"):
            ids, scores = best(*arguments)
        return ids.numpy(), scores.numpy()

    return on_cpu
