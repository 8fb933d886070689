"""Examples that must have a history: `data.min_history`."""

from __future__ import annotations

import pytest

from recsys.errors import DataError, SchemaError

PARTS = ("train", "valid", "test")
LAST = {"split": {"kind": "leave_last_out"}}
ID = {"id": {"kind": "categorical", "role": "item", "column": "item"}}


def test_events_before_it_are_known_and_no_examples(run, line):
    result = run(line, ID, min_history=3)
    assert result.pairs("train") == [("u", f"i{n}") for n in range(3, 8)]
    assert result.pairs("valid") + result.pairs("test") == [("u", "i8"), ("u", "i9")]
    assert [item for _, item, _ in result.events] == [f"i{n}" for n in range(10)]
    assert result.histories()["u", "i3"] == ["i0", "i1", "i2"]
    assert result.vocabulary("id") == [(f"i{n}", 1) for n in range(8)]
    assert [result.items[f"i{n}"]["train_count"] for n in range(10)] == [1] * 8 + [0] * 2
    counts = result.info.counts
    assert (counts.train, counts.valid, counts.test, counts.events) == (5, 1, 1, 10)


def test_one_and_leave_last_out_are_the_protocol_of_din(run):
    """Of n events 2 .. n-2 train, n-1 validates, n tests."""
    log = {"user": [*"aaaaa", *"bbb", *"cc"], "item": [*"vwxyz", *"xyz", *"wx"], "time": [1, 2, 3, 4, 5, 1, 2, 3, 1, 2]}
    result = run(log, **LAST, min_history=1)
    assert result.pairs("train") == [("a", "w"), ("a", "x"), ("c", "x")]  # c has too few to be held out
    assert result.pairs("valid") == [("a", "y"), ("b", "y")]
    assert result.pairs("test") == [("a", "z"), ("b", "z")]


def test_events_of_one_moment_are_no_history_of_each_other(run):
    log = {"user": ["u"] * 6, "item": [*"abcdef"], "time": [1, 1, 2, 2, 3, 4]}
    assert run(log, **LAST, min_history=2).pairs("train") == [("u", "c"), ("u", "d")]
    with pytest.raises(DataError, match=r"data\.min_history: 3, and in the train part of the leave_last_out split"):
        run(log, **LAST, min_history=3)


RULES = {"positives": {"column": "liked", "one_of": [1]}, "negatives": {"column": "liked", "one_of": [0]}}


def test_a_negative_with_too_short_a_history_is_no_event(run):
    """n0 comes before two likes, n1 after: the history holds likes alone."""
    names = ["n0", "a", "n0", "b", "n1", "c", "d", "e"]
    log = {"user": ["u"] * 8, "item": names, "time": range(8), "liked": [0, 1, 0, 1, 0, 1, 1, 1]}
    result = run(log, ID, **LAST, **RULES, min_history=2)
    assert [(row["item"], row["label"]) for row in sorted(result.examples("train"), key=lambda row: row["time"])] == [
        ("n1", 0.0),
        ("c", 1.0),
    ]
    assert result.vocabulary("id") == [("a", 1), ("b", 1), ("c", 1), ("n1", 1)]


def test_context_is_learned_from_examples(run, line):
    """What is said of an event that is no example is never looked at; users and items are counted by events."""
    log = {**line, "place": ["x", "x", *"yyyzzzzz"], "hour": [100, 100, 1, 2, 3, 4, 5, 6, 7, 8]}
    features = ID | {
        "place": {"kind": "categorical", "role": "context"},
        "hour": {"kind": "numeric", "role": "context"},
    }
    result = run(log, features, min_history=2)
    assert result.vocabulary("place") == [("y", 3), ("z", 3)]
    assert result.info.features["hour"].mean == pytest.approx(3.5)
    assert len(result.vocabulary("id")) == 8


def test_after_a_random_split_training_events_count(run):
    log = {"user": ["u"] * 100, "item": [f"i{n:02}" for n in range(100)], "time": range(100)}
    split = {"kind": "random", "valid": 0.25, "test": 0.25}
    everything, result = run(log, split=split), run(log, split=split, min_history=10)
    trained = sorted(item for _, item, stage in everything.events if stage == 0)
    for part in PARTS:
        expected = [pair for pair in everything.pairs(part) if pair[1] > trained[9]]
        assert result.pairs(part) == expected
    assert len(everything.pairs("test")) > len(result.pairs("test"))


def test_a_part_without_any(run, line):
    with pytest.raises(DataError) as caught:
        run(line, min_history=9)
    first, second = caught.value.problems
    assert first.place == second.place == "data.min_history"
    assert "9, and in the train part of the temporal split no event" in first.found
    assert "the valid part" in second.found
    assert "lower it" in first.cure


def test_no_history_without_time(run, line):
    with pytest.raises(SchemaError) as caught:
        run(line, schema={"timestamp": None}, split={"kind": "random"}, min_history=1)
    assert "data.min_history" in str(caught.value)
    assert "schema.timestamp" in str(caught.value)
