"""Which rows of a table an id reads: by offset into a vocabulary's own rows, or by a salted hash.

All ids that a batch asks a table for stand in one matrix [B, L], a column for each value of each feature, so that one
vectorised computation finds all rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from recsys._compat import tf
from recsys.data.dataset import CategoricalInfo, FeatureInfo, NumericInfo, SequenceInfo
from recsys.embeddings.config import HashedTable, MultiplexedTable
from recsys.embeddings.hashing import hash_rows, salt


class Addressing(Protocol):
    """The way from ids to rows."""

    @property
    def rows(self) -> int:
        """Rows that the table needs."""

    def chunks(self, reader: str) -> int:
        """Rows that one id of a feature reads."""

    def __call__(self, ids: tf.Tensor, readers: Sequence[str]) -> tf.Tensor:
        """From ids [B, L], column l being of feature `readers[l]`, to rows [B, ΣC], each column's chunks side by
        side.
        """


class Offsets:
    """One row per id: each vocabulary has its own rows, one after the other.

    Args:
        readers: the features that read the table; those with one vocabulary share its rows.
        features: what `prepare` knows of all features.
    """

    def __init__(self, readers: Sequence[str], features: Mapping[str, FeatureInfo]) -> None:
        owners = {reader: vocabulary_of(reader, features) for reader in readers}
        self.sizes = {owner: vocabulary_rows(features[owner]) for owner in dict.fromkeys(owners.values())}
        starts = np.cumsum([0, *self.sizes.values()])
        self.starts = {owner: int(start) for owner, start in zip(self.sizes, starts, strict=False)}
        self._owners = owners
        self.rows = int(starts[-1])

    def chunks(self, reader: str) -> int:
        """Always one."""
        return 1

    def __call__(self, ids: tf.Tensor, readers: Sequence[str]) -> tf.Tensor:
        """Adds each vocabulary's start."""
        return ids + tf.constant([self.starts[self._owners[reader]] for reader in readers], ids.dtype)


class Hashes:
    """Rows by a hash of (vocabulary's feature name, chunk, id): Unified Embedding, and its per-feature control.

    A feature's rows never depend on the order of the features; in a multiplexed table they depend on its name alone.

    Args:
        config: a multiplexed table, whose features share all rows, or a hashed one, whose features get a part each.
        readers: the features that read the table, with how many chunks.
        features: what `prepare` knows of all features.
    """

    def __init__(
        self,
        config: HashedTable | MultiplexedTable,
        readers: Mapping[str, int],
        features: Mapping[str, FeatureInfo],
    ) -> None:
        self._chunks = dict(readers)
        self._owners = {reader: vocabulary_of(reader, features) for reader in readers}
        if isinstance(config, MultiplexedTable):
            self.rows = config.rows * config.tables
            self._ranges = {
                reader: [
                    (table * config.rows, config.rows)
                    for table in _in_turn(self._owners[reader], chunks, config.tables)
                ]
                for reader, chunks in readers.items()
            }
        else:
            self.rows = config.rows
            parts = _shared_out(config.rows, {owner: features[owner] for owner in sorted(set(self._owners.values()))})
            self._ranges = {reader: [parts[self._owners[reader]]] * chunks for reader, chunks in readers.items()}

    def chunks(self, reader: str) -> int:
        """As the feature's config says."""
        return self._chunks[reader]

    def __call__(self, ids: tf.Tensor, readers: Sequence[str]) -> tf.Tensor:
        """Hashes every id once for each of its chunks."""
        counts = [self._chunks[reader] for reader in readers]
        if max(counts) > 1:
            ids = tf.gather(ids, np.repeat(np.arange(len(counts)), counts), axis=1)
        salts = [salt(self._owners[reader], chunk) for reader in readers for chunk in range(self._chunks[reader])]
        starts, sizes = zip(*(part for reader in readers for part in self._ranges[reader]), strict=True)
        hashed = hash_rows(tf.cast(ids, tf.int64), tf.constant(salts, tf.int64), tf.constant(sizes, tf.int64))
        rows = hashed + tf.constant(starts, tf.int64)
        return tf.cast(rows, tf.int32) if self.rows < 2**31 else rows


def _in_turn(owner: str, chunks: int, tables: int) -> list[int]:
    """The backing table of each chunk: one after the other, from one that the feature's name chooses."""
    first = salt(owner, "table") % tables
    return [(first + chunk) % tables for chunk in range(chunks)]


def _shared_out(rows: int, owners: Mapping[str, FeatureInfo]) -> dict[str, tuple[int, int]]:
    """(start, size) of each vocabulary's part of a table: proportional, none empty, all rows used."""
    if len(owners) == 1:
        return dict.fromkeys(owners, (0, rows))
    sizes = np.array([vocabulary_rows(info) for info in owners.values()])
    # Everyone has one row for certain; the others go by the largest remainder.
    ideal = sizes / sizes.sum() * (rows - len(sizes))
    parts = 1 + np.floor(ideal).astype(np.int64)
    parts[np.argsort(np.floor(ideal) - ideal, kind="stable")[: rows - parts.sum()]] += 1
    starts = np.cumsum([0, *parts[:-1]])
    return {owner: (int(start), int(size)) for owner, start, size in zip(owners, starts, parts, strict=True)}


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


def id_limit(info: FeatureInfo) -> int:
    """Ids of a feature are below this."""
    return vocabulary_rows(info) if isinstance(info, CategoricalInfo | NumericInfo) else 2**63 - 1
