"""The columns of a prepared folder that checks read: of examples a row group at a time, of events whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.data.dataset import Part
from recsys.data.prepared import Prepared, dense

Rows = dict[str, NDArray]
"""Parallel columns of some examples; features as a batch holds them."""


def shards(prepared: Prepared, part: Part, columns: Sequence[str]) -> Iterator[Rows]:
    """These columns of all examples of `part`, in the order of its files, in bounded memory."""
    for path in sorted((prepared.path / part).glob("part-*.parquet")):
        with pq.ParquetFile(path, memory_map=True) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=list(columns))
                yield {name: dense(table[name], prepared.info, name) for name in columns}


def logged(prepared: Prepared, part: Part, columns: Sequence[str]) -> Iterator[Rows]:
    """The same without sampled negatives, which are no events."""
    if prepared.info.sampled_negatives is None:
        yield from shards(prepared, part, columns)
        return
    for rows in shards(prepared, part, [*columns, *({"label"} - set(columns))]):
        positive = rows["label"] > 0
        yield {name: rows[name][positive] for name in columns}


def event_users(prepared: Prepared) -> NDArray[np.int32]:
    """[events] whose event it is, as the events themselves say."""
    return pq.read_table(prepared.path / "events", columns=["user_index"])["user_index"].to_numpy()
