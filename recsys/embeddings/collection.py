"""From a batch's features to vectors."""

from __future__ import annotations

from collections.abc import Mapping

from recsys._compat import keras, tf
from recsys.data.dataset import MISSING, FeatureInfo, NumericInfo, SequenceInfo
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.numeric import bucketize, standardize
from recsys.embeddings.pooling import AgeDecay, pool
from recsys.embeddings.tables import Table


class EmbeddingCollection(keras.layers.Layer):
    """All tables of a model, and the way from any subset of a batch's features to one vector per feature.

    Args:
        config: tables and which feature reads which.
        features: what `prepare` knows of every feature.
        seed: the experiment's seed.
    """

    def __init__(self, config: EmbeddingsConfig, features: Mapping[str, FeatureInfo], seed: int) -> None:
        super().__init__(name="embeddings")
        self._features = dict(features)
        self._pooling = {name: entry.pooling for name, entry in config.features.items()}
        readers: dict[str, list[str]] = {table: [] for table in config.tables}
        for name, entry in config.features.items():
            readers[entry.table].append(name)
        self._table_of = {name: entry.table for name, entry in config.features.items()}
        self.tables = {name: Table(name, table, readers[name], features, seed) for name, table in config.tables.items()}
        self._decays = {
            name: AgeDecay(name=f"age_decay_{name}")
            for name, info in features.items()
            if isinstance(info, SequenceInfo) and info.age
        }

    def table_variables(self) -> list[tf.Variable]:
        """The tables' variables: what the sparse optimizer trains. A table cut over parameter servers is several."""
        whole = [table.embeddings for table in self.tables.values()]
        return [shard for variable in whole for shard in getattr(variable, "variables", [variable])]

    def call(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One vector [B, width] per feature, in the schema's order, whatever the batch's; one gather per table.

        Towers concatenate them, while the reader, the evaluation and the served graph each build batches of their own.
        `batch` holds encoded features as `docs/architecture.md` lists them; `NAME.age` goes with the sequence NAME.
        """
        ids = {name: self._ids(name, value) for name, value in batch.items() if name in self._table_of}
        found: dict[str, tf.Tensor] = {}
        for table_name, table in self.tables.items():
            read = {name: value for name, value in ids.items() if self._table_of[name] == table_name}
            if read:
                found.update(table(read))
        return {name: self._vector(name, batch, ids, found) for name in self._features if name in batch}

    def _ids(self, name: str, value: tf.Tensor) -> tf.Tensor:
        info = self._features[name]
        return bucketize(value, info) if isinstance(info, NumericInfo) else value

    def _vector(
        self, name: str, batch: dict[str, tf.Tensor], ids: dict[str, tf.Tensor], found: dict[str, tf.Tensor]
    ) -> tf.Tensor:
        info = self._features[name]
        if name not in found:
            return standardize(batch[name], info) if isinstance(info, NumericInfo) else batch[name]
        if ids[name].shape.rank == 1:
            return found[name]
        weights = tf.cast(tf.not_equal(ids[name], MISSING), tf.float32)
        if name in self._decays:
            weights *= self._decays[name](batch[f"{name}.age"])
        return pool(found[name], weights, self._pooling[name])
