"""A query tower and an index in one SavedModel: raw features in, items out.

This module imports TensorFlow at its top, to be a `tf.Module`; nothing that serves needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import tensorflow as tf

from recsys.retrieval.exact import ExactIndex
from recsys.retrieval.in_graph import InGraphIndex
from recsys.retrieval.scann_index import ScannIndex

CATALOGUE = "catalogue"
"""The signature that says which version of the catalogue the snapshot holds."""


class RetrieverModule(tf.Module):
    """A snapshot of the catalogue behind a query tower: what `retriever/` holds.

    Args:
        tower: folder of the query tower's SavedModel.
        index: with a `ScannIndex`, whoever loads the retriever has to `import scann` first.
        items: [N] the items' ids as text.
        k: how many items a query gets, at most N.
        version: of the catalogue.
    """

    def __init__(
        self, tower: Path, index: ExactIndex | ScannIndex, items: pa.ChunkedArray, k: int, version: str
    ) -> None:
        super().__init__()
        self._tower = tf.saved_model.load(str(tower))
        # Where our towers' SavedModels have them, for `recsys inspect`; towers from elsewhere do not tell of theirs.
        self.tables = getattr(self._tower, "tables", {})
        self._embed = self._tower.signatures["serving_default"]
        self._k = min(k, index.size if index.alive is None else len(index.alive))
        self._items = tf.Variable(items.to_numpy(), trainable=False, dtype=tf.string)
        if isinstance(index, ScannIndex):
            self._index = InGraphIndex.of(index)
            self._search: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]] = lambda q: self._index.search(q, self._k)
        else:
            there = index.catalogue.there
            self._vectors = tf.Variable(index.vectors[there], trainable=False)
            self._ids = tf.Variable(there, trainable=False, dtype=tf.int32)
            self._search = self._exact
        specs = self._embed.structured_input_signature[1]
        self.serve = tf.function(self._serve, autograph=False).get_concrete_function(**specs)
        self.version = tf.function(lambda: {"version": tf.constant(version)}, input_signature=[], autograph=False)

    def _exact(self, queries: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        scores, places = tf.math.top_k(tf.matmul(queries, self._vectors, transpose_b=True), self._k)
        return tf.gather(self._ids, places), scores

    def _serve(self, **raw: tf.Tensor) -> dict[str, tf.Tensor]:
        ids, scores = self._search(self._embed(**raw)["embedding"])
        items = tf.where(ids < 0, "", tf.gather(self._items, tf.maximum(ids, 0)))
        return {"item_index": ids, "item": items, "score": scores}

    def save(self, path: Path) -> None:
        """Writes the SavedModel."""
        tf.saved_model.save(self, str(path), signatures={"serving_default": self.serve, CATALOGUE: self.version})
