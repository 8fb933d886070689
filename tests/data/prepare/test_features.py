from __future__ import annotations

import datetime
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.data.encoding import fingerprint, oov_bucket


def categorical(role, **more):
    return {"role": role, "kind": "categorical", **more}


@pytest.fixture
def colours(line):
    """Colours of the ten events: the last two (valid, test) hold values that training does not."""
    return {**line, "colour": ["Z", "z", "é", "a", "a", None, "", "z", "a", "new"]}


def test_vocabulary_is_of_training_rows_by_count_then_code_point(run, colours):
    result = run(colours, {"colour": categorical("context")})
    assert result.vocabulary("colour") == [("a", 2), ("z", 2), ("Z", 1), ("é", 1)]
    assert result.info.features["colour"].rows == 2 + 4
    ids = {row["item"]: row["colour"] for part in ("train", "valid", "test") for row in result.examples(part)}
    expected = {"i0": 4, "i1": 3, "i2": 5, "i3": 2, "i4": 2, "i5": 0, "i6": 0, "i7": 3, "i8": 2, "i9": 1}
    assert ids == expected
    assert str(result.table("train/part-00000")["colour"].type) == "int32"


def test_minimum_count_and_oov_rows(run, colours):
    encoding = {"kind": "vocabulary", "min_count": 2, "oov_rows": 3}
    result = run(colours, {"colour": categorical("context", encoding=encoding)})
    assert result.vocabulary("colour") == [("a", 2), ("z", 2)]
    assert result.info.features["colour"].rows == 1 + 3 + 2
    ids = {row["item"]: row["colour"] for part in ("train", "valid", "test") for row in result.examples(part)}
    buckets = oov_bucket(np.array(["Z", "é", "new"]), 3)
    assert [ids["i0"], ids["i2"], ids["i9"]] == [1 + b for b in buckets]
    assert (ids["i3"], ids["i1"], ids["i5"]) == (4, 5, 0)


def test_item_ids_count_training_examples_of_both_labels(run):
    log = {"user": ["u"] * 10, "item": list("aabbbcabca"), "time": range(10), "r": [1, 1, 0, 1, 0, 0, 1, 1, 1, 1]}
    log["time"] = list(range(10))
    rules = {"positives": {"column": "r", "one_of": [1]}, "negatives": {"column": "r", "one_of": [0]}}
    result = run(log, {"iid": categorical("item", column="item")}, **rules)
    assert result.vocabulary("iid") == [("b", 4), ("a", 3), ("c", 1)]
    assert {item: row["train_count"] for item, row in result.items.items()} == {"a": 3, "b": 2, "c": 0}
    assert {item: (row["iid"], row["raw.iid"]) for item, row in result.items.items()} == {
        "a": (3, "a"), "b": (2, "b"), "c": (4, "c"),
    }  # fmt: skip


def test_items_outside_training_are_oov(run, line):
    items = run(line, {"iid": categorical("item", column="item")}).items
    assert [items[f"i{n}"]["iid"] for n in (0, 7, 8, 9)] == [2, 9, 1, 1]


def test_multi_valued_keeps_order_and_counts_a_row_once(run, line):
    tags = [["b", None, "b", "", "a", "c"], ["a"], None, [], ["c", "a"], *[["a"]] * 3, ["x", "b"], ["a"]]
    log = {**line, "tags": pa.array(tags)}
    result = run(log, {"tags": {"role": "context", "kind": "multi_valued", "max_length": 3}})
    # The first row holds b, b, a (three members at most): b counts once, c not at all.
    assert result.vocabulary("tags") == [("a", 6), ("b", 1), ("c", 1)]
    ids = {row["item"]: row["tags"] for part in ("train", "valid", "test") for row in result.examples(part)}
    assert [ids[f"i{n}"] for n in (0, 1, 2, 3, 4, 8)] == [[3, 3, 2], [2], [], [], [4, 2], [1, 3]]


def test_multi_valued_by_separator(run, line):
    items = {"item": [f"i{n}" for n in range(3)], "genres": ["x|y|y|y", "|x|", None]}
    features = {"genres": {"role": "item", "kind": "multi_valued", "separator": "|"}}
    result = run(line, features, items=items)
    assert result.vocabulary("genres") == [("x", 2), ("y", 1)]
    rows = result.items
    assert [rows[f"i{n}"]["raw.genres"] for n in range(4)] == [["x", "y", "y", "y"], ["x"], None, None]
    assert [rows[f"i{n}"]["genres"] for n in range(4)] == [[2, 3, 3, 3], [2], [], []]


