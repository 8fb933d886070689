"""Every mistake is answered with its place and its cure, and leaves nothing behind."""

from __future__ import annotations

import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.errors import DataError, SchemaError


@pytest.fixture
def refuse(run, tmp_path):
    """refuse(kind of error, [parts of the message], events, ...): the preparation fails so, and leaves no folder."""

    def refused(kind, parts, *args, **kwargs):
        with pytest.raises(kind) as caught:
            run(*args, **kwargs)
        message = str(caught.value)
        for part in parts:
            assert part in message, f"{part!r} is not in: {message}"
        assert not [path for path in tmp_path.iterdir() if path.is_dir()], "something is left behind"
        return caught.value.problems

    return refused


def feature(kind, role="context", **more):
    return {"kind": kind, "role": role, **more}


def test_missing_columns_are_all_named_at_once(refuse, line):
    log = {"usr": line["user"], "item": line["item"], "time": line["time"]}
    problems = refuse(
        SchemaError,
        [
            "events-0.parquet: column 'user'",
            "did you mean 'usr'?",
            "column 'colour'",
            "usr, item, time",
            "column 'stars'",
        ],
        log,
        {"colour": feature("categorical")},
        positives={"column": "stars", "at_least": 1},
    )
    assert len(problems) == 3


def test_missing_column_of_the_items_table(refuse, line):
    refuse(SchemaError, ["items-1.parquet: column 'item'", "did you mean 'items'?"], line, items={"items": ["i1"]})


@pytest.mark.parametrize(
    ("name", "values", "declared", "parts"),
    [
        ("x", [0.5] * 10, feature("categorical"), ["floating-point", "categorical feature 'x'", "cast the column"]),
        ("x", [["a"]] * 10, feature("categorical"), ["holds lists", "kind: multi_valued"]),
        ("x", ["a|b"] * 10, feature("multi_valued"), ["expected list", "give `separator`"]),
        ("x", [["a"]] * 10, feature("multi_valued", separator="|"), ["expected text", "kind: multi_valued"]),
        ("x", [[0.5]] * 10, feature("multi_valued"), ["lists of float64", "convert the members"]),
        ("x", [["a"]] * 10, feature("numeric"), ["holds lists", "numeric feature 'x'"]),
        ("x", [1.0] * 10, feature("vector", dim=1), ["floating-point", "vector feature 'x'"]),
        ("x", [["a"]] * 10, feature("vector", dim=1), ["lists of string"]),
    ],
)
def test_columns_that_cannot_hold_the_feature(refuse, line, name, values, declared, parts):
    refuse(SchemaError, ["events-0.parquet: column 'x'", *parts], {**line, name: values}, {name: declared})


def test_float_ids(refuse, line):
    log = {**line, "user": [1.0] * 10}
    refuse(SchemaError, ["column 'user'", "floating-point", "cast the column to integers or text"], log)


@pytest.mark.parametrize(
    ("name", "values", "declared", "parts"),
    [
        ("x", ["1", "two", "", "3 4", *["5"] * 6], feature("numeric"), ["2 rows hold text that is no number"]),
        ("x", [math.inf, 1e39, math.nan, *[5.0] * 7], feature("numeric"), ["2 rows hold a number that is infinite"]),
        ("x", [[1.0, 2.0], [1.0], None, *[[1.0, 2.0]] * 7], feature("vector", dim=2), ["1 row holds a vector"]),
        ("x", [[math.nan, 2.0], [None, 1.0], *[[1.0, 2.0]] * 8], feature("vector", dim=2), ["2 rows hold a vector"]),
        ("x", [None, math.nan, *[None] * 6, 1.0, 2.0], feature("numeric"), ["no training row holds a value", "leave"]),
    ],
)  # fmt: skip
def test_values_that_the_feature_cannot_take(refuse, line, name, values, declared, parts):
    refuse(DataError, ["'x'", *parts], {**line, name: values}, {name: declared})


def test_rows_with_gaps_are_counted_and_all_said_at_once(refuse, line):
    log = {
        **line,
        "user": [None, "", *["u"] * 8],
        "item": ["i"] * 9 + [None],
        "time": [1.0, math.nan, None, *[2.0] * 7],
        "w": [1.0, -1.0, math.nan, *[1.0] * 7],
        "r": [5.0, math.nan, *[5.0] * 8],
    }
    problems = refuse(
        DataError,
        [
            "column 'user': 2 rows hold a missing id (null or \"\"); drop these rows",
            "column 'item': 1 row holds a missing id",
            "column 'time': 2 rows hold no time (null or NaN); drop these rows, or leave schema.timestamp out",
            "column 'w': 1 row holds no weight",
            "column 'w': 1 row holds a negative weight",
            "column 'r': 1 row holds no value (null, NaN",
        ],
        log,
        schema={"weight": "w"},
        positives={"column": "r", "at_least": 4},
    )
    assert len(problems) == 6


