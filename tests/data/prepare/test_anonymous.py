"""Logs that name no user, no item, or neither."""

from __future__ import annotations

import importlib.util
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from recsys.data.prepared import Prepared
from recsys.errors import SchemaError
from recsys.evaluation.leakage import find_leaks

NEITHER = {"user": None, "item": None, "timestamp": None}
RANDOM = {"kind": "random", "valid": 0.2, "test": 0.2}
ROWS = 500
CLICKS = {"positives": {"column": "click", "at_least": 1}, "negatives": {"column": "click", "at_most": 0}}


def clicks(rows: int = ROWS, seed: int = 0) -> dict[str, list]:
    """Every line is told apart by its number."""
    rng = np.random.default_rng(seed)
    return {
        "user": [f"u{n}" for n in rng.integers(0, 9, rows)],
        "item": [f"i{n}" for n in rng.integers(0, 7, rows)],
        "time": rng.integers(0, 100, rows).tolist(),
        "click": rng.integers(0, 2, rows).tolist(),
        "place": [f"p{n}" for n in rng.integers(0, 4, rows)],
        "line": list(range(rows)),
    }


FEATURES = {
    "place": {"kind": "categorical", "role": "context"},
    "line": {"kind": "numeric", "role": "context"},
}


def parts(result) -> dict[str, list[dict]]:
    return {part: result.rows(f"{part}/part-00000") for part in ("train", "valid", "test")}


def test_of_neither_there_are_no_tables_and_no_columns(run):
    log = clicks()
    result = run(log, FEATURES, schema=NEITHER, split=RANDOM, **CLICKS)
    assert result.rows("users") == result.rows("items") == result.rows("events/part-00000") == []
    counts = result.info.counts
    assert (counts.users, counts.items, counts.events) == (0, 0, 0)
    rows = parts(result)
    assert set(rows["train"][0]) == {"label", "weight", "history_stop", "place", "line"}
    everything = sorted((row["line"], row["label"]) for part in rows.values() for row in part)
    assert everything == [(float(n), float(click)) for n, click in enumerate(log["click"])], "each line once"
    assert {row["history_stop"] for part in rows.values() for row in part} == {0}
    shares = [len(rows[part]) / ROWS for part in rows]
    assert np.allclose(shares, [0.6, 0.2, 0.2], atol=0.08)
    assert [row["line"] for row in rows["train"]] != sorted(row["line"] for row in rows["train"]), "mixed"
    place = [row["place"] for row in rows["train"]]
    assert result.vocabulary("place") == sorted(
        ((f"p{n}", count) for n in range(4) if (count := log_count(log, rows["train"], f"p{n}"))),
        key=lambda pair: (-pair[1], pair[0]),
    )
    assert min(place) == 2
    assert find_leaks(Prepared(result.folder)) == []


def log_count(log, rows, value) -> int:
    return sum(log["place"][int(row["line"])] == value for row in rows)


def test_the_parts_do_not_depend_on_the_order_of_the_lines(run):
    log = clicks()
    order = np.random.default_rng(1).permutation(ROWS)
    shuffled = {name: [column[n] for n in order] for name, column in log.items()}
    one, other = (run(each, FEATURES, schema=NEITHER, split=RANDOM, **CLICKS) for each in (log, shuffled))
    assert parts(one) == parts(other)


def test_equal_lines_are_drawn_one_by_one_and_are_no_leak(run):
    """Nobody knows whether they are copies or equal clicks of two people; the published splits part them, too."""
    log = {"click": [0, 1] * 200, "place": ["p"] * 400}
    result = run(log, {"place": FEATURES["place"]}, schema=NEITHER, split=RANDOM, **CLICKS)
    sizes = [len(rows) for rows in parts(result).values()]
    assert sum(sizes) == 400
    assert np.allclose(np.array(sizes) / 400, [0.6, 0.2, 0.2], atol=0.08)
    assert find_leaks(Prepared(result.folder)) == []


@pytest.mark.parametrize(("threshold", "known"), [(3, ["a", "b"]), (4, ["a"]), (5, [])])
def test_a_value_is_rare_below_the_threshold_in_training(run, threshold, known):
    """`b` stands in three training rows and two held-out ones, `a` in four."""
    places = ["a", "b", "a", "b", "a", "b", "a", "c", "b", "b"]
    log = {"click": [0, 1] * 5, "time": list(range(10)), "place": places}
    features = {"place": {**FEATURES["place"], "encoding": {"min_count": threshold}}}
    result = run(log, features, schema={"user": None, "item": None}, **CLICKS)
    assert [value for value, _ in result.vocabulary("place")] == known
    ids = {"a": 2 if "a" in known else 1, "b": 3 if "b" in known else 1, "c": 1}
    rows = [row for part in parts(result).values() for row in part]
    assert [row["place"] for row in sorted(rows, key=lambda row: row["time"])] == [ids[place] for place in places]


def test_a_temporal_split_needs_nobody(run):
    result = run(clicks(), FEATURES, schema={"user": None, "item": None}, **CLICKS)
    times = {part: [row["time"] for row in rows] for part, rows in parts(result).items()}
    assert max(times["train"]) < min(times["valid"])
    assert max(times["valid"]) < min(times["test"])
    assert find_leaks(Prepared(result.folder)) == []