def test_item_features_from_the_latest_training_event(run):
    log = {
        "user": ["u"] * 10,
        "item": ["a", "a", "b", "a", "c", "c", "c", "c", "a", "d"],
        "time": [0, 2, 3, 1, 4, 5, 6, 7, 8, 9],
        "price": ["old", "latest", None, "older", "1", "1", "1", "1", "leaked", "unseen"],
    }
    result = run(log, {"price": categorical("item")})
    raw = {item: row["raw.price"] for item, row in result.items.items()}
    # `a` also stands in the validation part; `d` in no training event, so its earliest event speaks.
    assert raw == {"a": "latest", "b": None, "c": "1", "d": "unseen"}
    assert {item: row["price"] for item, row in result.items.items()} == {"a": 3, "b": 0, "c": 2, "d": 1}
    assert result.vocabulary("price") == [("1", 4), ("latest", 3)]


def test_features_of_tables_and_entities_that_stand_in_one_place_only(run, line):
    items = {"item": ["i1", "i9", "cold"], "kind": ["k1", "k9", "k0"], "name": ["One", "", "Zero"]}
    users = {"user": ["u", "newcomer"], "age": pa.array([40, None], pa.int64())}
    features = {"kind": categorical("item"), "age": categorical("user")}
    result = run(line, features, items=items, users=users, schema={"title": "name"})
    assert result.table("items").column_names == ["item", "title", "train_count", "raw.kind", "kind"]
    assert result.items["cold"] == {"item": "cold", "title": "Zero", "train_count": 0, "raw.kind": "k0", "kind": 1}
    assert result.items["i2"] == {"item": "i2", "title": None, "train_count": 1, "raw.kind": None, "kind": 0}
    assert result.items["i9"]["title"] is None
    assert result.users["newcomer"] == {
        "user": "newcomer", "event_start": 0, "event_count": 0, "raw.age": None, "age": 0,
    }  # fmt: skip
    assert result.users["u"]["raw.age"] == "40"
    assert (result.info.counts.users, result.info.counts.items) == (2, 11)


def test_integers_and_booleans_are_text(run, line):
    log = {**line, "flag": [True] * 8 + [None, False], "level": [7, 7, 7, -1, -1, 0, 0, 10, 10, 10]}
    result = run(log, {"flag": categorical("context"), "level": categorical("context")})
    assert result.vocabulary("flag") == [("true", 8)]
    assert result.vocabulary("level") == [("7", 3), ("-1", 2), ("0", 2), ("10", 1)]
    assert [row["flag"] for part in ("valid", "test") for row in result.examples(part)] == [0, 1]


def test_fingerprints(run, line):
    names = ["é", "a", None, "", "a", "b", "c", "d", "e", "f"]
    result = run({**line, "name": names}, {"name": categorical("context", encoding={"kind": "hash"})})
    found = {row["item"]: row["name"] for part in ("train", "valid", "test") for row in result.examples(part)}
    assert [found[f"i{n}"] for n in range(10)] == fingerprint(np.array(names, dtype=object)).tolist()
    assert [found[f"i{n}"] for n in (2, 3)] == [0, 0]
    assert len({*found.values()}) == 8
    assert min(v for v in found.values() if v) > 2**40
    assert result.info.features["name"].kind == "fingerprint"


NUMBERS = [1.0, 2.0, 3.0, None, math.nan, 4.0, 5.0, 3.0, 1000.0, -1000.0]


def test_numeric_statistics_are_of_training_rows(run, line):
    result = run({**line, "x": NUMBERS}, {"x": {"role": "context", "kind": "numeric"}})
    info = result.info.features["x"]
    assert info.mean == 3.0
    assert info.std == pytest.approx(math.sqrt((4 + 1 + 0 + 1 + 4 + 0) / 6), rel=1e-12)
    found = {row["item"]: row["x"] for row in result.examples("train")}
    assert found["i0"] == 1.0
    assert math.isnan(found["i3"])
    assert math.isnan(found["i4"])


def test_numeric_log_and_constant_columns(run, line):
    log = {**line, "x": [-1.0, 1.0] * 5, "k": [0.1] * 10}
    features = {name: {"role": "context", "kind": "numeric", "transform": "log"} for name in ("x", "k")}
    info = run(log, features).info.features
    assert (info["x"].mean, info["x"].std) == (0.0, pytest.approx(math.log(2)))
    assert (info["k"].mean, info["k"].std) == (pytest.approx(math.log(1.1)), 1.0)


