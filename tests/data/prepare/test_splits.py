from __future__ import annotations

import hashlib

import numpy as np
import pytest

from recsys.data.dataset import STAGES
from recsys.data.prepared import Prepared

PARTS = ("train", "valid", "test")
TIES = {
    "user": ["u"] * 10,
    "item": list("abcdefghij"),
    "time": [1, 2, 3, 4, 5, 6, 6, 7, 7, 9],
}


def test_temporal_cuts_by_share_of_events(run, line):
    result = run(line)
    assert result.pairs("valid") == [("u", "i8")]
    assert result.pairs("test") == [("u", "i9")]
    assert len(result.pairs("train")) == 8


def test_temporal_keeps_equal_times_together(run):
    result = run(TIES, split={"kind": "temporal", "valid": 0.2, "test": 0.2})
    # Six of ten would train, but the sixth shares its moment with the seventh; so do the eighth and the ninth.
    assert [item for _, item in result.pairs("train")] == list("abcde")
    assert [item for _, item in result.pairs("valid")] == list("fg")
    assert [item for _, item in result.pairs("test")] == list("hij")


def test_temporal_cut_is_one_moment_for_all_users(run):
    rng = np.random.default_rng(0)
    log = {"user": rng.integers(0, 30, 400), "item": rng.integers(0, 50, 400), "time": rng.integers(0, 60, 400)}
    result = run(log)
    times = {part: [row["time"] for row in result.examples(part)] for part in PARTS}
    assert max(times["train"]) < min(times["valid"])
    assert max(times["valid"]) < min(times["test"])
    assert 40 <= len(times["test"]) <= 40 + 400 / 60 * 3


def test_leave_last_out_and_users_with_too_few_events(run):
    log = {
        "user": ["a", "a", "a", "a", "b", "b", "c", "c", "c"],
        "item": ["w", "z", "x", "y", "w", "x", "x", "y", "z"],
        "time": [1, 4, 2, 3, 1, 2, 9, 8, 7],
    }
    result = run(log, split={"kind": "leave_last_out"})
    assert result.pairs("test") == [("a", "z"), ("c", "x")]
    assert result.pairs("valid") == [("a", "y"), ("c", "y")]
    assert result.pairs("train") == [("a", "w"), ("a", "x"), ("b", "w"), ("b", "x"), ("c", "z")]


def test_leave_last_out_breaks_ties_by_item_text(run):
    # As text "10" < "9"; as numbers it would be the other way round. The file's order must not matter.
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        log = {"user": ["u"] * 4, "item": [[7, 10, 9, 8][n] for n in order], "time": [[1, 2, 2, 2][n] for n in order]}
        result = run(log, split={"kind": "leave_last_out"})
        assert result.pairs("test") == [("u", "9")]
        assert result.pairs("valid") == [("u", "8")]


def test_leave_last_out_counts_negatives_too(run):
    log = {"user": ["u"] * 4, "item": list("abcd"), "time": [1, 2, 3, 4], "rating": [5, 5, 5, 1]}
    rules = {"positives": {"column": "rating", "at_least": 4}, "negatives": {"column": "rating", "at_most": 2}}
    result = run(log, split={"kind": "leave_last_out"}, **rules)
    assert [(row["item"], row["label"]) for row in result.examples("test")] == [("d", 0.0)]
    assert [(row["item"], row["label"]) for row in result.examples("valid")] == [("c", 1.0)]


@pytest.fixture
def many():
    rng = np.random.default_rng(1)
    return {"user": rng.integers(0, 300, 6000), "item": rng.integers(0, 40, 6000), "time": rng.integers(0, 99, 6000)}


def test_random_shares_and_independence_of_the_file_order(run, many):
    split = {"kind": "random", "valid": 0.1, "test": 0.2}
    result = run(many, split=split)
    counts = result.info.counts
    assert counts.train + counts.valid + counts.test == 6000
    assert abs(counts.valid - 600) < 4 * np.sqrt(6000 * 0.09)
    assert abs(counts.test - 1200) < 4 * np.sqrt(6000 * 0.16)

    order = np.random.default_rng(2).permutation(6000)
    shuffled = run({name: column[order] for name, column in many.items()}, split=split)
    assert shuffled.table("train/part-00000").equals(result.table("train/part-00000"))
    other_seed = run(many, split=split, seed=1)
    assert other_seed.pairs("test") != result.pairs("test")


def test_random_decides_each_copy_of_an_event_by_itself(run):
    result = run({"user": ["u"] * 1000, "item": ["i"] * 1000, "time": [1] * 1000}, split={"kind": "random"})
    assert 60 < result.info.counts.valid < 140
    assert 60 < result.info.counts.test < 140


def test_random_does_not_depend_on_other_events(run, many):
    whole = run(many, split={"kind": "random"}, schema={"timestamp": None})
    half = run({k: v[:3000] for k, v in many.items()}, split={"kind": "random"}, schema={"timestamp": None})
    tested = whole.pairs("test") + whole.pairs("valid")
    assert set(half.pairs("test") + half.pairs("valid")) <= set(tested)


