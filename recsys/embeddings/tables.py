"""Embedding tables: an addressing (which rows does an id read?) before a store (what are those rows?)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys._compat import keras, tf
from recsys.data.dataset import MISSING, FeatureInfo
from recsys.embeddings.addressing import Addressing, Hashes, Offsets, id_limit, vocabulary_of
from recsys.embeddings.config import (
    DNISTable,
    EmbeddingsConfig,
    FullTable,
    HashedTable,
    MGQETable,
    MixedDimTable,
    MultiplexedTable,
    OptEmbedTable,
    TableConfig,
    VectorTable,
)
from recsys.embeddings.dnis import SelectedRows, frequency_block_of
from recsys.embeddings.embedded import Group
from recsys.embeddings.given import given_vectors
from recsys.embeddings.mgqe import CodedRows, head_and_tail
from recsys.embeddings.mixed_dim import FrequencyBlocks, frequency_blocks
from recsys.embeddings.optembed import Supernet
from recsys.embeddings.plan import TablePlan
from recsys.embeddings.planned import PlannedRows
from recsys.embeddings.rows import FloatRows, GivenRows, LowPrecisionRows, Store, Trained
from recsys.embeddings.seeds import seed_for
from recsys.embeddings.served import ServedRows

PLANNED = "planned"
"""What a full table under a plan is called, in place of its method."""


@dataclass(frozen=True)
class Vocabularies:
    """What a method may want to know of the training data beside the features."""

    frequencies: Callable[[str], NDArray[np.int64]]
    """From a feature with a vocabulary to the training count of each id [V]; 0 for the missing and OOV ids."""
    values: Callable[[str], NDArray[np.object_]]
    """From such a feature to the text of each id after the missing and OOV ids."""


class Table(keras.layers.Layer):
    """Rows read by one or more features through one hash or offset and one gather.

    Args:
        name: the table's name in the YAML.
        config: all tables, and which feature reads which.
        features: what `prepare` knows of all features (a sequence names another).
        vocabularies: of the training data; some methods need them.
        seed: the experiment's seed.
        plan: what is kept of the rows; None for all.
        step: that random widths depend on, for a supernet.
    """

    def __init__(
        self,
        name: str,
        config: EmbeddingsConfig,
        features: Mapping[str, FeatureInfo],
        vocabularies: Vocabularies | None,
        seed: int,
        plan: TablePlan | None = None,
        step: tf.Variable | None = None,
    ) -> None:
        super().__init__(name=f"table_{name}", dtype="float32")
        self.method = config.tables[name].method if plan is None else PLANNED
        readers = {reader: config.chunks(reader, name) for reader in config.readers(name)}
        self.addressing = make_addressing(config.tables[name], readers, features)
        own_seed = seed_for(seed, "table", name)
        self.store = make_store(name, config, self.addressing, features, vocabularies, own_seed, plan, step)
        self._limits = {reader: id_limit(features[vocabulary_of(reader, features)]) for reader in readers}

    def build(self, input_shape: object) -> None:
        """Makes the store's variables."""
        self.store.build(None)
        super().build(input_shape)

    def call(
        self, ids: Mapping[str, tf.Tensor], served: ServedRows | None = None, training: bool = False
    ) -> tuple[list[Group], dict[str, tf.Tensor]]:
        """Looks up any of its features at once, from ids [B], or [B, T] with a static T.

        Args:
            ids: by feature.
            served: rows to read in place of the trained ones.
            training: a supernet draws widths.

        Returns:
            The vectors of features with one value, side by side; [B, T, D] for each feature with many.

        Raises:
            tf.errors.InvalidArgumentError: an id is outside the vocabulary that the table was made for.
        """
        singles = sorted((name for name in ids if ids[name].shape.rank == 1), key=self.addressing.chunks)
        columns = {**dict.fromkeys(singles, 1), **{name: ids[name].shape[1] for name in ids if name not in singles}}
        readers = [name for name, width in columns.items() for _ in range(width)]
        matrix = _matrix(ids, singles, [name for name in columns if name not in singles])
        with tf.control_dependencies(self._check(matrix, readers)):
            rows = self.addressing(matrix, readers)
        if len(singles) < len(columns):
            rows = self._unpadded(rows, matrix, readers, len(singles))
        store = served or self.store
        found = store.lookup(tf.reshape(rows, [-1]))
        found = tf.reshape(found, [-1, rows.shape[1], self.store.dim])
        if training and isinstance(self.store, Supernet):
            found = self.store.sampled(found, columns)
        return self._cut(found, columns, singles)

    def _unpadded(self, rows: tf.Tensor, matrix: tf.Tensor, readers: list[str], singles: int) -> tf.Tensor:
        """Rows in which padding reads what the batch reads anyway: a row of its own would count as touched, and move by
        its momentum, in a multiplexed table the row of another id.
        """
        is_read = tf.not_equal(matrix, MISSING) | (tf.range(len(readers)) < singles)
        counts = [self.addressing.chunks(reader) for reader in readers]
        if max(counts) > 1:
            is_read = tf.gather(is_read, np.repeat(np.arange(len(counts)), counts), axis=1)
        anyone = tf.reduce_max(tf.where(is_read, rows, -1))
        return tf.where(is_read | (anyone < 0), rows, anyone)

    def _check(self, matrix: tf.Tensor, readers: list[str]) -> list[tf.Operation]:
        lowest, highest = tf.reduce_min(matrix, 0), tf.reduce_max(matrix, 0)
        limits = tf.constant([self._limits[reader] for reader in readers], tf.int64)
        sound = tf.reduce_all(lowest >= 0) & tf.reduce_all(tf.cast(highest, tf.int64) < limits)
        text = (
            f"{self.name}: an id of {', '.join(dict.fromkeys(readers))} is outside its vocabulary; columns reach from"
        )
        check = tf.debugging.Assert(sound, [text, lowest, "to", highest, "and must stay below", limits], summarize=50)
        return [check] if check is not None else []

    def _cut(
        self, found: tf.Tensor, columns: Mapping[str, int], singles: list[str]
    ) -> tuple[list[Group], dict[str, tf.Tensor]]:
        """From [B, ΣC, D], the chunks of all values, to the features' own vectors."""
        runs: list[tuple[list[str], int]] = []  # features with one width, side by side; their chunks
        for name in singles:
            if runs and runs[-1][1] == self.addressing.chunks(name):
                runs[-1][0].append(name)
            else:
                runs.append(([name], self.addressing.chunks(name)))
        groups, many, start = [], {}, 0
        for names, chunks in runs:
            stop = start + len(names) * chunks
            groups.append(Group(tuple(names), self._joined(found, start, stop, len(names), chunks)))
            start = stop
        for name in [name for name in columns if name not in singles]:
            chunks = self.addressing.chunks(name)
            stop = start + columns[name] * chunks
            many[name] = self._joined(found, start, stop, columns[name], chunks)
            start = stop
        return groups, many

    def _joined(self, found: tf.Tensor, start: int, stop: int, values: int, chunks: int) -> tf.Tensor:
        part = found if (start, stop) == (0, found.shape[1]) else found[:, start:stop]
        return part if chunks == 1 else tf.reshape(part, [-1, values, chunks * self.store.dim])

    def rows_of(self, reader: str, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """[n, C] the rows that ids [n] of a feature read, outside of any graph."""
        return self.addressing(tf.constant(ids[:, np.newaxis]), [reader]).numpy().astype(np.int64)

    def trained(self) -> list[Trained]:
        """What the sparse optimizer trains."""
        return self.store.trained()


def _matrix(ids: Mapping[str, tf.Tensor], singles: list[str], many: list[str]) -> tf.Tensor:
    """[B, L] all ids, int32 where all of them are."""
    wide = any(value.dtype == tf.int64 for value in ids.values())
    cast = {name: tf.cast(value, tf.int64) if wide else value for name, value in ids.items()}
    parts = [tf.stack([cast[name] for name in singles], 1)] if singles else []
    parts += [cast[name] for name in many]
    return parts[0] if len(parts) == 1 else tf.concat(parts, 1)


def make_addressing(
    config: TableConfig, readers: Mapping[str, int], features: Mapping[str, FeatureInfo]
) -> Offsets | Hashes:
    """The way from ids to rows that a method has."""
    if isinstance(config, HashedTable | MultiplexedTable):
        return Hashes(config, readers, features)
    return Offsets(list(readers), features)


def make_store(
    name: str,
    config: EmbeddingsConfig,
    addressing: Addressing,
    features: Mapping[str, FeatureInfo],
    vocabularies: Vocabularies | None,
    seed: int,
    plan: TablePlan | None = None,
    step: tf.Variable | None = None,
) -> Store:
    """The rows that a method has, or what a plan keeps of a full table's.

    Raises:
        ValueError: the method needs the vocabularies or the step, and there is none.
        DataError: given vectors that cannot be used.
    """
    table = config.tables[name]
    if plan is not None:
        assert isinstance(table, FullTable)
        assert isinstance(addressing, Offsets)
        return PlannedRows(name, table, plan, list(addressing.sizes), seed)
    if isinstance(table, FullTable | HashedTable | MultiplexedTable):
        rows, dim, start = addressing.rows, table.dim, table.initializer
        served = table.served_precision or table.precision
        if table.precision == "float32":
            return FloatRows(name, rows, dim, start, served, seed)
        return LowPrecisionRows(name, rows, dim, start, table.precision, served, seed)
    assert isinstance(addressing, Offsets)
    if isinstance(table, OptEmbedTable):
        if step is None:
            raise ValueError(f"table {name!r}: method {table.method} needs the model's step")
        return Supernet(name, table, addressing.sizes, seed, step)
    if vocabularies is None:
        raise ValueError(f"table {name!r}: method {table.method} needs the vocabularies")
    match table:
        case MixedDimTable():
            frequencies = {owner: vocabularies.frequencies(owner) for owner in addressing.sizes}
            blocks = frequency_blocks(table.dim, table.alpha, frequencies)
            return FrequencyBlocks(name, blocks, table.dim, table.initializer, seed)
        case DNISTable():
            frequencies = {owner: vocabularies.frequencies(owner) for owner in addressing.sizes}
            return SelectedRows(name, table, frequency_block_of(frequencies, table.shares), seed)
        case MGQETable():
            frequencies = {owner: vocabularies.frequencies(owner) for owner in addressing.sizes}
            return CodedRows(name, addressing.rows, table, head_and_tail(frequencies, table.head), seed)
        case VectorTable():
            owner = next(iter(addressing.sizes))
            vectors = given_vectors(table, owner, addressing.sizes[owner], vocabularies.values(owner))
            trained, served = table.train == "fine_tuned", table.served_precision or "float32"
            return GivenRows(name, vectors, trained, table.projection, served, seed)
