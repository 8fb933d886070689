"""What does not fit between `embeddings` and `schema` is named, all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from recsys.embeddings.config import EmbeddingsConfig, FullTable, UniformConfig, row_width
from recsys.embeddings.optimizers.config import LazyAdamConfig, RowwiseAdagradConfig
from recsys.schema.config import SchemaConfig

SCHEMA = SchemaConfig.model_validate(
    {
        "user": "u",
        "item": "i",
        "timestamp": "t",
        "features": {
            "user_id": {"kind": "categorical", "role": "user"},
            "movie_id": {"kind": "categorical", "role": "item"},
            "tag": {"kind": "categorical", "role": "item", "encoding": {"kind": "hash"}},
            "tags": {"kind": "multi_valued", "role": "item", "max_length": 4, "encoding": {"kind": "hash"}},
            "tag_history": {"kind": "sequence", "of": "tag"},
            "history": {"kind": "sequence", "of": "movie_id", "max_length": 20},
            "price": {"kind": "numeric", "role": "item"},
            "year": {"kind": "numeric", "role": "item", "transform": "bucketize"},
            "image": {"kind": "vector", "role": "item", "dim": 3},
        },
    }
)
READ = {
    "user_id": "ids",
    "movie_id": "ids",
    "tag": "hashed",
    "tags": "hashed",
    "tag_history": "hashed",
    "history": "ids",
    "year": "ids",
}


def config(
    read: dict[str, str] | None = None, entries: dict[str, dict[str, Any]] | None = None, **more_tables: Any
) -> EmbeddingsConfig:
    """Of features with these tables (`READ`, if left out), with more said of some of them."""
    tables = {"ids": {"dim": 4}, "hashed": {"method": "multiplexed", "rows": 8, "dim": 4}, **more_tables}
    features: dict[str, dict[str, Any]] = {
        name: {"table": table} for name, table in (READ if read is None else read).items()
    }
    for name, entry in (entries or {}).items():
        features[name] = {**features.get(name, {}), **entry}
    return EmbeddingsConfig.model_validate({"tables": tables, "features": features})


def problems(
    read: dict[str, str] | None = None, entries: dict[str, dict[str, Any]] | None = None, **more_tables: Any
) -> list[tuple[str, str]]:
    return config(read, entries, **more_tables).problems(SCHEMA)


def test_what_fits_has_no_problem() -> None:
    assert problems() == []
    everything_hashed = dict.fromkeys(READ, "hashed")
    assert problems(everything_hashed) == [("tables.ids", "no feature reads this table; remove it")]


@pytest.mark.parametrize("name", READ)
def test_a_feature_without_a_table(name: str) -> None:
    (problem,) = problems({n: table for n, table in READ.items() if n != name})
    assert problem[0] == "features"
    assert f"'{name}' ({SCHEMA.features[name].kind}) has no entry" in problem[1]


def test_a_table_for_a_feature_that_reads_none() -> None:
    assert problems({**READ, "price": "ids"}) == [
        ("features.price", "a numeric feature reads no table; `projection` is all it may say")
    ]
    assert problems({**READ, "image": "ids"}) == [
        ("features.image", "a vector feature reads no table; `projection` is all it may say")
    ]


@pytest.mark.parametrize("name", ["user_id", "year", "image", "price"])
def test_a_feature_that_the_model_does_not_read(name: str) -> None:
    features = {**SCHEMA.features, name: SCHEMA.features[name].model_copy(update={"input": False})}
    schema = SCHEMA.model_copy(update={"features": features})
    without = {reader: table for reader, table in READ.items() if reader != name}
    assert config(without).problems(schema) == []
    ((key, message),) = config({**without, name: "ids"}).problems(schema)
    assert key == f"features.{name}"
    assert message == "the model does not read this feature (input: false); remove the entry, or make it an input"


def test_a_feature_that_the_schema_lacks() -> None:
    ((key, message),) = problems({**READ, "colour": "ids"})
    assert key == "features.colour"
    assert "no feature 'colour' in the schema; it has user_id, movie_id," in message


def test_a_table_that_is_not_there() -> None:
    assert problems({**READ, "year": "idz"}) == [
        ("features.year.table", "no table 'idz'; the tables are ids, hashed"),
    ]


def test_a_feature_that_names_no_table() -> None:
    read = {name: table for name, table in READ.items() if name != "year"}
    assert problems(read, {"year": {"pooling": "mean"}}) == [
        ("features.year.table", "names no table; the tables are ids, hashed"),
    ]


@pytest.mark.parametrize("name", ["tag", "tags", "tag_history"])
def test_a_full_table_cannot_hold_what_has_no_vocabulary(name: str) -> None:
    ((key, message),) = problems({**READ, name: "ids"})
    assert key == f"features.{name}.table"
    assert f"'{name}' has no vocabulary" in message
    assert "`method: multiplexed` or hashed" in message


@pytest.mark.parametrize("table", [{"dim": 4, "method": "mixed_dim"}, {"dim": 4, "method": "mgqe"}])
def test_nor_can_any_other_table_with_a_row_for_an_id(table: dict[str, Any]) -> None:
    ((key, message),) = problems({**READ, "tag": "own"}, own=table)
    assert key == "features.tag.table"
    assert "'tag' has no vocabulary" in message


def test_a_hashed_table_has_no_proportion_for_what_has_no_vocabulary() -> None:
    """Alone it has all rows; beside others, of how many ids would its part be?"""
    hashed = {"method": "hashed", "rows": 8, "dim": 4}
    read = {**READ, "tag": "own", "tag_history": "own"}
    assert problems(read, own=hashed) == []
    ((key, message),) = problems({**read, "year": "own"}, own=hashed)
    assert key == "tables.own.method"
    assert "'tag' has none; give it a table of its own" in message


def test_fewer_rows_than_features() -> None:
    read = {**READ, "user_id": "own", "movie_id": "own", "history": "own", "year": "own"}
    read = {name: table for name, table in read.items() if table != "ids"}
    entries = {"tags": {"table": "hashed"}}
    hashed = {"method": "hashed", "dim": 4}
    found = [p for p in problems(read, entries, own={**hashed, "rows": 2}) if p[0] != "tables.ids"]
    assert found == [("tables.own.rows", "2 rows cannot be shared out among 3 features; raise it")]
    assert [p for p in problems(read, entries, own={**hashed, "rows": 3}) if p[0] != "tables.ids"] == []


@pytest.mark.parametrize("method", ["full", "mixed_dim", "mgqe", "vector"])
def test_chunks_where_an_id_has_one_row(method: str) -> None:
    table = {"method": method, "dim": 4, **({"path": "v.parquet"} if method == "vector" else {})}
    ((key, message),) = problems({**READ, "user_id": "own"}, {"user_id": {"chunks": 2}}, own=table)
    assert key == "features.user_id.chunks"
    assert f"table 'own' is {method}, which has one row for an id; set it to 1" in message


@pytest.mark.parametrize("method", ["hashed", "multiplexed"])
def test_chunks_where_an_id_may_have_many_rows(method: str) -> None:
    table = {"method": method, "dim": 4, "rows": 10}
    made = config({**READ, "user_id": "own"}, {"user_id": {"chunks": 3}, "tag": {"chunks": 2}}, own=table)
    assert made.problems(SCHEMA) == []
    assert made.width("user_id", SCHEMA.features["user_id"]) == 12
    assert made.width("tag", SCHEMA.features["tag"]) == 8
    assert made.width("tags", SCHEMA.features["tags"]) == 4


@pytest.mark.parametrize(
    ("name", "length", "message"),
    [
        ("history", 21, "21 is more than the schema's 20; lower it"),
        ("tags", 5, "5 is more than the schema's 4; lower it"),
        ("user_id", 1, "a categorical feature has one value; remove it"),
        ("year", 1, "a numeric feature has one value; remove it"),
    ],
)
def test_a_greatest_length_that_cannot_be(name: str, length: int, message: str) -> None:
    assert problems(entries={name: {"max_length": length}}) == [(f"features.{name}.max_length", message)]


def test_the_schemas_own_length_is_none_too_many() -> None:
    assert problems(entries={"history": {"max_length": 20}, "tags": {"max_length": 4}}) == []


@pytest.mark.parametrize("name", ["user_id", "year"])
def test_one_value_is_no_sequence(name: str) -> None:
    kind = SCHEMA.features[name].kind
    assert problems(entries={name: {"pooling": "none"}}) == [
        (f"features.{name}.pooling", f"a {kind} feature has one value; remove it")
    ]


def test_pooling_of_one_value_is_that_value() -> None:
    """One default for all features: `sum` of a single value says nothing wrong."""
    assert problems(entries={"user_id": {"pooling": "sum"}}) == []


@pytest.mark.parametrize(("name", "width"), [("image", 3), ("price", 1)])
def test_projections_are_for_given_vectors_and_numbers(name: str, width: int) -> None:
    assert problems(entries={name: {"projection": 8}}) == []
    assert problems(entries={name: {}}) == []
    made = config(entries={name: {"projection": 8}})
    assert made.width(name, SCHEMA.features[name]) == 8
    assert config().width(name, SCHEMA.features[name]) == width
    for more in ({"chunks": 2}, {"pooling": "none"}, {"table": "ids"}):
        assert problems(entries={name: {"projection": 8, **more}}) == [
            (
                f"features.{name}",
                f"a {SCHEMA.features[name].kind} feature reads no table; `projection` is all it may say",
            )
        ]


@pytest.mark.parametrize(("name", "kind"), [("user_id", "categorical"), ("year", "in buckets")])
def test_what_reads_a_table_is_not_projected(name: str, kind: str) -> None:
    assert problems(entries={name: {"projection": 8}}) == [
        (f"features.{name}.projection", f"only vectors and numbers are projected, and {name!r} is {kind}; remove it")
    ]


def test_given_vectors_belong_to_one_vocabulary() -> None:
    table = {"method": "vector", "path": "v.parquet", "dim": 4}
    assert problems({**READ, "movie_id": "own", "history": "own"}, own=table) == []
    ((key, message),) = problems({**READ, "movie_id": "own", "user_id": "own"}, own=table)
    assert key == "tables.own"
    assert "movie_id, user_id read them" in message


def test_parts_and_codes_of_a_codebook() -> None:
    def of(**more: Any) -> list[tuple[str, str]]:
        return problems({**READ, "user_id": "own"}, own={"method": "mgqe", "dim": 6, **more})

    assert of(parts=3) == []
    assert of(parts=4) == [("tables.own.parts", "4 does not divide dim 6")]
    assert of(parts=3, codes=16) == [("tables.own.tail_codes", "64 is more than codes, 16; lower it")]
    assert of(parts=3, codes=16, tail_codes=16) == []


@pytest.mark.parametrize("method", ["mixed_dim", "mgqe"])
def test_methods_that_decide_by_themselves_how_rows_are_served(method: str) -> None:
    table = {"method": method, "dim": 4, "served_precision": "int8"}
    ((key, message),) = problems({**READ, "user_id": "own"}, own=table)
    assert key == "tables.own.served_precision"
    assert f"{method} decides by itself" in message


def test_a_table_that_nobody_reads() -> None:
    assert problems(spare={"dim": 2}) == [("tables.spare", "no feature reads this table; remove it")]


def test_all_problems_come_at_once() -> None:
    read = {**READ, "price": "ids", "colour": "idz", "tag": "ids"}
    del read["user_id"]
    keys = [key for key, _ in problems(read, spare={"dim": 2})]
    expected = ["features", "features.price", "features.colour", "features.colour.table", "features.tag.table"]
    assert sorted(keys) == sorted([*expected, "tables.spare"])


def test_defaults() -> None:
    config = EmbeddingsConfig.model_validate({"tables": {"t": {"dim": 2}}, "features": {"f": {"table": "t"}}})
    assert config.tables["t"] == FullTable(dim=2, initializer=UniformConfig(range=0.05), precision="float32")
    assert config.optimizer == LazyAdamConfig(
        kind="lazy_adam", learning_rate=1e-3, beta_1=0.9, beta_2=0.999, epsilon=1e-8
    )
    entry = config.features["f"]
    assert (entry.pooling, entry.chunks, entry.max_length, entry.projection) == ("mean", 1, None, None)


def test_a_table_may_have_an_optimizer_of_its_own() -> None:
    made = config(own={"dim": 2, "optimizer": {"kind": "rowwise_adagrad", "learning_rate": 0.1}})
    assert made.optimizer_of("own") == RowwiseAdagradConfig(kind="rowwise_adagrad", learning_rate=0.1)
    assert made.optimizer_of("ids") == made.optimizer == LazyAdamConfig(kind="lazy_adam")


def test_whose_table_and_how_wide() -> None:
    made = config(vectors={"method": "vector", "path": "v.parquet", "dim": 9, "projection": 5})
    assert made.readers("ids") == ["user_id", "movie_id", "history", "year"]
    assert [row_width(table) for table in made.tables.values()] == [4, 4, 5]
    history = config(entries={"history": {"pooling": "none"}})
    assert history.width("history", SCHEMA.features["history"]) == 0
    assert history.width("price", SCHEMA.features["price"]) == 1


def test_given_vectors_are_found_from_a_folder(tmp_path: Path) -> None:
    tables = {"own": {"method": "vector", "path": "sub/v.parquet", "dim": 4}}
    made = config(**tables).at(tmp_path)
    assert made.tables["own"].path == str(tmp_path / "sub/v.parquet")  # type: ignore[union-attr]
    assert made.model_copy(update={"tables": {}}) == config().model_copy(update={"tables": {}})
    absolute = config(own={"method": "vector", "path": "/a/v.parquet", "dim": 4}).at(tmp_path)
    assert absolute.tables["own"].path == "/a/v.parquet"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "table",
    [
        {"dim": 0},
        {"dim": -1},
        {"dim": 2, "rows": 5},
        {"dim": 2, "method": "hashed"},
        {"dim": 2, "method": "hashed", "rows": 0},
        {"dim": 2, "method": "bloom"},
        {"dim": 2, "method": "multiplexed", "rows": 5, "tables": 0},
        {"dim": 2, "precision": "int4"},
        {"dim": 2, "method": "mgqe", "precision": "int8"},
        {"dim": 2, "method": "mgqe", "codes": 257},
        {"dim": 2, "method": "mgqe", "tail_codes": 1},
        {"dim": 2, "method": "mixed_dim", "alpha": -0.1},
        {"dim": 2, "method": "vector"},
        {"dim": 2, "method": "vector", "path": "v", "projection": 0},
        {"dim": 2, "method": "vector", "path": "v", "initializer": {"range": 0.1}},
        {"dim": 2, "initializer": {"range": 0}},
        {"dim": 2, "initializer": {"kind": "normal", "range": 0.1}},
    ],
    ids=str,
)
def test_a_table_that_makes_no_sense_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EmbeddingsConfig.model_validate({"tables": {"t": table}, "features": {"f": {"table": "t"}}})


@pytest.mark.parametrize(
    "entry",
    [
        {"table": "t", "chunks": 0},
        {"table": "t", "max_length": 0},
        {"table": "t", "pooling": "max"},
        {"table": "t", "projection": 0},
        {"tabel": "t"},
    ],
    ids=str,
)
def test_an_entry_that_makes_no_sense_is_refused(entry: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EmbeddingsConfig.model_validate({"tables": {"t": {"dim": 2}}, "features": {"f": entry}})
