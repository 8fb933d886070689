"""Pairs of items that were met one after the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.data.pairs import pairs_of
from recsys.data.prepared import Prepared
from tests.worlds import write_world

ITEMS = [[5, 6, 5, 7, 8, 9], [1, 2, 3, 4, 0, 0]]
TIMES = [[0, 10, 20, 20, 30, 40], [0, 1, 2, 3, 4, 5]]


@pytest.fixture
def world(tmp_path: Path) -> Prepared:
    """Two users with six events, the last two of each held out."""
    folder = write_world(tmp_path / "world", users=2, per_user=6)
    (file,) = (folder / "events").iterdir()
    table = pq.read_table(file)
    for name, values, kind in (("item_index", ITEMS, pa.int32()), ("time", TIMES, pa.int64())):
        column = pa.array(np.ravel(values), kind)
        table = table.set_column(table.schema.get_field_index(name), name, column)
    pq.write_table(table, file)
    return Prepared(folder)


def test_pairs_are_of_one_users_training_events(world: Prepared) -> None:
    """5 and 7 share a time, so they count in both directions; 7, 8 and 3, 4 would need a held-out event."""
    found = sorted(zip(*(side.tolist() for side in pairs_of(world, 1)), strict=True))
    assert found == [(1, 2), (2, 3), (3, 4), (5, 6), (5, 7), (6, 5), (7, 5)]


def test_a_wider_window_holds_the_narrower_one(world: Prepared) -> None:
    found = sorted(zip(*(side.tolist() for side in pairs_of(world, 2)), strict=True))
    further = [(1, 3), (2, 4), (6, 7)]  # 5 and 5 are one item
    assert found == sorted([(1, 2), (2, 3), (3, 4), (5, 6), (5, 7), (6, 5), (7, 5), *further])
    assert len(pairs_of(world, 50).first) == len(found) + 2  # 1, 4 and 5, 7
