"""Whatever runs the expressions, the prepared folder is the same, byte for byte."""

from __future__ import annotations

import datetime
import functools
import importlib.util
import shutil
from pathlib import Path

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.data.config import DataConfig
from recsys.data.dataset import DatasetInfo
from recsys.data.prepare import negatives, prepare
from recsys.data.source import SourceFiles
from recsys.schema.config import SchemaConfig

ROWS = 400
CONTEXT, ITEM = {"role": "context"}, {"role": "item"}
SCHEMA = SchemaConfig.model_validate(
    {
        "user": "user",
        "item": "item",
        "timestamp": "time",
        "timestamp_unit": "ms",
        "weight": "weight",
        "propensity": "propensity",
        "title": "title",
        "features": {
            "uid": {"kind": "categorical", "role": "user", "column": "user"},
            "home": {"kind": "categorical", "role": "user", "column": "device"},
            "iid": {**ITEM, "kind": "categorical", "column": "item", "encoding": {"kind": "vocabulary", "oov_rows": 3}},
            "genres": {**ITEM, "kind": "multi_valued", "separator": "|"},
            "price": {**ITEM, "kind": "numeric"},
            "plays": {**ITEM, "kind": "numeric"},
            "stars": {**ITEM, "kind": "numeric"},
            "tags": {**ITEM, "kind": "multi_valued"},
            "emb": {**ITEM, "kind": "vector", "dim": 2},
            "device": {**CONTEXT, "kind": "categorical", "encoding": {"kind": "vocabulary", "min_count": 40}},
            "flag": {**CONTEXT, "kind": "categorical", "encoding": {"kind": "hash"}, "input": False},
            "words": {**CONTEXT, "kind": "multi_valued", "max_length": 2},
            "level": {**CONTEXT, "kind": "numeric", "transform": "bucketize", "buckets": 4},
            "dwell": {**CONTEXT, "kind": "numeric", "transform": "log"},
            "vec": {**CONTEXT, "kind": "vector", "dim": 3},
            "recent": {"kind": "sequence", "of": "iid", "max_length": 5},
        },
    }
)


MOMENTS = [datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=1_500_000 * n + 7) for n in range(-5, 20)]
MOMENTS += [datetime.datetime(1, 1, 1), datetime.datetime(2024, 2, 29), datetime.datetime.max]
ZONES = [datetime.timezone(datetime.timedelta(minutes=offset)) for offset in (0, 330, -30, -765)]


def in_text(moment, style):
    """One moment in one of several ways."""
    if moment.year in (1, 9999) or style == 0:
        return moment.isoformat() if moment.microsecond else str(moment.date())
    if style == 1:
        return f"{moment} UTC"
    return str(moment.replace(tzinfo=datetime.UTC).astimezone(ZONES[style - 2])).replace(" ", "T "[style % 2])


