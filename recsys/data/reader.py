"""Training batches from the prepared shards: in order or shuffled by (seed, epoch), from any step on.

The order is a function of (seed, epoch) alone, so a killed run resumes by seeking, without any saved iterator. Rows are
mixed on three
levels: `prepare` writes them in an order made pseudo-random by digest; each epoch permutes the row groups, and the rows
within pools of
`POOL` row groups. Nothing in Python runs per row: a pool is permuted and its histories are gathered in a few numpy
calls.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.data.dataset import Part
from recsys.data.prepared import Prepared, dense
from recsys.errors import DataError

POOL = 8
"""Row groups that are shuffled together."""
CHUNK = 65_536
"""Rows handed to TensorFlow at once; it cuts them into batches."""
_OWN = ("user_index", "item_index", "label", "weight", "time", "history_stop")


@dataclass(frozen=True)
class Shard:
    """The part of every global batch that one input pipeline reads: slice `index` of `count` equal ones."""

    index: int = 0
    count: int = 1


class RowGroups:
    """Rows of a folder of Parquet files, in an order given by (seed, epoch), from any row on.

    Args:
        folder: holds `part-*.parquet`.
        seed: None reads in the order of the files.
    """

    def __init__(self, folder: Path, seed: int | None) -> None:
        self._files = [pq.ParquetFile(path, memory_map=True) for path in sorted(folder.glob("part-*.parquet"))]
        self._groups = [(f, g) for f, file in enumerate(self._files) for g in range(file.metadata.num_row_groups)]
        self._sizes = np.array([self._files[f].metadata.row_group(g).num_rows for f, g in self._groups], dtype=np.int64)
        self.part, self.seed = folder.name, seed
        self.rows = int(self._sizes.sum())

    def tables(self, epoch: int, start: int = 0) -> Iterator[tuple[int, pa.Table]]:
        """(row number of the first row, table), from row `start` of the epoch's order on."""
        order = np.arange(len(self._groups))
        pool = 1
        if self.seed is not None:
            order = np.random.default_rng([self.seed, epoch]).permutation(order)
            pool = POOL
        first = 0
        for at in range(0, len(order), pool):
            groups = order[at : at + pool]
            stop = first + int(self._sizes[groups].sum())
            if stop > start:
                table = pa.concat_tables(
                    [self._files[f].read_row_group(g) for f, g in (self._groups[i] for i in groups)]
                )
                if self.seed is not None:
                    rows = np.random.default_rng([self.seed, epoch, at]).permutation(table.num_rows)
                    table = table.take(pa.array(rows))
                skipped = max(0, start - first)
                yield first + skipped, table.slice(skipped)
            first = stop


class Examples:
    """The examples of one part as batches for training.

    Args:
        prepared: the data set.
        part: "train", "valid" or "test".
        batch_size: of the global batch; the epoch's last incomplete batch is left out.
        seed: shuffles; None keeps the shards' order.

    Raises:
        DataError: the part has fewer rows than one batch.
    """

    def __init__(self, prepared: Prepared, part: Part, batch_size: int, seed: int | None) -> None:
        self._prepared = prepared
        self._groups = RowGroups(prepared.path / part, seed)
        self.batch_size = batch_size
        self.steps_per_epoch = self._groups.rows // batch_size
        if self.steps_per_epoch == 0:
            raise DataError(
                f"{prepared.path.name}: {part}",
                f"{self._groups.rows} rows",
                f"at least one batch of {batch_size}",
                "lower training.batch_size",
            )

    def batches(
        self, epoch: int, step: int = 0, shard: Shard = Shard(), local_batch: int | None = None
    ) -> tf.data.Dataset:
        """The epoch's batches from global step `step` on, as `docs/architecture.md` describes a batch.

        Args:
            shard: which slice of every global batch this pipeline reads.
            local_batch: rows per element (one replica's share); the shard's whole slice by default.
        """
        size = local_batch or self.batch_size // shard.count

        dataset = self._dataset(lambda: self._chunks(epoch, step, shard))
        return dataset.rebatch(size, drop_remainder=True).prefetch(2)

    def _dataset(self, chunks: Callable[[], Iterator[dict[str, Any]]]) -> tf.data.Dataset:
        signature = tf.nest.map_structure(
            lambda a: tf.TensorSpec((None, *a.shape[1:]), a.dtype), self._batch(self._empty())
        )
        return tf.data.Dataset.from_generator(chunks, output_signature=signature)

    def whole(self, rows: int) -> tf.data.Dataset:
        """Every row once, in file order, in batches of `rows` (the last may be smaller): for scoring."""
        return self._dataset(lambda: self._chunks(0, 0, Shard())).rebatch(rows).prefetch(2)

    def stored_batches(self, worker: int) -> tf.data.Dataset:
        """All batches of epoch 0, endlessly, in an order of this worker's own, from files that any process can read.

        Parameter-server workers run the input graph in another process, where no Python generator can follow; their
        order is not synchronised, so neither is it resumed. The files are made once, beside the prepared shards.
        """
        folder = self._prepared.path / "stored" / f"{self._groups.part}-{self.batch_size}-{self._groups.seed}"
        if not folder.exists():
            temporary = folder.with_name(f".{folder.name}-{os.getpid()}")
            self.batches(0).save(str(temporary))
            os.replace(temporary, folder)
        seed = (self._groups.seed or 0) + worker
        return tf.data.Dataset.load(str(folder)).shuffle(self.steps_per_epoch, seed=seed).repeat()

    def sample(self, rows: int = 2) -> dict[str, Any]:
        """The first rows in file order, as a batch: what a model is built with."""
        _, table = next(self._groups.tables(0))
        return self._batch(table.slice(0, rows))

    def _empty(self) -> pa.Table:
        return self._groups._files[0].schema_arrow.empty_table()

    def _chunks(self, epoch: int, step: int, shard: Shard) -> Iterator[dict[str, Any]]:
        end = self.steps_per_epoch * self.batch_size
        for first, table in self._groups.tables(epoch, step * self.batch_size):
            table = table.slice(0, max(0, end - first))
            for at in range(0, table.num_rows, CHUNK):
                piece = table.slice(at, CHUNK)
                if shard.count > 1:
                    place = (first + at + np.arange(piece.num_rows)) % self.batch_size
                    piece = piece.filter(pa.array(place * shard.count // self.batch_size == shard.index))
                if piece.num_rows:
                    yield self._batch(piece)

    def _batch(self, table: pa.Table) -> dict[str, Any]:
        prepared = self._prepared
        own: dict[str, NDArray] = {name: table[name].to_numpy() for name in _OWN if name in table.column_names}
        context = {name: dense(table[name], prepared.info, name) for name in prepared.names("context")}
        user, item = own["user_index"], own["item_index"]
        return {
            "query": prepared.query_features(user, own["history_stop"], context, own.get("time")),
            "item": {name: column[item] for name, column in prepared.item_features.items()},
            "user_index": user,
            "item_index": item,
            "label": own["label"],
            "weight": own["weight"],
        }