def test_log_squared_buckets_are_whole_numbers_that_training_holds_often_enough(run, line):
    """Eight training rows; 3 and 4 both become 1, where they meet a 1; 5 and 6 become 2 and 3."""
    log = {**line, "x": [0, 0, 1, 3, 4, 5, 6, None, 8, 8]}

    def boundaries(**more):
        kind = {"role": "context", "kind": "numeric", "transform": "log_squared_buckets", **more}
        return run(log, {"x": kind}).info.features["x"].boundaries

    assert boundaries() == (0.0, 1.0, 2.0, 3.0), "not 4: only held-out rows hold 8"
    assert boundaries(min_count=2) == (0.0, 1.0)
    assert boundaries(min_count=3) == (1.0,), "three rows are enough"
    assert boundaries(min_count=4) == ()


def test_log_squared_is_standardised_after(run, line):
    log = {**line, "x": [0, 2, 3, 5, 5, 7, None, 1, 8, 8]}
    info = run(log, {"x": {"role": "context", "kind": "numeric", "transform": "log_squared"}}).info.features["x"]
    assert info.mean == pytest.approx(np.mean([0, 2, 1, 2, 2, 3, 1]))
    assert info.std == pytest.approx(np.std([0, 2, 1, 2, 2, 3, 1]))


def test_bucket_boundaries_are_quantiles_of_training_rows(run, line):
    log = {**line, "x": [8, 1, 3, 2, 7, 4, 6, 5, 1000, 1000], "y": [0, 0, 0, 0, 0, 5, 6, 7, 1000, 1000]}
    kind = {"role": "context", "kind": "numeric", "transform": "bucketize", "buckets": 4}
    info = run(log, {"x": kind, "y": kind}).info.features
    assert info["x"].boundaries == (3.0, 5.0, 7.0)
    assert info["y"].boundaries == (0.0, 6.0)


def test_item_numbers_weigh_by_training_events(run):
    log = {"user": ["u"] * 10, "item": list("aaaaaabbcd"), "time": list(range(10))}
    items = {"item": list("abcd"), "price": ["1", " 5e0", "100", "nan"]}
    result = run(log, {"price": {"role": "item", "kind": "numeric"}}, items=items)
    info = result.info.features["price"]
    assert info.mean == 2.0  # six of a at 1, two of b at 5
    assert info.std == pytest.approx(math.sqrt(3.0))
    assert [row["raw.price"] for row in result.rows("items")] == [1.0, 5.0, 100.0, None]
    assert math.isnan(result.items["d"]["price"])


def test_vectors(run, line):
    vectors = pa.array([[float(n), 1.0] for n in range(9)] + [None])
    items = {"item": [f"i{n}" for n in range(10)], "emb": vectors}
    feature = {"kind": "vector", "dim": 2}
    result = run(
        {**line, "v": vectors}, {"emb": {**feature, "role": "item"}, "v": {**feature, "role": "context"}}, items=items
    )
    assert result.items["i3"]["emb"] == result.items["i3"]["raw.emb"] == [3.0, 1.0]
    assert (result.items["i9"]["raw.emb"], result.items["i9"]["emb"]) == (None, [0.0, 0.0])
    assert result.examples("test")[0]["v"] == [0.0, 0.0]
    for table in ("items", "train/part-00000"):
        kind = result.table(table)["emb" if table == "items" else "v"].type
        assert (kind.list_size, str(kind.value_type)) == (2, "float")


def test_weights_labels_and_dropped_events(run, line):
    log = {**line, "w": [0.5] * 10, "rating": [5, 5, 3, 1, 5, 5, 5, 5, 5, 5]}
    rules = {"positives": {"column": "rating", "at_least": 4}, "negatives": {"column": "rating", "at_most": 1}}
    result = run(log, schema={"weight": "w"}, split={"kind": "temporal", "valid": 0.2, "test": 0.2}, **rules)
    assert result.info.counts.dropped == 1
    labels = {row["item"]: (row["label"], row["weight"]) for row in result.examples("train")}
    assert labels == {"i0": (1.0, 0.5), "i1": (1.0, 0.5), "i3": (0.0, 0.5), "i4": (1.0, 0.5), "i5": (1.0, 0.5)}
    assert "i2" not in result.items
    assert result.info.counts.events == 8


