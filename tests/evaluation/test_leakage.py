"""Leaks in histories, splits and copies: each is planted into a sound folder, and it alone is found."""

from __future__ import annotations

from itertools import product

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.data.prepared import Prepared
from recsys.evaluation.leakage import find_leaks
from tests.evaluation.spoiling import SPLITS, World, prepared


@pytest.mark.parametrize("name", SPLITS)
def test_sound_data_have_no_leaks(sound, name):
    assert find_leaks(Prepared(sound(name))) == []


@pytest.mark.parametrize("name", ["temporal", "random", "leave_last_out"])
def test_sound_data_of_another_seed(tmp_path, name):
    assert find_leaks(Prepared(prepared(tmp_path / "world", name, seed=1))) == []


# Histories


def slices(world: World, part: str) -> dict[str, np.ndarray]:
    """The rows of a part, and where each user's events begin and end."""
    rows, users = world.rows(part), world.rows("users")
    start = users["event_start"][rows["user_index"]]
    return rows | {"start": start, "end": start + users["event_count"][rows["user_index"]]}


@pytest.mark.parametrize(
    ("name", "part"),
    [
        *product(("temporal", "window", "by_user", "cold_users"), ("train", "valid", "test")),
        *product(("leave_last_out",), ("train", "valid")),  # nothing comes after what tests
    ],
)
def test_an_event_after_the_cut_in_a_history(world, name, part):
    spoiled = world(name)
    rows = slices(spoiled, part)
    # A negative has no event of its own that the longer history could hold, too.
    (row, *_) = np.flatnonzero((rows["label"] == 0) & (rows["history_stop"] < rows["end"]))
    spoiled.put(part, row, history_stop=rows["history_stop"][row] + 1)
    found = spoiled.only()
    assert f"{name}: {part}: 1 of {len(rows['label'])} examples have a history with an event at or after" in found
    user, item = (spoiled.read(f"{e}s")[e][int(rows[f"{e}_index"][row])].as_py() for e in ("user", "item"))
    assert f"such as user {user!r}, item {item!r}, time {rows['time'][row]})" in found


def test_a_late_event_in_the_middle_of_a_history(world):
    """Not only the newest event is looked at."""
    spoiled = world("random")
    events, rows = spoiled.rows("events"), slices(spoiled, "test")
    spoiled.put("events", first := int(rows["start"][0]), time=events["time"].max() + 1)
    wrong = (rows["start"] == first) & (rows["history_stop"] > first)
    assert wrong.sum() > 1
    expected = f"random: test: {wrong.sum()} of {len(wrong)} examples have a history with an event at or after"
    assert any(expected in found for found in spoiled.found())


@pytest.mark.parametrize("name", ["temporal", "by_user"])
def test_the_target_in_its_own_history(world, name):
    spoiled = world(name)
    rows, events = slices(spoiled, "test"), spoiled.rows("events")
    stop = rows["history_stop"].clip(max=len(events["time"]) - 1)
    own = (events["item_index"][stop] == rows["item_index"]) & (events["time"][stop] == rows["time"])
    (row, *_) = np.flatnonzero(own & (rows["label"] == 1) & (stop < rows["end"]))
    spoiled.put("test", row, history_stop=stop[row] + 1)
    assert f"{name}: test: 1 of {len(own)} examples have a history with the very event" in spoiled.only()


def test_all_events_of_the_targets_moment_in_its_history(world):
    """Its own event and others: two leaks."""
    spoiled = world("temporal")
    rows, events = slices(spoiled, "train"), spoiled.rows("events")
    now = np.array(
        [(events["time"][a:b] == t).sum() for a, b, t in zip(*(rows[c] for c in ("start", "end", "time")), strict=True)]
    )
    (row, *_) = np.flatnonzero((now > 1) & (rows["label"] == 1))
    spoiled.put("train", row, history_stop=rows["history_stop"][row] + now[row])
    late, own = spoiled.found()
    assert "1 of" in late
    assert "at or after" in late
    assert "1 of" in own
    assert "the very event" in own


def test_whole_histories_are_both(world):
    """Of two positives and more of one moment, each is too late for the other."""
    spoiled = world("leave_last_out")
    rows = slices(spoiled, "valid")
    spoiled.set("valid", "history_stop", rows["end"])
    late, own = spoiled.found()
    assert "at or after" in late
    assert f"{int(rows['label'].sum())} of {len(rows['label'])} examples have a history with the very event" in own


FOREIGN = "have a history that reaches beyond the user's own events"


def test_a_history_that_goes_on_with_the_next_user(world):
    spoiled = world("temporal")
    rows = slices(spoiled, "valid")
    (row, *_) = np.flatnonzero(rows["end"] < spoiled.rows("users")["event_start"].max())
    spoiled.put("valid", row, history_stop=rows["end"][row] + 1)
    assert f"temporal: valid: 1 of {len(rows['end'])} examples {FOREIGN}" in spoiled.only()


def test_a_history_that_begins_with_the_previous_user(world):
    spoiled = world("temporal")
    user = int(np.flatnonzero(spoiled.rows("users")["event_start"] > 0)[0])
    spoiled.put("users", user, event_start=spoiled.rows("users")["event_start"][user] - 1)
    of_user = {part: (spoiled.rows(part)["user_index"] == user) for part in ("train", "valid", "test")}
    expected = [f"{part}: {is_.sum()} of {len(is_)} examples {FOREIGN}" for part, is_ in of_user.items() if is_.any()]
    assert expected
    for told, found in zip(expected, spoiled.found(), strict=True):
        assert told in found


