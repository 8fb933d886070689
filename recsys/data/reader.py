"""Training batches from the prepared shards: in order or shuffled by (seed, epoch), from any step on.

The order is a function of (seed, epoch) alone, so a killed run resumes by seeking, without any saved iterator. Rows are
mixed on three levels: `prepare` writes them in an order made pseudo-random by digest; each epoch permutes the row
groups, and the rows within pools of `POOL` row groups. Nothing in Python runs per row: a pool is permuted and its
histories are gathered in a few numpy calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.data.dataset import Part, label_column
from recsys.data.prepared import Prepared, dense
from recsys.errors import DataError
from recsys.files import new_folder

POOL = 8
"""Row groups that are shuffled together."""
CHUNK = 65_536
"""Rows handed to TensorFlow at once; it cuts them into batches."""
Shares = tuple[float, float]
WHOLE: Shares = (0.0, 1.0)
_WHO = ("user_index", "item_index")
_OWN = (*_WHO, "label", "weight", "time", "history_stop")


@dataclass(frozen=True)
class Shard:
    """The part of every global batch that one input pipeline reads: slice `index` of `count` equal ones."""

    index: int = 0
    count: int = 1


class RowGroups:
    """Rows of a folder of Parquet files, in the files' order or shuffled, from any row on.

    Args:
        folder: holds `part-*.parquet`.
        positives_only: as if the rows whose label is not 1 were not there.
        between: as if of each row group there were only the rows between these shares of it: as `prepare` has written
            the rows by digest, a random sample, and another one for shares that do not overlap.
    """

    def __init__(self, folder: Path, positives_only: bool = False, between: Shares = WHOLE) -> None:
        self._positives_only, self._between = positives_only, between
        self._files = [pq.ParquetFile(path, memory_map=True) for path in sorted(folder.glob("part-*.parquet"))]
        self._groups = [(f, g) for f, file in enumerate(self._files) for g in range(file.metadata.num_row_groups)]
        self._sizes = np.array([self._size(f, g) for f, g in self._groups], dtype=np.int64)
        self.rows = int(self._sizes.sum())

    @property
    def schema(self) -> pa.Schema:
        """Of every file."""
        return self._files[0].schema_arrow

    def tables(self, start: int = 0, shuffle: tuple[int, int] | None = None) -> Iterator[tuple[int, pa.Table]]:
        """(row number of the first row, table), from row `start` of the order on.

        Args:
            start: rows to skip; what lies wholly before them is not read.
            shuffle: (seed, epoch); None keeps the files' order.
        """
        order, pool = np.arange(len(self._groups)), 1
        if shuffle is not None:
            order, pool = np.random.default_rng(shuffle).permutation(order), POOL
        first = 0
        for at in range(0, len(order), pool):
            groups = order[at : at + pool]
            stop = first + int(self._sizes[groups].sum())
            if stop > max(start, first):
                table = self._read(groups)
                if shuffle is not None:
                    # Numbered from 1: numpy takes [seed, epoch, 0] for [seed, epoch].
                    rows = np.random.default_rng([*shuffle, 1 + at]).permutation(table.num_rows)
                    table = table.take(pa.array(rows))
                skipped = max(0, start - first)
                yield first + skipped, table.slice(skipped)
            first = stop

    def _size(self, file: int, group: int) -> int:
        if self._positives_only:
            return self._group(file, group, ["label"]).num_rows
        start, stop = self._places(self._files[file].metadata.row_group(group).num_rows)
        return stop - start

    def _read(self, groups: NDArray[np.int64]) -> pa.Table:
        return pa.concat_tables(self._group(f, g) for f, g in (self._groups[i] for i in groups))

    def _group(self, file: int, group: int, columns: list[str] | None = None) -> pa.Table:
        table = self._files[file].read_row_group(group, columns=columns)
        start, stop = self._places(table.num_rows)
        table = table.slice(start, stop - start)
        return table.filter(_positive(table)) if self._positives_only else table

    def _places(self, rows: int) -> tuple[int, int]:
        start, stop = self._between
        return round(start * rows), round(stop * rows)


def _positive(table: pa.Table) -> pa.ChunkedArray:
    return pa.compute.equal(table["label"], 1.0)


class Examples:
    """The examples of one part as batches for training.

    Args:
        prepared: the data set.
        part: "train", "valid" or "test".
        batch_size: of the global batch; the epoch's last incomplete batch is left out.
        seed: shuffles; None keeps the shards' order.
        positives_only: batches hold the examples of label 1 alone, as a two-tower model needs them.
        between: only the examples between these shares of the part, a random sample (see `RowGroups`).

    Raises:
        DataError: the part has fewer such rows than one batch.
    """

    def __init__(
        self,
        prepared: Prepared,
        part: Part,
        batch_size: int,
        seed: int | None,
        positives_only: bool = False,
        between: Shares = WHOLE,
    ) -> None:
        self._prepared = prepared
        self._part, self._seed = part, seed
        self._positives_only, self._between = positives_only, between
        self._groups = RowGroups(prepared.path / part, positives_only, between)
        self.batch_size = batch_size
        self.steps_per_epoch = self._groups.rows // batch_size
        if self.steps_per_epoch == 0:
            raise DataError(
                f"{prepared.info.name}: {part}",
                f"{self._groups.rows} {'positive rows' if positives_only else 'rows'}",
                f"at least one batch of {batch_size}",
                "lower training.batch_size",
            )

    @property
    def examples_per_step(self) -> float:
        """Examples in a batch: what the sum of their losses is divided by."""
        return self.batch_size

    def batches(
        self, epoch: int, step: int = 0, shard: Shard = Shard(), local_batch: int | None = None
    ) -> tf.data.Dataset:
        """The epoch's batches from global step `step` on, as `docs/architecture.md` describes a batch.

        Args:
            epoch: numbers the permutation.
            step: batches of the epoch to skip.
            shard: which slice of every global batch this pipeline reads.
            local_batch: rows per element (one replica's share); the shard's whole slice by default.

        Raises:
            ValueError: the shards cannot share a batch equally, or their slices cannot be cut into `local_batch` rows.
        """
        size = local_batch or self.batch_size // shard.count
        if self.batch_size % (shard.count * size):
            raise ValueError(f"{self.batch_size} rows in {shard.count} slices cannot be cut into batches of {size}")
        dataset = self._dataset(lambda: self._chunks(epoch, step, shard))
        return dataset.rebatch(size, drop_remainder=True).prefetch(2)

    def whole(self, rows: int) -> tf.data.Dataset:
        """Every row once, negatives too, in file order, in batches of `rows` (the last may be smaller): for scoring."""
        groups = RowGroups(self._prepared.path / self._part)
        return self._dataset(lambda: self._pieces(groups.tables())).rebatch(rows).prefetch(2)

    def once(self) -> Iterator[dict[str, Any]]:
        """Every row that an epoch may hold once, in file order, in batches of at most `CHUNK` rows: for counting."""
        return self._pieces(self._groups.tables())

    def store(self) -> Path:
        """Writes all batches of epoch 0 beside the prepared shards, once, for `tf.data.Dataset.load`; returns the path.

        For parameter servers: their workers run the input graph in another process, where no Python generator can
        follow. They are not synchronised, so neither is their order resumed.
        """
        name = f"{self._part}-{self.batch_size}-{self._seed}" + ("-positives" if self._positives_only else "")
        name += "" if self._between == WHOLE else "-{}-{}".format(*self._between)
        folder = self._prepared.path / "stored" / name
        if not folder.exists():
            with new_folder(folder) as temporary:
                self.batches(0).save(str(temporary))
        return folder

    def sample(self, rows: int = 2) -> dict[str, Any]:
        """The first rows in file order, as a batch: what a model is built with. At least one row."""
        _, table = next(self._groups.tables())
        return self._batch(table.slice(0, rows))

    def take(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        """A few rows as a batch, by their numbers in file order."""
        table = self._prepared.examples(self._part, self._groups.schema.names)
        return self._batch(table.take(pa.array(rows)))

    def _dataset(self, chunks: Callable[[], Iterator[dict[str, Any]]]) -> tf.data.Dataset:
        signature = tf.nest.map_structure(
            lambda a: tf.TensorSpec((None, *a.shape[1:]), a.dtype), self._batch(self._groups.schema.empty_table())
        )
        return tf.data.Dataset.from_generator(chunks, output_signature=signature)

    def _chunks(self, epoch: int, step: int, shard: Shard) -> Iterator[dict[str, Any]]:
        """The shard's rows of the whole batches from `step` on."""
        end = self.steps_per_epoch * self.batch_size
        shuffle = None if self._seed is None else (self._seed, epoch)
        tables = self._groups.tables(step * self.batch_size, shuffle)
        return self._pieces(((first, table.slice(0, max(0, end - first))) for first, table in tables), shard)

    def _pieces(self, tables: Iterator[tuple[int, pa.Table]], shard: Shard = Shard()) -> Iterator[dict[str, Any]]:
        for first, table in tables:
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
        # A log that names no users or items has no features of them, and nothing reads their indices.
        user, item = (own.get(name, np.empty(0, np.int32)) for name in _WHO)
        labels = {name: table[label_column(name)].to_numpy() for name in prepared.info.labels}
        further = {"labels": labels} if labels else {}
        return {
            "query": prepared.query_features(user, own["history_stop"], context, own.get("time")),
            "item": {name: column[item] for name, column in prepared.item_features.items()},
            **{name: own[name] for name in (*_WHO, "label", "weight") if name in own},
            **further,
        }
