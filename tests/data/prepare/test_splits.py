from __future__ import annotations

import numpy as np
import pytest

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
    times = {part: [row["time"] for row in result.examples(part)] for part in ("train", "valid", "test")}
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
    users = {part: {user for user, _ in result.pairs(part)} for part in ("train", "valid", "test")}
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