@pytest.mark.parametrize("name", ["random", "cold_items"])
def test_a_held_out_event_in_a_history_of_training_events(world, name):
    spoiled = world(name)
    rows, events, users = slices(spoiled, "train"), spoiled.rows("events"), spoiled.rows("users")
    trained = np.add.reduceat(np.append(events["stage"], 9) == 0, users["event_start"])
    first = (rows["start"] + trained[rows["user_index"]]).clip(max=len(events["time"]) - 1)
    is_last = rows["history_stop"] == rows["start"] + trained[rows["user_index"]]
    (row, *_) = np.flatnonzero(is_last & (first < rows["end"]) & (events["time"][first] < rows["time"]))
    spoiled.put("train", row, history_stop=first[row] + 1)
    assert f"{name}: train: 1 of {len(is_last)} examples have a history with a held-out event" in spoiled.only()


def test_a_history_without_times(world):
    spoiled = world("random, no time")
    rows = slices(spoiled, "train")
    (row, *_) = np.flatnonzero(rows["start"] < rows["end"])
    spoiled.put("train", row, history_stop=rows["start"][row] + 1)
    assert "train: 1 of" in (found := spoiled.only())
    assert "without times nothing is known to be earlier" in found


# Splits


@pytest.mark.parametrize(("part", "later"), [("train", "valid"), ("valid", "test")])
@pytest.mark.parametrize("name", ["temporal", "window"])
def test_an_example_beyond_the_cut(world, name, part, later):
    spoiled = world(name)
    spoiled.put(part, 3, time=(cut := spoiled.rows(later)["time"].min()))
    found = spoiled.only()
    assert f"{name}: {part}: 1 of" in found
    assert f"not earlier than the first example of {later}" in found
    assert f"at {cut} (such as" in found


@pytest.mark.parametrize(("part", "later"), [("train", "valid"), ("train", "test"), ("valid", "test")])
def test_a_held_out_event_that_is_not_the_last(world, part, later):
    spoiled = world("leave_last_out")
    rows, held = spoiled.rows(part), spoiled.rows(later)
    row = int(np.flatnonzero(np.isin(rows["user_index"], held["user_index"]))[0])
    spoiled.put(part, row, time=held["time"][held["user_index"] == rows["user_index"][row]].max() + 1)
    assert f"leave_last_out: {part}: 1 of" in (found := spoiled.only())
    assert "later than the same user's example" in found


def test_a_tie_is_no_violation_of_leave_last_out(world):
    spoiled = world("leave_last_out")
    rows, held = spoiled.rows("valid"), spoiled.rows("test")
    row = int(np.flatnonzero(np.isin(rows["user_index"], held["user_index"]))[0])
    spoiled.put("valid", row, time=held["time"][held["user_index"] == rows["user_index"][row]][0])
    assert spoiled.found() == []


@pytest.mark.parametrize(("part", "later"), [("train", "valid"), ("train", "test"), ("valid", "test")])
@pytest.mark.parametrize("name", ["by_user", "cold_users", "by_user, no time"])
def test_a_held_out_user_in_an_earlier_part(world, name, part, later):
    spoiled = world(name)
    user = spoiled.rows(part)["user_index"][0]
    times = len(np.flatnonzero(spoiled.rows(part)["user_index"] == user))
    spoiled.put(later, 0, user_index=user, history_stop=spoiled.rows("users")["event_start"][user])
    assert f"{name}: {part}: {times} of" in (found := spoiled.only())
    assert "users who are held out in" in found


@pytest.mark.parametrize(("part", "later"), [("train", "valid"), ("train", "test"), ("valid", "test")])
def test_a_held_out_item_in_an_earlier_part(world, part, later):
    spoiled = world("cold_items")
    item = spoiled.rows(part)["item_index"][0]
    times = len(np.flatnonzero(spoiled.rows(part)["item_index"] == item))
    row = int(np.flatnonzero(spoiled.rows(later)["time"] != spoiled.rows(part)["time"][0])[0])
    spoiled.put(later, row, item_index=item)
    assert f"cold_items: {part}: {times} of" in (found := spoiled.only())
    assert "items that are held out in" in found


# Copies


@pytest.mark.parametrize("part", ["valid", "test"])
def test_a_held_out_event_that_stands_in_training(world, part):
    spoiled = world("random")
    trained = {name: spoiled.rows("train")[name][7] for name in ("user_index", "item_index", "time", "history_stop")}
    spoiled.put(part, 5, **trained)
    assert f"random: {part}: 1 of" in (found := spoiled.only())
    assert "are copies of training examples, of the same user, item and time" in found
    spoiled.put(part, 5, time=trained["time"] + 1)  # the history is still sound
    assert spoiled.found() == []


@pytest.mark.parametrize("differs", [None, "user_index", "item_index", "device", "query", "hour", "number"])
def test_without_times_a_copy_is_alike_in_all_that_tells_events_apart(world, differs):
    spoiled = world("random, no time")
    train, test = spoiled.read("train").to_pylist(), spoiled.read("test").to_pylist()
    used = {name: {row[name] if name != "query" else tuple(row[name]) for row in train} for name in train[0]}
    trained = next(row for row in train if len(row["query"]) > 1)
    new = trained | {"label": test[4]["label"]}
    if differs == "query":
        new["query"] = [*trained["query"], 1]
    elif differs is not None:
        new[differs] = min(other for other in used[differs] if other != trained[differs])
    if differs == "user_index":
        new["history_stop"] = spoiled.rows("users")["event_start"][new["user_index"]]
    test[4] = new
    schema = spoiled.read("test").schema
    pq.write_table(pa.Table.from_pylist(test, schema), spoiled.path / "test" / "part-00000.parquet")
    if differs is None:
        assert "no time: test: 1 of" in (found := spoiled.only())
        assert "the same user, item, device, query, hour, basket, size, sizes, number" in found
    else:
        assert spoiled.found() == []