def test_propensities_stand_beside_the_examples(run, line):
    given = [1.0, 1e-12, 0.1, 0.25, *[0.5] * 6]
    result = run({**line, "p": given}, schema={"propensity": "p"})
    found = {row["item"]: row["propensity"] for part in ("train", "valid", "test") for row in result.examples(part)}
    assert found == {f"i{n}": p for n, p in enumerate(given)}, "float64: equal to the last bit"
    assert result.info.features == {}
    assert "propensity" not in result.table("events/part-00000").column_names
    assert "propensity" not in run(line).table("train/part-00000").column_names


def test_what_the_model_does_not_read_is_prepared_alike(run, line):
    """Only `input` in dataset.json tells the two apart."""
    log = {**line, "colour": list("aabbccabcd"), "shop": list("xxyyxxyyxx"), "v": [[float(n), 1.0] for n in range(10)]}
    log |= {"x": [float(n) for n in range(10)], "sort": list("uuuuvvvvvv"), "tags": [["p", "q"]] * 10}
    features = {
        "colour": categorical("context"),
        "v": {"role": "context", "kind": "vector", "dim": 2},
        "shop": categorical("item"),
        "w": {"role": "item", "kind": "vector", "dim": 2, "column": "v"},
        "tags": {"role": "item", "kind": "multi_valued", "encoding": {"kind": "hash"}},
        "x": {"role": "user", "kind": "numeric", "transform": "bucketize"},
        "sort": categorical("user", encoding={"kind": "hash"}),
    }
    plain = run(log, features)
    sliced = run(log, {name: {**feature, "input": False} for name, feature in features.items()})
    files = [{p.relative_to(r.folder): p.read_bytes() for p in r.folder.rglob("*.parquet")} for r in (plain, sliced)]
    assert files[0] == files[1]
    assert list(plain.info.inputs) == list(features)
    assert sliced.info.inputs == {}
    for name, info in plain.info.features.items():
        assert info.model_copy(update={"input": False}) == sliced.info.features[name]


def test_times_keep_their_unit(run, line):
    moments = [datetime.datetime(2020, 1, 1, 0, 0, n, 750_010, datetime.UTC) for n in range(10)]
    start = 1_577_836_800
    for unit, scale in (("s", 1), ("ms", 1_000), ("us", 1_000_000)):
        expected = [(start + n) * scale + 750_010 * scale // 1_000_000 for n in range(10)]
        for column in (pa.array(moments, pa.timestamp("us", "UTC")), pa.array(moments, pa.timestamp("us"))):
            result = run({**line, "time": column}, schema={"timestamp_unit": unit})
            assert result.table("events/part-00000")["time"].to_pylist() == expected
    days = run({**line, "time": pa.array([datetime.date(1969, 12, 22 + n) for n in range(10)])})
    assert days.table("events/part-00000")["time"].to_pylist() == [(n - 10) * 86_400 for n in range(10)]
    texts = run({**line, "time": [f" {n}.9" for n in range(10)]})
    assert texts.table("events/part-00000")["time"].to_pylist() == list(range(10))


def test_csv_and_tsv_read_as_text(run, line, tmp_path):
    (tmp_path / "log.csv").write_text(
        "user,item,time,note\n" + "".join(f'u,"0{n}, ""x""",{n},{"" if n else "é"}\n' for n in range(10))
    )
    (tmp_path / "items.tsv").write_text('item\tname\n"00, ""x"""\tFirst\n')
    result = run(
        tmp_path / "log.csv", {"note": categorical("context")}, items=tmp_path / "items.tsv", schema={"title": "name"}
    )
    assert list(result.items)[:2] == ['00, "x"', '01, "x"']
    assert result.items['00, "x"']["title"] == "First"
    assert result.vocabulary("note") == [("é", 1)]


def test_examples_are_mixed_and_row_groups_exact(run):
    n = 1000
    log = {"user": np.arange(n) // 10, "item": np.arange(n), "time": np.arange(n)}
    result = run(log, rows_per_group=100)
    metadata = pq.ParquetFile(result.folder / "train" / "part-00000.parquet").metadata
    assert [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)] == [100] * 8
    times = np.array([row["time"] for row in result.examples("train")])
    assert abs(np.corrcoef(times, np.arange(800))[0, 1]) < 0.15
    other = np.array([row["time"] for row in run(log, seed=1).examples("train")])
    assert sorted(other) == sorted(times)
    assert (other == times).mean() < 0.05
