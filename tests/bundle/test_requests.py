"""Requests to arrays: shapes, padding, truncation, and every refusal with its place and cure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from recsys.bundle import RequestEncoder, fields_of
from recsys.bundle.manifest import CategoricalField, MultiValuedField, NumericField, SequenceField, VectorField
from recsys.errors import RequestError
from recsys.schema.config import SchemaConfig
from tests.tiny_bundle import REQUEST

encoder = RequestEncoder(REQUEST)


def encode(*requests: dict[str, Any]) -> dict[str, np.ndarray]:
    return encoder.encode(requests)


def test_values_of_every_kind() -> None:
    arrays = encode(
        {
            "genre": "drama",
            "tags": ["a", 7, True],
            "watched": [10, "2"],
            "watched.age": [60, 0.5],
            "price": 3,
            "taste": [1, 0.25],
        },
        {},
    )
    assert arrays["genre"].tolist() == ["drama", ""]
    assert arrays["tags"].tolist() == [["a", "7"], ["", ""]]
    assert arrays["watched"].tolist() == [["10", "2"], ["", ""]]
    np.testing.assert_array_equal(arrays["watched.age"], np.array([[60, 0.5], [0, 0]], np.float32))
    np.testing.assert_array_equal(arrays["price"], np.array([3, np.nan], np.float32))
    np.testing.assert_array_equal(arrays["taste"], np.array([[1, 0.25], [0, 0]], np.float32))
    assert set(arrays) == encoder.inputs
    assert {name: array.dtype for name, array in arrays.items()} == {
        "genre": object,
        "tags": object,
        "watched": object,
        "watched.age": np.float32,
        "price": np.float32,
        "taste": np.float32,
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [(42, "42"), (-7, "-7"), (True, "true"), (False, "false"), (None, ""), ("", ""), ("été 日本", "été 日本")],
)
def test_categories_become_text(value: object, text: str) -> None:
    assert encode({"genre": value})["genre"].tolist() == [text]
    assert encode({"watched": ["a", value], "watched.age": [2, 1]})["watched"].tolist() == [["a", text]]


def test_sequences_keep_the_newest_with_their_ages_and_sets_the_first() -> None:
    events, ages = ["a", "b", None, "d"], [4, 3, 2, 1]
    arrays = encode({"watched": events, "watched.age": ages, "tags": ["x", None, "", "y", "z"]})
    assert arrays["watched"].tolist() == [["b", "", "d"]]
    assert arrays["watched.age"].tolist() == [[3, 2, 1]]
    assert arrays["tags"].tolist() == [["x", "y"]]


def test_lists_are_padded_at_the_end_to_the_longest_of_the_batch() -> None:
    arrays = encode({"tags": ["x"]}, {"watched": ["a", "b"], "watched.age": [2, 1]}, {"tags": []})
    assert arrays["tags"].tolist() == [["x"], [""], [""]]
    assert arrays["watched"].tolist() == [["", ""], ["a", "b"], ["", ""]]
    assert arrays["watched.age"].tolist() == [[0, 0], [2, 1], [0, 0]]


def test_no_request_and_no_history_keep_their_shapes() -> None:
    shapes = {name: array.shape for name, array in encode().items()}
    assert shapes == {
        "genre": (0,),
        "tags": (0, 1),
        "watched": (0, 1),
        "watched.age": (0, 1),
        "price": (0,),
        "taste": (0, 2),
    }
    assert encode({})["watched"].shape == (1, 1)


@pytest.mark.parametrize(
    ("features", "place", "found", "cure"),
    [
        ({"genr": "drama"}, "features.genr", "no such feature", "did you mean genre?"),
        ({"qqqqqq": 1}, "features.qqqqqq", "no such feature", "leave it out"),
        ({"watched.ages": [1]}, "features.watched.ages", "no such feature", "did you mean watched.age?"),
        ({"\ud800": 1}, r"'features.\ud800'", "no such feature", "leave it out"),
        ({"genre": 1.0}, "features.genre", "the float 1.0", "text or integers"),
        ({"genre": float("nan")}, "features.genre", "the float nan", "text or integers"),
        ({"genre": ["drama"]}, "features.genre", "list ['drama']", "send one value"),
        ({"genre": {"a": 1}}, "features.genre", "dict {'a': 1}", "send one value"),
        ({"genre": "\ud800"}, "features.genre", r"'\ud800'", "valid UTF-8"),
        ({"tags": "new"}, "features.tags", "str new", "send a JSON list"),
        ({"tags": ["new", 1.5]}, "features.tags[1]", "the float 1.5", "text or integers"),
        ({"tags": ["new", ["old"]]}, "features.tags[1]", "list ['old']", "send one value"),
        ({"watched": 7}, "features.watched", "int 7", "send a JSON list"),
        ({"watched": {"10": 1}}, "features.watched", "dict {'10': 1}", "send a JSON list"),
        ({"watched": ["10"]}, "features.watched.age", "0 ages", "age in seconds"),
        ({"watched.age": [1]}, "features.watched.age", "1 ages", "age in seconds"),
        ({"watched": ["10"], "watched.age": [1, 2]}, "features.watched.age", "2 ages", "age in seconds"),
        ({"watched": ["10"], "watched.age": [-1]}, "features.watched.age[0]", "-1 seconds", "how long ago"),
        ({"watched": ["10"], "watched.age": [None]}, "features.watched.age[0]", "null", "send null for the whole"),
        ({"watched": ["10"], "watched.age": ["1"]}, "features.watched.age[0]", "str 1", "JSON number"),
        ({"watched": ["10"], "watched.age": 1}, "features.watched.age", "int 1", "JSON list"),
        ({"price": "3"}, "features.price", "str 3", "JSON number"),
        ({"price": True}, "features.price", "bool True", "JSON number"),
        ({"price": float("nan")}, "features.price", "nan", "null for a missing number"),
        ({"price": float("-inf")}, "features.price", "-inf", "null for a missing number"),
        ({"price": 1e39}, "features.price", "1e+39", "null for a missing number"),
        ({"price": 10**400}, "features.price", "100000", "null for a missing number"),
        ({"taste": [1.0]}, "features.taste", "a list of 1", "null for a missing vector"),
        ({"taste": [1, 2, 3]}, "features.taste", "a list of 3", "null for a missing vector"),
        ({"taste": []}, "features.taste", "a list of 0", "null for a missing vector"),
        ({"taste": [1, float("inf")]}, "features.taste[1]", "inf", "null for a missing number"),
        ({"taste": [1, None]}, "features.taste[1]", "null", "null for the whole vector"),
        ({"taste": 3}, "features.taste", "int 3", "JSON list"),
    ],
)
def test_refusals_name_place_found_and_cure(features: dict[str, Any], place: str, found: str, cure: str) -> None:
    with pytest.raises(RequestError) as caught:
        encode(features)
    (problem,) = caught.value.problems
    assert problem.place == place
    assert found in problem.found
    assert cure in problem.cure
    assert problem.expected
    str(problem).encode()  # printable anywhere
    assert len(problem.found) < 150


def test_all_problems_at_once_and_the_request_that_has_them() -> None:
    with pytest.raises(RequestError) as caught:
        encode({}, {"genre": 1.5, "price": "x"}, {"taste": [1]})
    assert [p.place for p in caught.value.problems] == [
        "requests[1].features.genre",
        "requests[1].features.price",
        "requests[2].features.taste",
    ]


def test_fields_of_a_schema() -> None:
    schema = SchemaConfig.model_validate(
        {
            "user": "u",
            "item": "i",
            "timestamp": "t",
            "features": {
                "movie": {"kind": "categorical", "role": "item"},
                "genres": {"kind": "multi_valued", "role": "item", "max_length": 4},
                "history": {"kind": "sequence", "of": "movie", "max_length": 9, "age": True},
                "hour": {"kind": "numeric", "role": "context"},
                "taste": {"kind": "vector", "role": "user", "dim": 3},
            },
        }
    )
    assert fields_of(schema, "user", "context") == {
        "history": SequenceField(of="movie", max_length=9, age=True),
        "hour": NumericField(role="context"),
        "taste": VectorField(role="user", dim=3),
    }
    assert fields_of(schema, "item") == {
        "movie": CategoricalField(role="item"),
        "genres": MultiValuedField(role="item", max_length=4),
    }
