"""The query tower and the index in one SavedModel: raw features in, items out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from recsys._compat import tf
from recsys.export.signatures import Batch, TowerModule, save_served
from recsys.retrieval import ExactIndex, InGraphIndex, ScannIndex


class RetrieverModule(tf.Module):
    """A snapshot of the catalogue behind a query tower: what `retriever/` holds.

    Args:
        tower: the query tower on raw features.
        index: with a `ScannIndex`, whoever loads the SavedModel has to `import scann` first.
        items: [N] the items' ids as text.
        k: how many items a query gets, at most N.
    """

    def __init__(self, tower: TowerModule, index: ExactIndex | ScannIndex, items: pa.ChunkedArray, k: int) -> None:
        super().__init__()
        self.tower = tower
        self._k = min(k, index.size)
        self._items = tf.Variable(items.to_numpy(), trainable=False, dtype=tf.string)
        if isinstance(index, ScannIndex):
            self._index = InGraphIndex.of(index)
            self._search: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]] = lambda q: self._index.search(q, self._k)
        else:
            self._vectors = tf.Variable(index.vectors, trainable=False)
            self._search = self._exact
        self.serve = tf.function(self._serve, autograph=False).get_concrete_function(tower.encoder.specs())

    def _exact(self, queries: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        scores, ids = tf.math.top_k(tf.matmul(queries, self._vectors, transpose_b=True), self._k)
        return ids, scores

    def _serve(self, raw: Batch) -> Batch:
        ids, scores = self._search(self.tower.embed(raw))
        items = tf.where(ids < 0, "", tf.gather(self._items, tf.maximum(ids, 0)))
        return {"item_index": ids, "item": items, "score": scores}

    def save(self, path: Path) -> None:
        """Writes the SavedModel."""
        save_served(self.serve, self.tower.encoder, self.tower.served, path)
