"""Writes the Parquet files of the prepared folder: fixed types, fixed row groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

COMPRESSION = "snappy"

BASE = {
    "user_index": pa.int32(),
    "item_index": pa.int32(),
    "label": pa.float32(),
    "weight": pa.float32(),
    "propensity": pa.float64(),
    "time": pa.int64(),
    "stage": pa.int8(),
    "history_stop": pa.int64(),
}
"""Types of the fixed columns of events and examples."""

Finish = Callable[[str, pa.Array], pa.Array]
"""The last step for a column of a batch, by name."""


def write_table(path: Path, table: pa.Table) -> None:
    """One small table, one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression=COMPRESSION)


def write_rows(folder: Path, batches: Iterable[pa.RecordBatch], finish: Finish, rows_per_group: int) -> int:
    """A stream of batches as `folder/part-00000.parquet`, in row groups of `rows_per_group`; the number of rows."""
    folder.mkdir(parents=True)
    rows = 0
    writer: pq.ParquetWriter | None = None
    try:
        for group in regrouped(batches, rows_per_group):
            done = pa.table({name: finish(name, group[name].combine_chunks()) for name in group.column_names})
            if writer is None:
                writer = pq.ParquetWriter(folder / "part-00000.parquet", done.schema, compression=COMPRESSION)
            writer.write_table(done, row_group_size=rows_per_group)
            rows += len(done)
    finally:
        if writer is not None:
            writer.close()
    return rows


def regrouped(batches: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.Table]:
    """The same rows in tables of exactly `size`; the last one may be shorter."""
    pending: list[pa.RecordBatch] = []
    held = 0
    for batch in batches:
        pending.append(batch)
        held += batch.num_rows
        if held < size:
            continue
        table = pa.Table.from_batches(pending)
        whole = held - held % size
        for start in range(0, whole, size):
            yield table.slice(start, size)
        pending, held = table.slice(whole).to_batches(), held - whole
    if held:
        yield pa.Table.from_batches(pending)
