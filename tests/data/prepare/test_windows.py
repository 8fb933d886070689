"""A temporal split whose window ends before the log does, and whose training does not begin with it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import count

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from recsys.data.config import DataConfig, DuckDBEngine, TemporalSplit
from recsys.data.prepare.engine import Runner, start
from recsys.data.prepare.splits import Moments
from recsys.data.prepared import Prepared
from recsys.errors import DataError

TRAIN, VALID, TEST, CONTEXT = range(4)
LOGS = count()
TIES = {"user": ["u"] * 10, "item": list("abcdefghij"), "time": [1, 2, 3, 4, 5, 6, 6, 7, 7, 9]}
ID = {"id": {"kind": "categorical", "role": "item", "column": "item"}}


def stages(result):
    """The items of each stage."""
    found = {}
    for _, item, stage in result.events:
        found.setdefault(stage, []).append(item)
    return {stage: "".join(items) for stage, items in found.items()}


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        # Nine of ten events are known; seven come before the test part, five before the validation.
        ({"held_back": 0.1}, {TRAIN: "abcde", VALID: "fg", TEST: "hi"}),
        # The eighth event shares its moment with the ninth, which is held back; the sixth with the seventh.
        ({"held_back": 0.2}, {TRAIN: "abcd", VALID: "e", TEST: "fg"}),
        # Of the six events before the validation by their share, half: from the fourth on.
        ({"train": 0.5}, {CONTEXT: "abc", TRAIN: "de", VALID: "fg", TEST: "hij"}),
        ({"train": 0.5, "held_back": 0.2}, {CONTEXT: "ab", TRAIN: "cd", VALID: "e", TEST: "fg"}),
    ],
)
def test_parts_by_hand(run, shares, expected):
    result = run(TIES, split={"kind": "temporal", "valid": 0.2, "test": 0.2, **shares})
    assert stages(result) == expected
    assert result.info.counts.held_back == 10 - sum(map(len, expected.values()))
    for part, stage in (("train", TRAIN), ("valid", VALID), ("test", TEST)):
        assert [item for _, item in result.pairs(part)] == list(expected[stage])


def test_the_first_training_events_of_one_moment_stay_together(run, line):
    log = {**line, "time": [1, 1, 2, 2, 3, 4, 5, 6, 7, 8]}
    result = run(log, split={"kind": "temporal", "train": 0.625})
    # Five of eight would train, but the fourth event shares its moment with the third.
    assert [item for _, item in result.pairs("train")] == ["i2", "i3", "i4", "i5", "i6", "i7"]


FUTURE = {
    "user": ["u"] * 8 + ["later", "later"],
    "item": ["a", "b", "c", "d", "e", "f", "g", "h", "new", "a"],
    "time": list(range(10)),
    "price": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 1e6, 1e6],
    "rating": [5, 5, 5, 5, 5, 5, 5, 5, 5, 1],
}
HELD_BACK = {"kind": "temporal", "held_back": 0.2}


def test_what_is_held_back_stands_nowhere(run):
    rules = {"positives": {"column": "rating", "at_least": 4}, "negatives": {"column": "rating", "at_most": 2}}
    features = ID | {"price": {"kind": "numeric", "role": "context"}}
    result = run(FUTURE, features, split=HELD_BACK, **rules)
    assert list(result.items) == list("abcdefgh")
    assert list(result.users) == ["u"]
    assert result.vocabulary("id") == [(item, 1) for item in "abcdef"]
    assert result.items["a"]["train_count"] == 1
    assert result.info.features["price"].mean == 3.5
    assert (result.info.counts.dropped, result.info.counts.held_back, result.info.counts.events) == (0, 2, 8)


def test_the_items_table_may_know_an_item_of_the_future(run):
    result = run(FUTURE, ID, items={"item": ["new", "never"]}, split=HELD_BACK)
    assert list(result.items) == [*"abcdefgh", "never", "new"]
    assert result.items["new"]["train_count"] == 0


def test_older_events_are_known_but_do_not_train(run, line):
    log = {**line, "rating": [5, 1, 5, 5, 5, 1, 5, 5, 5, 5], "price": [1e6] * 4 + [1.0, 2.0, 3.0, 4.0, 9.0, 9.0]}
    rules = {"positives": {"column": "rating", "at_least": 4}, "negatives": {"column": "rating", "at_most": 2}}
    features = ID | {"price": {"kind": "numeric", "role": "context"}}
    result = run(log, features, split={"kind": "temporal", "train": 0.5}, **rules)
    # Of eight events before the validation, the four newest train; of the older, i1 is negative and stands nowhere.
    assert [(item, stage) for _, item, stage in result.events] == [
        *((f"i{n}", CONTEXT) for n in (0, 2, 3)),
        *((f"i{n}", TRAIN) for n in (4, 6, 7)),
        ("i8", VALID),
        ("i9", TEST),
    ]
    assert result.pairs("train") == [("u", f"i{n}") for n in (4, 5, 6, 7)]
    assert result.histories()["u", "i4"] == ["i0", "i2", "i3"]
    assert result.histories()["u", "i9"] == ["i0", "i2", "i3", "i4", "i6", "i7", "i8"]
    assert {item for item, row in result.items.items() if row["train_count"]} == {"i4", "i6", "i7"}
    assert {item for item, _ in result.vocabulary("id")} == {"i4", "i5", "i6", "i7"}
    assert result.info.features["price"].mean == 2.5

    prepared = Prepared(result.folder)
    held_out = prepared.held_out("test")
    assert [result.rows("items")[n]["item"] for n in held_out.seen.values] == [f"i{n}" for n in (0, 2, 3, 4, 6, 7, 8)]


def test_nothing_positive_before_what_is_held_back(run, line):
    log = {**line, "time": [1] * 10}
    with pytest.raises(DataError, match=r"no event before those held back is positive.*lower data\.split\.held_back"):
        run(log, split={"kind": "temporal", "held_back": 0.1})


def test_shares_leave_something_to_train_on():
    split = {"kind": "temporal", "valid": 0.1, "test": 0.2}
    source = {"kind": "files", "events": "e.parquet"}
    assert DataConfig.model_validate({"source": source, "split": {**split, "held_back": 0.6}})
    with pytest.raises(ValidationError, match="valid, test and held_back are 1 together"):
        DataConfig.model_validate({"source": source, "split": {**split, "held_back": 0.7}})


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    with start(DuckDBEngine(), tmp_path_factory.mktemp("engine")) as engine:
        yield engine


@settings(max_examples=40)
@given(
    times=st.lists(st.integers(0, 30), min_size=1, max_size=60),
    test=st.sampled_from([0.05, 0.1, 0.15, 0.2]),
    valid=st.sampled_from([0.05, 0.1, 0.2]),
)
def test_windows_are_adjacent_and_do_not_overlap(runner: Runner, times: list[int], test: float, valid: float) -> None:
    """Whatever the ties: where one window's test part ends, the next one's begins."""
    events, windows = runner.put(f"log_{next(LOGS)}", pa.table({"time": times})), 3
    splits = [
        TemporalSplit(kind="temporal", valid=valid, test=test, held_back=round(later * test, 12) or None)
        for later in reversed(range(windows))
    ]
    found = [Moments.of(runner, events, split) for split in splits]
    assert [each.end for each in found] == [each.test for each in found[1:]] + [None]
    for each, split in zip(found, splits, strict=True):
        assert each.valid <= each.test
        newest = np.sort(times)[::-1]
        share = len(times) * ((split.held_back or 0.0) + test)
        # As many events as the share says, rounded, and those of the moment of the last of them.
        assert sum(newest >= each.test) >= math.floor(share + 1e-9)
        assert sum(newest > each.test) <= max(math.ceil(share - 1e-9), 1)
