"""What does not fit between `embeddings` and `schema` is named, all of it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from recsys.embeddings.config import EmbeddingsConfig, FullTable, LazyAdamConfig
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
            "tags": {"kind": "multi_valued", "role": "item", "encoding": {"kind": "hash"}},
            "tag_history": {"kind": "sequence", "of": "tag"},
            "history": {"kind": "sequence", "of": "movie_id"},
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


def problems(read: dict[str, str], **more_tables: Any) -> list[tuple[str, str]]:
    tables = {"ids": {"dim": 4}, "hashed": {"method": "hashed", "rows": 8, "dim": 4}, **more_tables}
    config = EmbeddingsConfig.model_validate(
        {"tables": tables, "features": {name: {"table": table} for name, table in read.items()}}
    )
    return config.problems(SCHEMA)


def test_what_fits_has_no_problem() -> None:
    assert problems(READ) == []
    everything_hashed = dict.fromkeys(READ, "hashed")
    assert problems(everything_hashed) == [("tables.ids", "no feature reads this table; remove it")]


@pytest.mark.parametrize("name", READ)
def test_a_feature_without_a_table(name: str) -> None:
    (problem,) = problems({n: table for n, table in READ.items() if n != name})
    assert problem[0] == "features"
    assert f"'{name}' ({SCHEMA.features[name].kind}) has no entry" in problem[1]


@pytest.mark.parametrize(("name", "kind"), [("price", "numeric"), ("image", "vector")])
def test_a_table_for_a_feature_that_reads_none(name: str, kind: str) -> None:
    assert problems({**READ, name: "ids"}) == [
        (f"features.{name}", f"a {kind} feature reads no table; remove the entry")
    ]


def test_a_feature_that_the_schema_lacks() -> None:
    ((key, message),) = problems({**READ, "colour": "ids"})
    assert key == "features.colour"
    assert "no feature 'colour' in the schema; it has user_id, movie_id," in message


def test_a_table_that_is_not_there() -> None:
    assert problems({**READ, "year": "idz"}) == [
        ("features.year.table", "no table 'idz'; the tables are ids, hashed"),
    ]


@pytest.mark.parametrize("name", ["tag", "tags", "tag_history"])
def test_a_full_table_cannot_hold_what_has_no_vocabulary(name: str) -> None:
    ((key, message),) = problems({**READ, name: "ids"})
    assert key == f"features.{name}.table"
    assert f"'{name}' has no vocabulary" in message
    assert "`method: hashed`" in message


def test_a_table_that_nobody_reads() -> None:
    assert problems(READ, spare={"dim": 2}) == [("tables.spare", "no feature reads this table; remove it")]


def test_all_problems_come_at_once() -> None:
    read = {**READ, "price": "ids", "colour": "idz", "tag": "ids"}
    del read["user_id"]
    keys = [key for key, _ in problems(read, spare={"dim": 2})]
    expected = ["features", "features.price", "features.colour", "features.colour.table", "features.tag.table"]
    assert sorted(keys) == sorted([*expected, "tables.spare"])


def test_defaults() -> None:
    config = EmbeddingsConfig.model_validate({"tables": {"t": {"dim": 2}}, "features": {"f": {"table": "t"}}})
    assert config.tables["t"] == FullTable(dim=2, initial_range=0.05)
    assert config.optimizer == LazyAdamConfig(
        kind="lazy_adam", learning_rate=1e-3, beta_1=0.9, beta_2=0.999, epsilon=1e-8
    )
    assert config.features["f"].pooling == "mean"


@pytest.mark.parametrize(
    "table", [{"dim": 0}, {"dim": 2, "rows": 5}, {"dim": 2, "method": "hashed"}, {"dim": 2, "method": "bloom"}]
)
def test_a_table_that_makes_no_sense_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EmbeddingsConfig.model_validate({"tables": {"t": table}, "features": {"f": {"table": "t"}}})