def test_propensities_that_are_no_probabilities(refuse, line):
    log = {**line, "p": [0.5, 0.0, -0.1, 1.5, math.inf, math.nan, None, 1e-31, 1e-30, 1.0]}
    problems = refuse(
        DataError,
        [
            "column 'p': 2 rows hold no propensity (null or NaN); log the probability",
            "column 'p': 5 rows hold a propensity outside (0, 1], or below 1e-30; log the probability",
        ],
        log,
        schema={"propensity": "p"},
    )
    assert len(problems) == 2
    texts = {**line, "p": ["0.5", "high", "2", "", *["1e-3"] * 6]}
    problems = refuse(
        DataError,
        [
            "column 'p': 1 row holds text that is no number; write numbers in (0, 1]",
            "column 'p': 1 row holds no propensity",
            "column 'p': 1 row holds a propensity outside (0, 1]",
        ],
        texts,
        schema={"propensity": "p"},
    )
    assert len(problems) == 3
    refuse(SchemaError, ["column 'p': not there, needed for a propensity"], line, schema={"propensity": "p"})
    lists = {**line, "p": [[0.5]] * 10}
    refuse(SchemaError, ["column 'p': holds lists", "needed for a propensity"], lists, schema={"propensity": "p"})


def test_both_positive_and_negative(refuse, line):
    rules = {"positives": {"column": "time", "at_least": 3}, "negatives": {"column": "time", "at_most": 4}}
    refuse(DataError, ["2 rows hold events that are both positive and negative", "exclude each other"], line, **rules)


def test_text_in_a_rule_on_numbers(refuse, line):
    log = {**line, "r": [1.5] * 10}
    rule = {"column": "r", "one_of": ["good"]}
    refuse(SchemaError, ["data.positives.one_of", "'good'", "without quotes"], log, positives=rule)


def test_duplicate_and_missing_ids_of_tables(refuse, line):
    refuse(
        DataError,
        [
            "items-1.parquet: column 'item': 1 row holds a missing id",
            "items-1.parquet: column 'item': 1 id stands in more than one row (such as 'i1')",
            "users-2.parquet: column 'user': 2 ids stand in more than one row",
        ],
        line,
        items={"item": ["i1", "i2", None, "i1"]},
        users={"user": [7, 7, 7, 8, 8, 9]},
    )


def test_no_positive_event(refuse, line):
    rules = {"positives": {"column": "time", "at_least": 99}, "negatives": {"column": "time", "at_most": 98}}
    refuse(DataError, ["no event is positive", "change data.positives"], line, **rules)


def test_no_event_at_all_is_kept(refuse, line):
    refuse(DataError, ["no event is positive"], line, positives={"column": "time", "at_least": 99})


@pytest.mark.parametrize(
    ("split", "part"),
    [
        ("leave_last_out", "valid"),
        ("by_user", "test"),
        ("temporal", "train"),
        ("random", "valid"),
        ("cold_users", "test"),
        ("cold_items", "valid"),
    ],
)
def test_empty_parts(refuse, line, split, part):
    log = {**line, "user": ["u"] * 2, "item": ["a", "b"], "time": [1, 1]}
    refuse(
        DataError, [f"the {part} part of the {split} split has no rows", "give more events"], log, split={"kind": split}
    )


def test_split_by_time_without_times(refuse, line):
    for kind in ("temporal", "leave_last_out"):
        parts = ["data.split.kind", kind, "schema.timestamp"]
        refuse(SchemaError, parts, line, schema={"timestamp": None}, split={"kind": kind})


def test_files(refuse, line, tmp_path):
    def written(name, content):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    refuse(DataError, ["missing.parquet", "No such file", "check data.source"], tmp_path / "missing.parquet")
    refuse(DataError, ["broken.parquet", "not readable as Parquet"], written("broken.parquet", b"PAR1 is not enough"))
    refuse(DataError, ["log.xlsx", ".parquet, .csv or .tsv", "convert"], written("log.xlsx", b"?"))
    refuse(DataError, ["empty.csv", "not readable as CSV"], written("empty.csv", b""))
    refuse(DataError, ["head.csv", "no rows"], written("head.csv", b"user,item,time\n"))
    refuse(DataError, ["ragged.csv", "not readable as CSV"], written("ragged.csv", b"user,item,time\na,b,1\na,b\n"))
    refuse(DataError, ["latin.csv", "UTF-8"], written("latin.csv", "user,item,time\né,b,1\n".encode("latin-1")))
    empty = tmp_path / "none.parquet"
    pq.write_table(pa.table({name: pa.array(column)[:0] for name, column in line.items()}), empty)
    refuse(DataError, ["none.parquet", "no rows", "at least one row"], empty)


def test_damaged_data_pages(refuse, line, tmp_path):
    path = tmp_path / "damaged.parquet"
    pq.write_table(pa.table({**line, "item": [f"item {n}" for n in range(10)]}), path, use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[4:120] = bytes(116)
    path.write_bytes(content)
    refuse(DataError, ["data.source", "check that the files are whole"], path)