def test_items_alone_have_counts_and_features_but_no_events(run):
    log = clicks()
    features = {**FEATURES, "iid": {"kind": "categorical", "role": "item", "column": "item"}}
    features["price"] = {"kind": "numeric", "role": "item"}
    items = {"item": [f"i{n}" for n in range(8)], "price": [1.0, 2.0, 3.0, None, 5.0, 6.0, 7.0, 8.0]}
    schema = {"user": None, "timestamp": None}
    result = run(log, features, items=items, schema=schema, split=RANDOM, **CLICKS)
    assert result.rows("users") == result.rows("events/part-00000") == []
    train = parts(result)["train"]
    ids = result.table("items")["item"].to_pylist()
    assert [ids[row["item_index"]] for row in train] == [log["item"][int(row["line"])] for row in train]
    positive = [ids[row["item_index"]] for row in train if row["label"]]
    assert {item: row["train_count"] for item, row in result.items.items()} == {i: positive.count(i) for i in ids}
    assert find_leaks(Prepared(result.folder)) == []


def test_users_alone_have_features_but_no_events(run):
    log = clicks()
    features = {**FEATURES, "uid": {"kind": "categorical", "role": "user", "column": "user"}}
    result = run(log, features, schema={"item": None}, split={"kind": "by_user", "valid": 0.3, "test": 0.3}, **CLICKS)
    assert result.rows("items") == result.rows("events/part-00000") == []
    users = result.rows("users")
    assert {(row["event_start"], row["event_count"]) for row in users} == {(0, 0)}
    rows = parts(result)
    owners = {part: {users[row["user_index"]]["user"] for row in each} for part, each in rows.items()}
    assert not owners["test"] & owners["train"]
    assert all(
        users[row["user_index"]]["user"] == log["user"][int(row["line"])] for part in rows.values() for row in part
    )
    assert find_leaks(Prepared(result.folder)) == []


def test_leaks_are_found_without_users_too(run):
    result = run(clicks(), FEATURES, schema=NEITHER, split=RANDOM, **CLICKS)
    path = result.folder / "test" / "part-00000.parquet"
    table = pq.read_table(path)
    stops = table["history_stop"].to_numpy().copy()
    stops[3] = 2
    pq.write_table(table.set_column(table.column_names.index("history_stop"), "history_stop", [stops]), path)
    path = result.folder / "vocab" / "place.parquet"
    vocabulary = pq.read_table(path)
    counts = vocabulary["count"].to_numpy() + 1
    pq.write_table(vocabulary.set_column(1, "count", [counts]), path)
    history, statistic = map(str, find_leaks(Prepared(result.folder)))
    assert "test: 1 of" in history
    assert "does not name both users and items" in history
    assert "4 of 4 counts are not those of the training part" in statistic


@pytest.mark.parametrize(
    ("schema", "data", "said"),
    [
        ({"user": None}, {"split": {"kind": "leave_last_out"}}, "leave_last_out, for which schema.user is null"),
        ({"user": None}, {"split": {"kind": "cold_users"}}, "data.split.kind: cold_users, for which schema.user"),
        ({"item": None}, {"split": {"kind": "cold_items"}}, "cold_items, for which schema.item is null"),
        ({"user": None}, {"min_history": 2}, "data.min_history: a history, for which schema.user is null"),
        (NEITHER, {"split": RANDOM, "min_history": 2}, "schema.user and schema.item and schema.timestamp is null"),
    ],
)
def test_what_needs_users_or_items_is_refused(run, schema, data, said):
    with pytest.raises(SchemaError, match="; name it, or ") as caught:
        run(clicks(), FEATURES, schema=schema, **{**CLICKS, **data})
    assert said in str(caught.value)


def test_a_table_of_users_whom_the_log_does_not_name_is_refused(run):
    with pytest.raises(SchemaError, match=r"data.source.users: a table of users, but schema.user is null; .*leave the"):
        run(clicks(), FEATURES, users={"user": ["u1"]}, schema={"user": None}, **CLICKS)


@pytest.mark.system
def test_spark_writes_the_same(run, require):
    """Copies of lines, and lines that differ in numbers alone, among them."""
    require(importlib.util.find_spec("pyspark"), "the extra recsys[spark] is not installed")
    require(shutil.which("java"), "there is no Java runtime")
    log = clicks(300)
    log = {name: column + column[:90] for name, column in log.items()}
    number = {"kind": "numeric", "role": "context", "column": "time", "transform": "log_squared_buckets"}
    features = {
        "place": {**FEATURES["place"], "encoding": {"min_count": 60}},
        "number": {**number, "min_count": 4},
    }
    duckdb, spark = (
        run(log, features, schema=NEITHER, split=RANDOM, engine={"kind": engine}, **CLICKS).folder
        for engine in ("duckdb", "spark")
    )
    names = {path.relative_to(duckdb) for path in duckdb.rglob("*") if path.is_file()}
    assert len(names) == 8
    assert [name for name in sorted(names) if (duckdb / name).read_bytes() != (spark / name).read_bytes()] == []
