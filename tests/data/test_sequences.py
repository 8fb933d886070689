"""Windows of histories: every example once, at the place where its own history ends, and nothing of the future."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.data.prepared import Prepared
from recsys.data.reader import Examples, Shard
from recsys.data.sequences import NO_TARGET, Sequences
from recsys.errors import DataError
from tests.worlds import write_world

Batch = dict[str, Any]
USERS, PER_USER, LENGTH = 40, 12, 4
"""Histories of the worlds hold four events, and most users share times."""


@pytest.fixture(scope="module", params=["events", "ties"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = write_world(tmp_path_factory.mktemp("worlds") / "world", negatives=0.2)
    if request.param == "ties":  # ten events of the first user at one time: more than fit a window
        for path in (folder / "train").iterdir():
            table = pq.read_table(path)
            user, stop = table["user_index"].to_numpy(), table["history_stop"].to_numpy()
            replaced = pa.array(np.where(user == 0, np.minimum(stop, 0), stop))
            pq.write_table(
                table.set_column(table.schema.get_field_index("history_stop"), "history_stop", replaced), path
            )
    return Prepared(folder)


def examples_of(sequences: Sequences) -> list[tuple[Any, ...]]:
    """(user, item, known events' ids, context, weight) of all examples in all windows."""
    found = []
    for batch in sequences.once():
        for row, column in np.argwhere(batch["place"] != NO_TARGET):
            place = batch["place"][row, column]
            found.append(
                (
                    int(batch["user_index"][row]),
                    int(batch["item_index"][row, column]),
                    tuple(batch["query"]["history"][row, :place].tolist()),
                    int(batch["query"]["device"][row, column]),
                    tuple(batch["item"]["genres"][row, column].tolist()),
                    float(batch["weight"][row, column]),
                )
            )
    return found


def test_every_positive_example_is_in_one_window_at_the_end_of_its_own_history(world: Prepared) -> None:
    """Told from the examples by themselves: a window's history is theirs, but for what stands before the window."""
    expected = []
    for batch in Examples(world, "train", 1, None, positives_only=True).once():
        for n in range(len(batch["user_index"])):
            history = batch["query"]["history"][n]
            expected.append(
                (
                    int(batch["user_index"][n]),
                    int(batch["item_index"][n]),
                    tuple(history[history > 0].tolist()),
                    int(batch["query"]["device"][n]),
                    tuple(batch["item"]["genres"][n].tolist()),
                    float(batch["weight"][n]),
                )
            )
    found = examples_of(Sequences(world, 4, None))
    assert sorted((*each[:2], *each[3:]) for each in found) == sorted((*each[:2], *each[3:]) for each in expected)
    by_key: dict[tuple[Any, ...], list[tuple[int, ...]]] = {}
    for each in expected:
        by_key.setdefault((*each[:2], *each[3:]), []).append(each[2])
    whole = 0
    for each in found:
        known, histories = each[2], by_key[*each[:2], *each[3:]]
        assert any(history[len(history) - len(known) :] == known for history in histories)
        assert known or () in histories, "an example with a history sees an event of it"
        whole += known in histories
    assert whole > len(found) / 2


def test_no_held_out_event_is_in_a_window(world: Prepared) -> None:
    """The last two events of each user are held out; items are known by place, so times tell."""
    sequences = Sequences(world, 4, None)
    held_out = world.event_start[1:] - 2
    assert (sequences._stop <= held_out[sequences._user]).all()
    assert (sequences._start >= world.event_start[sequences._user]).all()


def test_rows_are_filled_with_nothing(world: Prepared) -> None:
    (batch,) = Sequences(world, 4, None).once()
    empty = batch["place"] == NO_TARGET
    assert empty.any()
    assert not batch["weight"][empty].any()
    for values in (*batch["item"].values(), batch["query"]["device"]):
        assert not np.any(values[empty])
    assert "history.age" not in batch["query"]


def test_windows_of_an_epoch_are_permuted_and_resumed_and_shared_out(world: Prepared) -> None:
    sequences = Sequences(world, 8, seed=3)
    count = len(sequences._user)
    assert sequences.steps_per_epoch == count // 8 > 4
    assert sequences.examples_per_step == pytest.approx(8 * len(sequences._item) / count)

    def steps(epoch: int, start: int = 0, shard: Shard = Shard(), local: int | None = None) -> list[Batch]:
        return list(sequences.batches(epoch, start, shard, local).as_numpy_iterator())

    whole = steps(1)
    assert len(whole) == sequences.steps_per_epoch
    for resumed, batch in zip(steps(1, 3), whole[3:], strict=True):
        np.testing.assert_equal(resumed, batch)
    users = np.concatenate([batch["user_index"] for batch in whole])
    assert not np.array_equal(users, np.concatenate([batch["user_index"] for batch in steps(2)]))
    assert not np.array_equal(users, np.sort(users))
    parts = [steps(1, 2, Shard(index, 2), 2) for index in range(2)]
    halves = [np.concatenate([batch["item_index"] for batch in part]).reshape(-1, 4, LENGTH) for part in parts]
    joined = np.concatenate(halves, 1)
    np.testing.assert_array_equal(joined, [batch["item_index"] for batch in whole[2:]])
    with pytest.raises(ValueError, match="cannot be cut"):
        sequences.batches(0, shard=Shard(0, 3))


def test_more_windows_than_there_are(world: Prepared) -> None:
    with pytest.raises(DataError, match="it counts windows"):
        Sequences(world, 10_000, 0)


def test_windows_go_from_the_newest_example_backwards(tmp_path: Path) -> None:
    """Ten training events without ties and windows of four: histories of 9..6, 5..2 and 1..0 events."""
    folder = write_world(tmp_path / "world", users=1, per_user=PER_USER)
    path = folder / "train" / "part-00000.parquet"
    table = pq.read_table(path)
    stops = pa.array(np.random.default_rng(0).permutation(10).astype(np.int64))
    table = table.set_column(table.schema.get_field_index("history_stop"), "history_stop", stops)
    pq.write_table(table, path)
    (batch,) = Sequences(Prepared(folder), 1, None).once()
    assert batch["place"].tolist() == [[0, 1, NO_TARGET, NO_TARGET], [1, 2, 3, 4], [1, 2, 3, 4]]
    events = Prepared(folder).events.item_index + 2
    np.testing.assert_array_equal(batch["query"]["history"], [[events[0], 0, 0, 0], events[1:5], events[5:9]])
