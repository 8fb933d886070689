"""Embedding tables: one variable each, one lookup for all features that read it."""

from __future__ import annotations

from collections.abc import Mapping

from recsys._compat import keras, tf
from recsys.data.dataset import CategoricalInfo, FeatureInfo, NumericInfo, SequenceInfo
from recsys.embeddings.config import FullTable, HashedTable
from recsys.embeddings.hashing import hash_rows, salt
from recsys.embeddings.seeds import seed_for


class Table(keras.layers.Layer):
    """Rows of width `dim`, read by one or more features through one hash or offset and one gather.

    Args:
        name: the table's name in the YAML.
        config: its method and width.
        readers: the features that read it.
        features: what `prepare` knows of all features (a sequence names another).
        seed: the experiment's seed.
    """

    def __init__(
        self,
        name: str,
        config: FullTable | HashedTable,
        readers: list[str],
        features: Mapping[str, FeatureInfo],
        seed: int,
    ) -> None:
        super().__init__(name=f"table_{name}", dtype="float32")
        self.config = config
        # Features with one vocabulary (a history and its item feature) share rows: they are known by the vocabulary's
        # owner.
        owners = {reader: vocabulary_of(reader, features) for reader in readers}
        if isinstance(config, FullTable):
            sizes = {owner: vocabulary_rows(features[owner]) for owner in owners.values()}
            starts, self.rows = {}, 0
            for owner, size in sizes.items():
                starts[owner] = self.rows
                self.rows += size
            self._key = {reader: starts[owner] for reader, owner in owners.items()}
            self._size = {reader: sizes[owner] for reader, owner in owners.items()}
        else:
            self.rows = config.rows
            self._key = {reader: salt(owner, 0) for reader, owner in owners.items()}
        self._seed = seed_for(seed, "table", name)

    def build(self, _: object) -> None:
        """Makes the variable; the strategy in scope places it."""
        bound = self.config.initial_range
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(self.rows, self.config.dim),
            initializer=keras.initializers.RandomUniform(-bound, bound, seed=self._seed),
        )
        super().build(None)

    def call(self, ids: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """From ids [B] or [B, T] by feature to rows [B, dim] or [B, T, dim] by feature.

        Raises:
            tf.errors.InvalidArgumentError: an id is outside the vocabulary it was made for (full tables).
        """
        flat = {name: tf.reshape(value, [-1]) for name, value in ids.items()}
        rows = self._rows(flat)
        # embedding_lookup also serves tables that a parameter-server strategy has cut into shards (they take 1-D ids
        # only).
        found = tf.nn.embedding_lookup(self.embeddings, rows)
        parts = tf.split(found, [tf.size(value) for value in flat.values()], num=len(flat))
        return {
            name: tf.reshape(part, tf.concat([tf.shape(value), [self.config.dim]], 0))
            for (name, value), part in zip(ids.items(), parts, strict=True)
        }

    def _rows(self, flat: dict[str, tf.Tensor]) -> tf.Tensor:
        ids = tf.concat([tf.cast(value, tf.int64) for value in flat.values()], 0)
        keys = _per_id(self._key, flat)
        if isinstance(self.config, HashedTable):
            return hash_rows(ids, keys, self.rows)
        # An id past its own vocabulary would read the next one's rows; row -1 makes the gather refuse it.
        return tf.where((ids >= 0) & (ids < _per_id(self._size, flat)), ids + keys, -1)


def _per_id(values: Mapping[str, int], flat: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Each feature's value, once for each of its ids."""
    counts = tf.stack([tf.size(ids) for ids in flat.values()])
    return tf.repeat(tf.constant([values[name] for name in flat], tf.int64), counts)


def vocabulary_of(name: str, features: Mapping[str, FeatureInfo]) -> str:
    """The feature whose ids `name` holds: itself, or for a sequence the item feature it repeats."""
    info = features[name]
    return info.of if isinstance(info, SequenceInfo) else name


def vocabulary_rows(info: FeatureInfo) -> int:
    """Number of ids of a feature with a vocabulary or buckets."""
    if isinstance(info, CategoricalInfo):
        return info.rows
    if isinstance(info, NumericInfo):
        return len(info.boundaries) + 2
    raise ValueError(f"a {info.kind} feature has no fixed number of ids")
