"""Recommendations computed by hand on the tiny bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recsys.bundle import Bundle
from recsys.errors import RequestError
from serving import Pipeline, Request
from tests.tiny_bundle import DAY


@pytest.fixture(scope="module")
def pipeline(tiny_bundle: Path) -> Pipeline:
    return Pipeline(Bundle.load(tiny_bundle))


def answer(pipeline: Pipeline, **request: Any) -> list[tuple[str, float]]:
    return [(i.item, i.score) for i in pipeline.recommend(Request.of(**request)).items]


# User 1: comedy 2; the newest three of the history 4*1 + 2*2 + 3*3 = 17; 2 + 1 + 0 days; no price -1, new 10, taste 50.
ALL_OF_USER_1 = [("9", 59), ("日本", 29.5), ("2", 17), ("3", 3), ("10", 2), ("é", -2)]


def test_a_known_user(pipeline: Pipeline) -> None:
    assert answer(pipeline, user="1", exclude_seen=False) == ALL_OF_USER_1
    assert answer(pipeline, user="1", exclude_seen=False, k=2) == ALL_OF_USER_1[:2]
    assert answer(pipeline, user=1, k=1000) == [("日本", 29.5), ("é", -2)]


def test_titles_user_and_bundle(pipeline: Pipeline) -> None:
    found = pipeline.recommend(Request(user="1", exclude_seen=False, k=2))
    assert [(i.item, i.title) for i in found.items] == [("9", None), ("日本", "日本 (1959)")]
    assert (found.user, found.bundle.name, found.bundle.version) == ("1", "tiny", 1)
    assert pipeline.recommend(Request(features={})).user is None


def test_excluded_items(pipeline: Pipeline) -> None:
    request = {"user": "1", "exclude": ["日本", "no such item"]}
    assert answer(pipeline, **request) == [("é", -2)]
    assert [i for i, _ in answer(pipeline, **request, exclude_seen=False)] == ["9", "2", "3", "10", "é"]
    assert [i for i, _ in answer(pipeline, user="1", exclude=[9, 9, 2], exclude_seen=False)] == [
        "日本",
        "3",
        "10",
        "é",
    ]
    everything = ["10", "2", "3", "9", "é", "日本"]
    assert answer(pipeline, features={}, exclude=everything) == []


def test_raw_features_alone(pipeline: Pipeline) -> None:
    features = {"genre": "drama", "watched": [10, 2], "watched.age": [DAY, 0], "price": 2}
    # e = (1, 1*1 + 2*2, 1, 2)
    assert answer(pipeline, features=features) == [("2", 5), ("9", 2), ("10", 1), ("3", 1), ("日本", 1), ("é", -1)]


def test_features_stand_in_for_the_users_own(pipeline: Pipeline) -> None:
    """A context feature comes from the request; a history given replaces the stored one with its ages."""
    scores = dict(answer(pipeline, user="1", features={"price": 5, "genre": "drama"}, exclude_seen=False))
    assert scores == {"9": 65, "日本": 32.5, "2": 17, "3": 3, "10": 1, "é": -1}
    given = {"watched": ["é"], "watched.age": [DAY * 4]}
    scores = dict(answer(pipeline, user="1", features=given, exclude_seen=False))
    assert (scores["2"], scores["3"]) == (5, 4)
    scores = dict(answer(pipeline, user="1", features={"watched": None}, exclude_seen=False))
    assert (scores["2"], scores["3"]) == (0, 0)
    scores = dict(answer(pipeline, user="1", features={"genre": None}, exclude_seen=False))
    assert scores["10"] == 0


def test_ages_are_measured_from_the_request(pipeline: Pipeline) -> None:
    """3 days at the newest event; one day later each of the three is a day older."""
    assert dict(answer(pipeline, user="1", exclude_seen=False))["3"] == 3
    assert dict(answer(pipeline, user="1", exclude_seen=False, time=3 * DAY))["3"] == 3
    assert dict(answer(pipeline, user="1", exclude_seen=False, time=4 * DAY))["3"] == 6
    with pytest.raises(RequestError) as caught:
        answer(pipeline, user="1", time=3 * DAY - 1)
    (problem,) = caught.value.problems
    assert (problem.place, problem.expected) == ("time", f"{3 * DAY} or later, in s")
    assert dict(answer(pipeline, user="42", time=-1))["3"] == 0  # no history, no age


def test_a_user_without_a_history_or_features(pipeline: Pipeline) -> None:
    scores = dict(answer(pipeline, user="42"))
    assert scores == {"10": 0, "2": 0, "3": 0, "é": 0, "9": -1, "日本": -0.5}


def test_unicode_user(pipeline: Pipeline) -> None:
    # drama 1; 日本 is item 5: 6 * 1; age 0; -1 + 250; 日本 itself is seen
    assert answer(pipeline, user="zoë") == [("9", 249), ("2", 6), ("10", 1), ("3", 0), ("é", -1)]


def test_a_history_is_the_newest_first(pipeline: Pipeline) -> None:
    assert [(i.item, i.title) for i in pipeline.history("1", 3)] == [("3", "Three"), ("2", "Two"), ("9", None)]
    assert len(pipeline.history(1, 10)) == 4
    assert pipeline.history("42", 10) == []


def test_an_embedding_that_is_not_finite_is_the_requests_fault(pipeline: Pipeline) -> None:
    with pytest.raises(RequestError, match="features: the query's embedding is not finite"):
        answer(pipeline, features={"taste": [3e38, 3e38]})


@pytest.mark.parametrize(
    ("request_", "place", "cure"),
    [
        ({}, "request", '{"user": "42"}'),
        ({"user": 1.5}, "user", "send ids as text"),
        ({"user": True}, "user", "send ids as text"),
        ({"user": ["1"]}, "user", "send ids as text"),
        ({"user": "\ud800"}, "user", "send valid UTF-8"),
        ({"user": "1", "k": 0}, "k", "leave it out for the default"),
        ({"user": "1", "k": 1001}, "k", "leave it out for the default"),
        ({"user": "1", "k": "10"}, "k", "leave it out for the default"),
        ({"user": "1", "k": 10.5}, "k", "leave it out for the default"),
        ({"user": "1", "K": 10}, "K", "leave it out"),
        ({"user": "1", "\ud800": 10}, "request", "leave it out"),
        ({"user": "1", "exclude": "2"}, "exclude", "leave it out for the default"),
        ({"user": "1", "exclude": [2, 2.5]}, "exclude.1", "send ids as text"),
        ({"user": "1", "exclude": [None]}, "exclude.0", "send ids as text"),
        ({"user": "1", "exclude_seen": "yes"}, "exclude_seen", "leave it out for the default"),
        ({"user": "1", "exclude_seen": 1}, "exclude_seen", "leave it out for the default"),
        ({"user": "1", "time": "now"}, "time", "leave it out for the default"),
        ({"features": {}, "time": 1}, "request", '{"user": "42"}'),
        ({"features": []}, "features", "send a JSON object"),
        ({"features": {"price": "3"}}, "features.price", "send a JSON number"),
        ({"features": {"prices": 3}}, "features.prices", "did you mean price?"),
    ],
)
def test_refusals(pipeline: Pipeline, request_: dict[str, Any], place: str, cure: str) -> None:
    with pytest.raises(RequestError) as caught:
        answer(pipeline, **request_)
    (problem,) = caught.value.problems
    assert problem.place == place
    assert cure in problem.cure
    assert problem.found
    assert problem.expected
    str(problem).encode()
