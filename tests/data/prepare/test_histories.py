from __future__ import annotations

import numpy as np
import pytest

LOG = {
    "user": ["a", "a", "a", "a", "a", "b", "b", "b"],
    "item": ["w", "x", "y", "z", "v", "y", "w", "x"],
    "time": [1, 2, 2, 3, 3, 1, 4, 4],
}
STRICTLY_BEFORE = {
    ("a", "w"): [],
    ("a", "x"): ["w"],
    ("a", "y"): ["w"],
    ("a", "z"): ["w", "x", "y"],
    ("a", "v"): ["w", "x", "y"],
    ("b", "y"): [],
    ("b", "w"): ["y"],
    ("b", "x"): ["y"],
}


@pytest.mark.parametrize("split", [{"kind": "temporal", "valid": 0.25, "test": 0.25}, {"kind": "leave_last_out"}])
def test_history_is_what_came_strictly_before(run, split):
    assert run(LOG, split=split).histories() == STRICTLY_BEFORE


def test_events_stand_by_user_time_and_item(run):
    result = run(LOG, split={"kind": "leave_last_out"})
    # Items v < z at time 3, though the file has them the other way.
    assert [(user, item) for user, item, _ in result.events] == [
        ("a", "w"), ("a", "x"), ("a", "y"), ("a", "v"), ("a", "z"), ("b", "y"), ("b", "w"), ("b", "x"),
    ]  # fmt: skip
    assert [stage for _, _, stage in result.events] == [0, 0, 0, 1, 2, 0, 1, 2]
    assert {u: (row["event_start"], row["event_count"]) for u, row in result.users.items()} == {
        "a": (0, 5),
        "b": (5, 3),
    }


def test_negatives_see_histories_but_are_not_in_them(run):
    log = {
        "user": ["u"] * 6,
        "item": list("abcdef"),
        "time": [1, 2, 2, 3, 4, 5],
        "click": [1, 0, 1, 0, 1, 1],
    }
    rules = {"positives": {"column": "click", "one_of": [1]}, "negatives": {"column": "click", "one_of": [0]}}
    result = run(log, split={"kind": "leave_last_out"}, **rules)
    assert result.histories() == {
        ("u", "a"): [],
        ("u", "b"): ["a"],
        ("u", "c"): ["a"],
        ("u", "d"): ["a", "c"],
        ("u", "e"): ["a", "c"],
        ("u", "f"): ["a", "c", "e"],
    }
    assert [item for _, item, _ in result.events] == list("acef")


@pytest.mark.parametrize("kind", ["random", "cold_items"])
def test_where_others_are_held_out_histories_hold_training_events_only(run, kind):
    rng = np.random.default_rng(3)
    log = {
        "user": rng.integers(0, 20, 600),
        "item": rng.permutation(600),
        "time": rng.integers(0, 12, 600),
    }
    result = run(log, split={"kind": kind, "valid": 0.2, "test": 0.2})
    trained = set(result.pairs("train"))
    times = {(str(u), str(i)): t for u, i, t in zip(log["user"], log["item"], log["time"], strict=True)}
    for (user, item), history in result.histories().items():
        earlier = {other for u, other in trained if u == user and times[u, other] < times[user, item]}
        assert set(history) == earlier
        assert [times[user, other] for other in history] == sorted(times[user, other] for other in history)
    # In the user's part the training events come first.
    for user in result.users:
        held_out = [stage > 0 for owner, _, stage in result.events if owner == user]
        assert held_out == sorted(held_out)


@pytest.mark.parametrize("kind", ["temporal", "leave_last_out", "by_user", "cold_users"])
def test_no_history_reaches_its_own_moment(run, kind):
    rng = np.random.default_rng(4)
    log = {"user": rng.integers(0, 40, 800), "item": rng.permutation(800), "time": rng.integers(0, 15, 800)}
    result = run(log, split={"kind": kind})
    times = {(str(u), str(i)): t for u, i, t in zip(log["user"], log["item"], log["time"], strict=True)}
    owned: dict[str, list[str]] = {}
    for user, item in times:
        owned.setdefault(user, []).append(item)
    for (user, item), history in result.histories().items():
        assert set(history) == {other for other in owned[user] if times[user, other] < times[user, item]}


def test_without_times_every_history_is_empty(run):
    log = {"user": ["a", "b"] * 100, "item": list(range(200))}
    result = run(log, split={"kind": "random"}, schema={"timestamp": None})
    assert not any(result.histories().values())
    assert "time" not in result.table("train/part-00000").column_names
    assert not result.info.has_time
