"""Conditions on items' columns, against Python on each row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.bundle.filters import REMEMBERED, ItemFilters
from recsys.errors import RequestError

ROWS: list[dict[str, Any]] = [
    {"item": "1", "genre": "drama", "year": "1999", "price": 5.0, "tags": ["new", "red"]},
    {"item": "2", "genre": "comedy", "year": "2001", "price": 20.0, "tags": []},
    {"item": "3", "genre": None, "year": "1999", "price": None, "tags": None},
    {"item": "4", "genre": "drama", "year": None, "price": 0.1, "tags": ["red"]},
    {"item": "5", "genre": "日本", "year": "true", "price": -3.5, "tags": ["red", "new", "red"]},
]
TABLE = pa.table(
    {
        "item": [row["item"] for row in ROWS],
        "raw.genre": pa.array([row["genre"] for row in ROWS]),
        "raw.year": pa.array([row["year"] for row in ROWS]),
        "raw.price": pa.array([row["price"] for row in ROWS], pa.float32()),
        "raw.tags": pa.chunked_array(
            [pa.array([row["tags"] for row in some], pa.list_(pa.string())) for some in (ROWS[:2], ROWS[2:])]
        ),
        "raw.taste": pa.array([[0.0, 1.0]] * 5, pa.list_(pa.float32(), 2)),
    }
)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, "12345"),
        ({"genre": "drama"}, "14"),
        ({"genre": {"equals": "drama"}}, "14"),
        ({"genre": ["drama", "日本"]}, "145"),
        ({"genre": {"not_in": ["drama"]}}, "235"),
        ({"genre": "no such genre"}, ""),
        ({"year": 1999}, "13"),
        ({"year": True}, "5"),
        ({"item": {"in": [2, "5", "99"]}}, "25"),
        ({"price": 20}, "2"),
        ({"price": 0.1}, "4"),
        ({"price": {"at_most": 5}}, "145"),
        ({"price": {"below": 5}}, "45"),
        ({"price": {"above": 5, "at_most": 20.0}}, "2"),
        ({"price": {"at_least": 0.1, "not_in": [20]}}, "14"),
        ({"price": {"in": [5, -3.5]}}, "15"),
        ({"tags": "new"}, "15"),
        ({"tags": ["new", "blue"]}, "15"),
        ({"tags": {"contains": "red"}}, "145"),
        ({"tags": {"contains": ["red", "new"]}}, "15"),
        ({"tags": {"not_in": ["new"]}}, "234"),
        ({"genre": "drama", "tags": "new", "price": {"below": 6}}, "1"),
    ],
)
def test_conditions(where: dict[str, Any], expected: str) -> None:
    found = ItemFilters(TABLE).allowed(where)
    assert "".join(ROWS[n]["item"] for n in found.ids) == expected


@given(
    rows=st.lists(st.lists(st.sampled_from("abcd"), max_size=4) | st.none(), min_size=1, max_size=30),
    wanted=st.lists(st.sampled_from("abcde"), min_size=1, max_size=3),
)
def test_lists_of_values(rows: list[list[str] | None], wanted: list[str]) -> None:
    filters = ItemFilters(pa.table({"raw.tags": pa.array(rows, pa.large_list(pa.string()))}))
    one = [bool(row and set(row) & set(wanted)) for row in rows]
    assert filters.allowed({"tags": wanted}).mask.tolist() == one
    assert filters.allowed({"tags": {"not_in": wanted}}).mask.tolist() == [not each for each in one]
    every = [bool(row and set(wanted) <= set(row)) for row in rows]
    assert filters.allowed({"tags": {"contains": wanted}}).mask.tolist() == every


def test_deleted_items_satisfy_nothing() -> None:
    table = TABLE.append_column("deleted", pa.array([False, False, True, False, False]))
    filters = ItemFilters(table)
    assert filters.allowed({"year": "1999"}).ids.tolist() == [0]
    assert filters.allowed({"genre": {"not_in": ["drama"]}}).ids.tolist() == [1, 4]
    with pytest.raises(RequestError, match=r"where\.deleted: no such column"):
        filters.allowed({"deleted": "true"})


def test_a_filter_is_found_once() -> None:
    filters = ItemFilters(TABLE)
    first = filters.allowed({"genre": "drama", "price": 5})
    assert filters.allowed({"price": 5, "genre": "drama"}) is first
    for n in range(REMEMBERED):
        filters.allowed({"genre": f"genre {n}"})
    again = filters.allowed({"genre": "drama", "price": 5})
    assert again is not first
    np.testing.assert_array_equal(again.mask, first.mask)


@pytest.mark.parametrize(
    ("where", "problem"),
    [
        ({"gener": "drama"}, "where.gener: no such column of the items; expected one of .*; did you mean genre"),
        ({"taste": 1.0}, "where.taste: no such column"),
        ({"genre": 1.5}, r"where.genre.equals\[0\]: the float 1.5"),
        ({"genre": None}, "a missing value; expected values"),
        ({"genre": {}}, "an empty condition"),
        ({"genre": []}, "expected a list with at least one value"),
        ({"genre": {"in": "drama"}}, "where.genre.in: drama; expected a list"),
        ({"genre": {"at_most": 5}}, "where.genre.at_most: no such condition on text.*ranges are for numeric"),
        ({"genre": {"contains": "a"}}, "where.genre.contains: no such condition on text"),
        ({"genre": {"in": [["a"]]}}, r"where.genre.in\[0\]: list"),
        ({"price": "cheap"}, r"where.price.equals\[0\]: str cheap; expected a number"),
        ({"price": {"at_most": None}}, "null; expected a number"),
        ({"price": {"at_most": True}}, "bool True"),
        ({"price": {"at_most": float("nan")}}, "expected a finite float32"),
        ({"price": {"near": 5}}, "where.price.near: no such condition on numbers"),
        ({"price": {"in": []}}, "at least one number"),
        ({"tags": {"contains": []}}, "at least one value"),
    ],
)
def test_mistakes(where: dict[str, Any], problem: str) -> None:
    with pytest.raises(RequestError, match=problem):
        ItemFilters(TABLE).allowed(where)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(RequestError) as caught:
        ItemFilters(TABLE).allowed({"a": 1, "price": "x", "genre": "drama"})
    assert [problem.place for problem in caught.value.problems] == ["where.a", "where.price.equals[0]"]
    loop: dict[str, Any] = {}
    loop["a"] = loop
    with pytest.raises(RequestError, match="where: is no JSON"):
        ItemFilters(TABLE).allowed(loop)