def sometimes(rng, share, values):
    return [None if gap else value for gap, value in zip(rng.random(len(values)) < share, values, strict=True)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Few users, few moments (so ties everywhere), Unicode, gaps of every kind, exact duplicates."""
    rng = np.random.default_rng(0)
    words = ["a", None, "b|", "", "é", "😀"]
    moments = [MOMENTS[n] for n in rng.integers(0, len(MOMENTS), ROWS)]
    log = pa.table(
        {
            "user": [f"ü{n}" for n in rng.integers(0, 30, ROWS)],
            "item": rng.integers(0, 40, ROWS),
            "time": pa.array(moments, pa.timestamp("us", "UTC")),
            "clock": [in_text(at, style) for at, style in zip(moments, rng.integers(0, 6, ROWS), strict=True)],
            "rating": rng.choice([1.0, 2.5, 4.0, 5.0], ROWS),
            "weight": rng.random(ROWS).astype(np.float32),
            "device": sometimes(rng, 0.1, rng.choice(["a", "é", "", "😀", "Z", "ﬀ"], ROWS).tolist()),
            "flag": rng.choice([True, False], ROWS),
            "words": [[words[n] for n in rng.integers(0, 6, rng.integers(0, 5))] or None for _ in range(ROWS)],
            "level": np.where(rng.random(ROWS) < 0.2, np.nan, 5 * rng.normal(size=ROWS)),
            "dwell": rng.choice([" 1", "2e0", "-3.5", "nan", "", "4 ", "+.5"], ROWS),
            "vec": sometimes(rng, 0.2, rng.normal(size=(ROWS, 3)).tolist()),
            "genres": ["|".join(rng.choice(["x", "y", "", "z"], 3)) for _ in range(ROWS)],
            "title": [f"T{n}" for n in rng.integers(0, 9, ROWS)],
            "propensity": 1 - rng.random(ROWS),
            "seconds": sometimes(rng, 0.3, np.where(rng.random(ROWS) < 0.2, np.nan, rng.random(ROWS)).tolist()),
        }
    )
    log = pa.concat_tables([log, log.slice(0, 40)])
    item = log["item"].to_numpy()
    plays, rating = np.bincount(item, minlength=50)[5:], np.bincount(item, log["rating"], minlength=50)[5:]
    items = pa.table(
        {
            "item": range(5, 50),
            "plays": plays,
            "stars": np.round(rating / np.maximum(plays, 1), 1),
            "price": sometimes(rng, 0.2, rng.normal(size=45).tolist()),
            "tags": sometimes(rng, 0.2, [["ä", "b"][: n % 3] for n in range(45)]),
            "emb": sometimes(rng, 0.2, rng.normal(size=(45, 2)).tolist()),
        }
    )
    folder = tmp_path_factory.mktemp("log")
    pq.write_table(log, folder / "events.parquet")
    pq.write_table(items, folder / "items.parquet")
    return SourceFiles((folder / "events.parquet",), (folder / "items.parquet",))


def contents(files, out, split, engine, timestamp="time", **data):
    config = DataConfig.model_validate(
        {
            "source": {"kind": "files", "events": "events.parquet"},
            "positives": {"column": "rating", "at_least": 4},
            "negatives": {"column": "rating", "at_most": 1},
            "labels": {
                "loved": {"column": "rating", "at_least": 5},
                "long": {"column": "seconds", "at_least": 0.5},
                "shown": {"column": "flag", "one_of": ["true"]},
            },
            "split": split if isinstance(split, dict) else {"kind": split},
            "engine": {"kind": engine},
            "rows_per_group": 64,
            **data,
        }
    )
    logged = {} if data.get("sampled_negatives") is None else {"propensity": None}  # nothing drawn was logged
    schema = SCHEMA.model_copy(update={"timestamp": timestamp, **logged})
    folder = prepare("small", config, schema, files, out)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.system
@pytest.mark.parametrize(
    ("split", "timestamp"),
    [
        ("temporal", "time"),
        ({"kind": "temporal", "held_back": 0.2, "train": 0.6}, "clock"),
        ("leave_last_out", "clock"),
        ("random", "time"),
        ("by_user", "clock"),
        ("cold_users", "time"),
        ("cold_items", "time"),
    ],
)
def test_spark_writes_what_duckdb_writes(files, tmp_path, require, split, timestamp):
    require(importlib.util.find_spec("pyspark"), "the extra recsys[spark] is not installed")
    require(shutil.which("java"), "there is no Java runtime")
    duckdb = contents(files, tmp_path / "duckdb", split, "duckdb", timestamp)
    assert len(duckdb) > 10
    suspected = {one.feature for one in DatasetInfo.model_validate_json(duckdb["dataset.json"]).suspicions}
    is_small = split in ("by_user", "cold_items")  # too few items with held-out events
    assert suspected == (set() if is_small else {"plays", "stars"})
    assert contents(files, tmp_path / "spark", split, "spark", timestamp) == duckdb


@pytest.mark.system
@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_spark_draws_the_same_negatives(files, tmp_path, require, monkeypatch, distribution):
    require(importlib.util.find_spec("pyspark"), "the extra recsys[spark] is not installed")
    require(shutil.which("java"), "there is no Java runtime")
    monkeypatch.setattr(
        negatives, "BLOCK", 100
    )  # several, whose edges lie elsewhere than those of the engines' batches
    drawn = {
        "sampled_negatives": {"per_positive": 2, "distribution": distribution},
        "negatives": None,
        "min_history": 2,
    }
    duckdb, spark = (
        contents(files, tmp_path / engine, "leave_last_out", engine, **drawn) for engine in ("duckdb", "spark")
    )
    assert spark == duckdb


def test_times_in_text_are_those_of_a_time_column(files, tmp_path):
    once = contents(files, tmp_path / "time", "leave_last_out", "duckdb", "time")
    again = contents(files, tmp_path / "clock", "leave_last_out", "duckdb", "clock")
    assert {name for name in once if again[name] != once[name]} == {"dataset.json"}, "only digest and schema differ"


def test_neither_threads_nor_the_order_of_rows_matter(files, tmp_path, monkeypatch):
    once = contents(files, tmp_path / "once", "random", "duckdb")
    monkeypatch.setattr(ibis.duckdb, "connect", functools.partial(ibis.duckdb.connect, threads=1))
    again = contents(files, tmp_path / "again", "random", "duckdb")
    assert again == once

    log = pq.read_table(files.events[0])
    shuffled = Path(tmp_path / "shuffled.parquet")
    pq.write_table(log.take(np.random.default_rng(1).permutation(len(log))), shuffled)
    other = contents(SourceFiles((shuffled,), files.items), tmp_path / "other", "random", "duckdb")
    assert {name for name in once if other[name] != once[name]} == {"dataset.json"}, "only the digest differs"
