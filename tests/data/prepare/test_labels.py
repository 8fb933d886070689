"""Further labels: 0, 1 or unknown, of the examples that there are anyway."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pydantic import ValidationError

from recsys.data.config import DataConfig
from recsys.data.prepared import Prepared
from recsys.data.reader import Examples
from recsys.errors import DataError, SchemaError
from recsys.evaluation.leakage import find_leaks

LIKED = {"positives": {"column": "stars", "at_least": 4}, "negatives": {"column": "stars", "at_most": 2}}
LOVED = {"loved": {"column": "stars", "at_least": 5}}
SECONDS = {"watched": {"column": "seconds", "at_least": 30, "at_most": 90}}


@pytest.fixture
def log(line):
    """Two users; the event of 3 stars is dropped."""
    seconds = [None, 30.0, 29.0, float("nan"), 91.0, 90.0, 31.0, 0.0, 60.0, None]
    texts = ["yes", "", None, "no", "yes", "yes", "no", "no", "yes", "no"]
    return {**line, "stars": [5, 1, 4, 3, 2, 5, 4, 2, 5, 1], "seconds": pa.array(seconds), "shared": texts}


def labels(result, name):
    """By item."""
    rows = [row for part in ("train", "valid", "test") for row in result.examples(part)]
    return {row["item"]: None if math.isnan(row[f"label.{name}"]) else row[f"label.{name}"] for row in rows}


def test_by_hand(run, log):
    rules = {**LOVED, **SECONDS, "shared": {"column": "shared", "one_of": ["yes"]}}
    result = run(log, **LIKED, labels=rules)
    assert labels(result, "loved") == {
        "i0": 1, "i1": 0, "i2": 0, "i4": 0, "i5": 1, "i6": 0, "i7": 0, "i8": 1, "i9": 0,
    }  # fmt: skip
    assert labels(result, "watched") == {
        "i0": None, "i1": 1, "i2": 0, "i4": 0, "i5": 1, "i6": 1, "i7": 0, "i8": 1, "i9": None,
    }  # fmt: skip
    assert labels(result, "shared") == {
        "i0": 1, "i1": None, "i2": None, "i4": 1, "i5": 1, "i6": 0, "i7": 0, "i8": 1, "i9": 0,
    }  # fmt: skip
    train = result.examples("train")
    found = result.info.labels
    for name in rules:
        column = [row[f"label.{name}"] for row in train]
        assert (found[name].known, found[name].positive) == (sum(x == x for x in column), column.count(1.0)), name
    assert result.info.known_labels["watched"] == pytest.approx(found["watched"].known / len(train))
    assert {type(row["label.loved"]) for row in train} == {float}
    assert pa.parquet.read_schema(result.folder / "train" / "part-00000.parquet").field("label.loved").type == "float"


@pytest.mark.parametrize("split", [{"kind": "random", "valid": 0.2, "test": 0.3}, {"kind": "temporal"}])
def test_they_change_neither_split_nor_order(run, log, split):
    without, with_labels = run(log, **LIKED, split=split), run(log, **LIKED, split=split, labels=LOVED)
    for part in ("train", "valid", "test"):
        found = with_labels.examples(part)
        assert [{k: v for k, v in row.items() if k != "label.loved"} for row in found] == without.examples(part)


def test_copies_that_differ_in_a_further_label_alone_keep_one_order(run, line):
    """Whatever the order of the raw rows."""
    copies = {"user": ["u"] * 12, "item": [*["i0"] * 10, "i1", "i2"], "time": [*[0] * 10, 1, 2]}
    log = {**copies, "stars": [5, 4] * 6}
    reverse = {name: values[:10][::-1] + values[10:] for name, values in log.items()}
    one, other = (run(each, positives=LIKED["positives"], labels=LOVED).examples("train") for each in (log, reverse))
    assert one == other


def test_a_sampled_negative_is_nobody_s_love(run, log):
    more = {**log, "user": [f"u{n % 2}" for n in range(10)]}
    result = run(more, positives={"column": "stars", "at_least": 2}, labels=SECONDS, sampled_negatives={})
    rows = result.examples("train")
    negatives = [row["label.watched"] for row in rows if row["label"] == 0]
    assert negatives == [0.0] * (len(rows) // 2)
    assert any(math.isnan(row["label.watched"]) for row in rows if row["label"] == 1)
    assert result.info.labels["watched"].known == sum(not math.isnan(row["label.watched"]) for row in rows)


def test_batches_hold_them(run, log):
    prepared = Prepared(run(log, **LIKED, labels={**LOVED, **SECONDS}).folder)
    batch = next(iter(Examples(prepared, "train", 3, seed=0).batches(0)))
    assert {name: (each.shape, each.dtype.name) for name, each in batch["labels"].items()} == {
        "loved": ((3,), "float32"),
        "watched": ((3,), "float32"),
    }
    rows = prepared.examples("train", ["item_index", "label.watched"]).to_pandas().set_index("item_index")
    expected = rows.loc[batch["item_index"].numpy(), "label.watched"]
    np.testing.assert_array_equal(batch["labels"]["watched"], expected)
    without = Prepared(run(log, **LIKED).folder)
    assert "labels" not in Examples(without, "train", 3, seed=0).sample()


def test_columns_that_cannot_decide(run, log):
    with pytest.raises(SchemaError, match=r"column 'starz': not there, needed for data\.labels\.loved.*'stars'"):
        run(log, **LIKED, labels={"loved": {"column": "starz", "at_least": 5}})
    with pytest.raises(SchemaError, match=r"data\.labels\.watched\.one_of: the text 'long'.*without quotes"):
        run(log, **LIKED, labels={"watched": {"column": "seconds", "one_of": ["long"]}})
    with pytest.raises(DataError, match=r"column 'shared': 8 rows hold text that is no number"):
        run(log, **LIKED, labels={"shared": {"column": "shared", "at_least": 1}})


def test_a_label_that_is_known_of_nothing(run, log):
    empty = {**log, "seconds": pa.array([None] * 9 + [60.0])}
    with pytest.raises(DataError, match=r"column 'seconds': holds nothing in any training event.*'watched'.*remove"):
        run(empty, **LIKED, labels=SECONDS)


@pytest.mark.parametrize(
    ("name", "text"), [("label", "positives and negatives make is called"), ("so loved", "a letter, then letters")]
)
def test_names(name, text):
    config = {"source": {"kind": "files", "events": "x"}, "labels": {name: {"column": "stars", "at_least": 5}}}
    with pytest.raises(ValidationError, match=text):
        DataConfig.model_validate(config)


@pytest.mark.parametrize("curve", [lambda x: x, np.sqrt], ids=["share", "root"])
def test_a_feature_that_is_a_label_s_share_of_the_whole_log_leaks(run, curve):
    rng = np.random.default_rng(0)
    count = 3_000
    table = pd.DataFrame(
        {
            "user": [f"u{n}" for n in rng.integers(0, 60, count)],
            "item": [f"i{n:02}" for n in rng.integers(0, 50, count)],
            "time": np.arange(count),
            "stars": rng.choice([1, 4, 5], count),
            "bought": rng.random(count) < np.linspace(0.1, 0.9, count),
        }
    )
    known = table[table.time < count * 0.8]
    log = {**table.to_dict("list"), "bought": np.where(table.bought, "yes", "no")}
    rules = {**LIKED, "labels": {"bought": {"column": "bought", "one_of": ["yes"]}}}
    for rows, leaks in ((table, True), (known, False)):
        share = curve(rows.groupby("item").bought.mean())
        items = {"item": list(share.index), "popular": share.tolist()}
        features = {"popular": {"kind": "numeric", "role": "item"}}
        prepared = Prepared(run(log, features, items=items, **rules).folder)
        found = [str(problem) for problem in find_leaks(prepared)]
        assert ["share of events with label 'bought'" in text for text in found] == [True] * leaks, found
