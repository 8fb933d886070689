"""A feature must not be the very column that decides a label."""

from __future__ import annotations

import pytest

from recsys.errors import SchemaError

LIKED = {"positives": {"column": "stars", "at_least": 4}, "negatives": {"column": "stars", "at_most": 2}}


@pytest.fixture
def log(line):
    return {**line, "stars": [5, 1, 5, 5, 1, 5, 5, 2, 5, 4]}


FURTHER = {"labels": {"loved": {"column": "stars", "at_least": 5}}}


@pytest.mark.parametrize(
    "rules", [LIKED, {"positives": LIKED["positives"]}, {"negatives": LIKED["negatives"]}, FURTHER]
)
@pytest.mark.parametrize("role", ["context", "user", "item"])
def test_refused(run, log, rules, role):
    features = {"taste": {"kind": "numeric", "role": role, "column": "stars"}}
    with pytest.raises(SchemaError) as caught:
        run(log, features, **rules)
    (problem,) = caught.value.problems
    assert problem.place.endswith("events-0.parquet: column 'stars'")
    assert "decides a label" in problem.found
    assert "'taste'" in problem.found
    assert "input: false" in problem.cure


def test_not_where_the_model_does_not_read_it(run, log):
    result = run(log, {"stars": {"kind": "numeric", "role": "context", "input": False}}, **LIKED)
    assert {row["stars"] for row in result.examples("train")} == {1.0, 2.0, 5.0}


def test_not_a_column_of_that_name_in_the_items_table(run, log):
    items = {"item": [f"i{n}" for n in range(10)], "stars": [3] * 10}
    assert (
        "stars"
        in run(log, {"stars": {"kind": "numeric", "role": "item"}}, items=items, **LIKED).table("items").column_names
    )


def test_not_other_columns(run, log):
    assert run(log, {"stars": {"kind": "numeric", "role": "context"}}).info.counts.train == 8