def test_by_user_holds_out_whole_users(run, many):
    result = run(many, split={"kind": "by_user", "valid": 0.2, "test": 0.2, "targets": 0.25})
    users = {part: {user for user, _ in result.pairs(part)} for part in PARTS}
    assert not users["train"] & (users["valid"] | users["test"])
    assert not users["valid"] & users["test"]
    assert len(users["train"] | users["valid"] | users["test"]) == 300
    assert 35 < len(users["test"]) < 90

    stage = {user: [s for owner, _, s in result.events if owner == user] for user in users["test"]}
    for user, stages in stage.items():
        targets = -(-len(stages) // 4)  # a quarter, rounded up
        assert stages == [3] * (len(stages) - targets) + [2] * targets, user
    # What came before the targets is history and never an example.
    first = result.examples("test")[0]
    assert first["history"]
    assert len(result.examples("test")) == sum(stages.count(2) for stages in stage.values())


def test_by_user_without_times_takes_any_targets(run, many):
    result = run(many, split={"kind": "by_user"}, schema={"timestamp": None})
    users = result.users
    targets = {}
    for user, _ in result.pairs("test"):
        targets[user] = targets.get(user, 0) + 1
    assert targets == {user: -(-users[user]["event_count"] // 5) for user in targets}
    # By digest, not by item: were they the last by item text, single-digit item "9" would be among them far too often.
    items = [item for _, item in result.pairs("test")]
    assert items.count("9") < 5 * max(1, items.count("1"))


def part_of(name, valid=0.1, test=0.1, seed=0):
    """The part that a held-out user or item is in: by the first 48 bits of an MD5."""
    place = int(hashlib.md5(f"{seed}\x1f{name}".encode()).hexdigest()[:12], 16) / 16**12
    return "test" if place < test else "valid" if place < valid + test else "train"


def named(part, count, **shares):
    """The first ids, of n0, n1, ..., that are in a part."""
    return [name for name in map("n{}".format, range(10_000)) if part_of(name, **shares) == part][:count]


SHARES = {"valid": 0.2, "test": 0.2}


@pytest.mark.parametrize("seed", [0, 1])
def test_cold_users_hold_out_whole_users_with_all_their_events(run, many, seed):
    result = run(many, split={"kind": "cold_users", **SHARES}, seed=seed)
    assert [(user, stage) for user, _, stage in result.events] == [
        (user, STAGES[part_of(user, **SHARES, seed=seed)]) for user, _, _ in result.events
    ]
    for part in PARTS:
        assert len(result.pairs(part)) == sum(stage == STAGES[part] for _, _, stage in result.events)
    assert result.info.counts.events == 6000
    cold = {user for user, _ in result.pairs("test")}
    assert 35 < len(cold) < 90
    # No user of the test part is known to the training, in any form.
    known = run(
        many, {"id": {"kind": "categorical", "role": "user", "column": "user"}}, split={"kind": "cold_users", **SHARES}
    )
    assert {user for user, _ in known.vocabulary("id")} == {user for user, _ in known.pairs("train")}


def test_cold_users_are_asked_for_before_their_first_event(run):
    (cold,), (warm,), (other,) = named("test", 1), named("train", 1), named("valid", 1)
    log = {
        "user": [cold] * 4 + [warm, other],
        "item": list("abcdab"),
        "time": [1, 1, 2, 3, 1, 1],
        "click": [1, 1, 0, 1, 1, 1],
    }
    rules = {"positives": {"column": "click", "one_of": [1]}, "negatives": {"column": "click", "one_of": [0]}}
    features = {
        "id": {"kind": "categorical", "role": "item", "column": "item"},
        "recent": {"kind": "sequence", "of": "id", "max_length": 5},
    }
    result = run(log, features, split={"kind": "cold_users"}, **rules)
    assert {item: history for (user, item), history in result.histories().items() if user == cold} == {
        "a": [],
        "b": [],
        "c": ["a", "b"],  # negative, and an example all the same
        "d": ["a", "b"],
    }
    held_out = Prepared(result.folder).held_out("test")
    assert held_out.query["recent"].tolist() == [[0] * 5]
    assert held_out.relevant.values.tolist() == [0, 1, 3]
    assert held_out.seen.lengths.tolist() == [0]


def test_cold_items_by_hand(run):
    (a, b), (v,), (x, y) = named("train", 2), named("valid", 1), named("test", 2)
    log = {"user": ["u"] * 6, "item": [y, v, b, x, a, a], "time": [4, 3, 2, 2, 1, 5]}
    result = run(log, split={"kind": "cold_items"})
    rows = [(row["item"], row["time"], row["history"]) for part in PARTS for row in result.examples(part)]
    assert sorted(rows) == sorted(
        [
            (a, 1, []),
            (x, 2, [a]),
            (b, 2, [a]),
            (v, 3, [a, b]),
            (y, 4, [a, b]),  # neither the other held-out items, nor what shares their moment
            (a, 5, [a, b]),
        ]
    )
    assert [(item, stage) for _, item, stage in result.events] == [(a, 0), (b, 0), (a, 0), (x, 2), (v, 1), (y, 2)]
    names = result.table("items")["item"].to_pylist()
    held_out = Prepared(result.folder).held_out("test")
    assert {names[n] for n in held_out.relevant.values} == {x, y}
    assert {names[n] for n in held_out.seen.values} == {a, b, v}


@pytest.mark.parametrize("timestamp", ["time", None])
def test_cold_items_hold_out_whole_items(run, many, timestamp):
    log = {**many, "item": np.random.default_rng(5).integers(0, 200, 6000)}
    item_id = {"id": {"kind": "categorical", "role": "item", "column": "item"}}
    result = run(log, item_id, split={"kind": "cold_items", **SHARES}, schema={"timestamp": timestamp}, seed=3)
    for part in PARTS:
        assert {part_of(item, **SHARES, seed=3) for _, item in result.pairs(part)} == {part}
    assert sum(len(result.pairs(part)) for part in PARTS) == 6000
    trained = {item for _, item in result.pairs("train")}
    assert 90 < len(trained) < 150
    assert {item for item, row in result.items.items() if row["train_count"]} == trained
    assert {item for item, _ in result.vocabulary("id")} == trained
    histories = result.histories().values()
    assert {item for history in histories for item in history} == (trained if timestamp else set())
