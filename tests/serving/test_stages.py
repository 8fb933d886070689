"""The stages of an answer: rank, rules, and what is said when one is left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from recsys.bundle import Bundle, UnknownUserError
from recsys.errors import BundleError, ConfigError, RequestError
from serving import Pipeline, Request
from serving.config import Batching, Budgets, Limits, ServingConfig, Together
from serving.features import SqliteStoreConfig, StoredUser, StoreError
from serving.log.config import LogConfig
from serving.messages import (
    EmbedRequest,
    EventRequest,
    FeedbackRequest,
    ItemsRequest,
    RankRequest,
    Recommendations,
    Why,
)
from serving.pipeline.stages import Budget, LateError
from serving.reranking import RulesConfig
from tests.tiny_bundle import DAY, ITEMS, VECTORS

LONG = 60.0


@pytest.fixture(scope="module")
def bundle(ranked_bundle: Path) -> Bundle:
    return Bundle.load(ranked_bundle)


PATIENT = Budgets(features=1_000 * LONG, rank=1_000 * LONG)
"""No test fails for a slow machine."""


def patient(bundle: Bundle, **config: Any) -> Pipeline:
    return Pipeline(bundle, ServingConfig(**({"budgets": PATIENT} | config)))


@pytest.fixture(scope="module")
def pipeline(bundle: Bundle) -> Pipeline:
    return patient(bundle)


def listed(answer: Recommendations) -> list[str]:
    return [item.item for item in answer.items]


def sigmoid(logit: float) -> float:
    return float(1 / (1 + np.exp(-logit)))


def test_the_ranker_orders_what_was_retrieved(pipeline: Pipeline) -> None:
    """User 1 likes comedies, so log-odds rise with the item; for an unknown genre they fall."""
    answer = pipeline.recommend(Request(user="1", exclude_seen=False, k=3))
    assert [(item.item, item.score) for item in answer.items] == [
        (name, pytest.approx(sigmoid(code), rel=1e-6)) for name, code in (("日本", 6), ("é", 5), ("9", 4))
    ]
    assert (answer.degraded, set(answer.milliseconds)) == ((), {"features", "retrieve", "rank", "rerank"})
    unheard = pipeline.recommend(Request(user="1", features={"genre": "unheard of"}, exclude_seen=False))
    assert listed(unheard) == ITEMS
    # Equal scores stay in the order of retrieval, which is by the price and one other component.
    equal = pipeline.recommend(Request(features={"price": 5, "watched": ["10"], "watched.age": [DAY]}))
    assert listed(equal) == ["9", "日本", "2", "3", "10", "é"]


def test_ranked_scores_are_those_of_pairs(pipeline: Pipeline, bundle: Bundle) -> None:
    for features in ({"genre": "drama", "watched": [2, "é"]}, {"genre": "comedy"}, {}):
        request = Request(features=features | {"watched.age": [0.0] * len(features.get("watched", []))})
        found = pipeline.recommend(request).items
        pairs = [{**(request.features or {}), "movie": item.item} for item in found]
        pairs = [{k: v for k, v in pair.items() if k in bundle.pair_encoder.inputs} for pair in pairs]
        np.testing.assert_allclose([item.score for item in found], bundle.score(pairs), rtol=1e-5)


def test_fewer_candidates_than_items(bundle: Bundle) -> None:
    """The ranker sees the best two of retrieval alone; but no fewer than are asked for."""
    two = patient(bundle, candidates=2)
    assert listed(two.recommend(Request(user="1", exclude_seen=False, k=1))) == ["日本"]
    assert listed(two.recommend(Request(user="1", exclude_seen=False, k=2))) == ["日本", "9"]
    assert len(two.recommend(Request(user="1", exclude_seen=False, k=4)).items) == 4


def test_explained(pipeline: Pipeline) -> None:
    """Retrieval has 9 (59), 日本 (29.5), 2 (17) first; the newest three of the history are 9 (4), 2 (2), 3 (3)."""
    answer = pipeline.recommend(Request(user="1", exclude_seen=False, k=2, explain=True))
    weighed = {"9": 4.0, "2": 2.0, "3": 3.0}
    assert [item.why for item in answer.items] == [
        Why(
            retrieved=place,
            retrieval_score=score,
            ranked=ranked,
            ranker_score=item.score,
            history=weighed,
            fields={"genre": 0.25, "movie": 0.75},
        )
        for (place, score, ranked), item in zip(((2, 29.5, 1), (6, -2.0, 2)), answer.items, strict=True)
    ]
    given = Request(features={"watched": [9, 9, "é"], "watched.age": [0, 0, 0]}, k=1, explain=True)
    (item,) = pipeline.recommend(given).items
    assert item.why is not None
    assert item.why.history == {"9": 8.0, "é": 5.0}
    assert pipeline.recommend(Request(features={}, k=1)).items[0].why is None


def test_rank(pipeline: Pipeline, tiny_bundle: Path) -> None:
    answer = pipeline.rank(RankRequest(user=1, items=("2", "日本", 9), explain=True))
    assert [item.item for item in answer.items] == ["日本", "9", "2"]
    assert [item.why.ranked for item in answer.items if item.why] == [1, 2, 3]
    assert answer.items[2].score == pytest.approx(sigmoid(2), rel=1e-6)
    with pytest.raises(RequestError, match=r"items\[1\]: 'no' is not in the catalogue"):
        pipeline.rank(RankRequest(user=1, items=("2", "no")))
    with pytest.raises(UnknownUserError, match="no user 'nobody'"):
        pipeline.rank(RankRequest(user="nobody", items=("2",)))
    with pytest.raises(BundleError, match="there is no ranker in this bundle"):
        Pipeline(Bundle.load(tiny_bundle)).rank(RankRequest(user=1, items=("2",)))


@contextmanager
def held(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The ranker does not answer inside."""
    go, ranking = Event(), pipeline._ranking
    assert ranking is not None
    scores = ranking.scores

    def late(*given: Any) -> Any:
        assert go.wait(LONG)
        return scores(*given)

    with monkeypatch.context() as patched:
        patched.setattr(ranking, "scores", late)
        yield
        go.set()


def test_a_late_ranker_is_done_without(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline(bundle, ServingConfig(budgets=Budgets(rank=50), threads=2))
    with held(pipeline, monkeypatch):
        for _ in range(3):  # the third one finds no thread that is free
            answer = pipeline.recommend(Request(user="1", exclude_seen=False, k=2, explain=True))
            assert [(item.item, item.score) for item in answer.items] == [("9", 59), ("日本", 29.5)]
            assert answer.degraded == ("ranker",)
            assert answer.items[0].why == Why(retrieved=1, retrieval_score=59.0)
    while (again := pipeline.recommend(Request(user="1", exclude_seen=False, k=2))).degraded:
        pass  # until those that were held have ended
    assert listed(again) == ["日本", "é"]


def test_late_work_that_has_not_begun_never_begins() -> None:
    budget, go, begun = Budget("test", 50, 1), Event(), list[str]()
    with pytest.raises(LateError):
        budget.spent_on(lambda: go.wait(LONG))
    with pytest.raises(LateError):
        budget.spent_on(lambda: begun.append("second"))
    go.set()
    while True:
        try:
            budget.spent_on(lambda: begun.append("third"))
            break
        except LateError:
            pass
    assert set(begun) == {"third"}
    with pytest.raises(ZeroDivisionError):
        budget.spent_on(lambda: 1 // 0)


def test_an_unknown_user_gets_what_is_popular(pipeline: Pipeline) -> None:
    """By training events: 2, 9, é, 10, 日本, 3; of equal ones the first of the catalogue."""
    answer = pipeline.recommend(Request(user="nobody"))
    assert (listed(answer), answer.degraded, answer.user) == (
        ["2", "9", "é", "10", "日本", "3"],
        ("unknown_user",),
        "nobody",
    )
    assert [item.score for item in answer.items[:2]] == [1, 0.5]
    assert listed(pipeline.recommend(Request(user="nobody", k=2, exclude=("9",)))) == ["2", "é"]
    assert listed(pipeline.recommend(Request(user="nobody", only=("3", "10")))) == ["10", "3"]
    assert listed(pipeline.recommend(Request(user="nobody", where={"movie": ["3", "日本"]}))) == ["日本", "3"]
    with pytest.raises(RequestError, match="no such column"):
        pipeline.recommend(Request(user="nobody", where={"no": 1}))
    features = pipeline.recommend(Request(user="nobody", features={"genre": "comedy"}))
    assert (features.degraded, features.items[0].item) == ((), "日本")


def test_what_is_popular_follows_the_shelf(ranked_bundle: Path) -> None:
    pipeline = Pipeline(Bundle.load(ranked_bundle))
    pipeline.update(ItemsRequest(delete=("9",), upsert=({"item": "new", "movie": "2"},)))
    assert listed(pipeline.recommend(Request(user="nobody"))) == ["2", "é", "10", "日本", "3", "new"]


def test_changes_outlive_the_server(ranked_bundle: Path, tmp_path: Path) -> None:
    folder = str(tmp_path / "changes")
    patient(Bundle.load(ranked_bundle), journal=folder).update(
        ItemsRequest(delete=("日本",), upsert=({"item": "new", "movie": "é"},))
    )
    again = patient(Bundle.load(ranked_bundle), journal=folder)
    assert listed(again.recommend(Request(user="1", exclude_seen=False, k=3))) == ["é", "new", "9"]
    assert listed(patient(Bundle.load(ranked_bundle)).recommend(Request(user="1", k=1))) == ["日本"]


class Store:
    """Users in a dictionary; it may be down, or slow."""

    def __init__(self, users: Mapping[str, StoredUser]) -> None:
        self.users = users
        self.error: Exception | None = None
        self.go = Event()
        self.go.set()

    def get(self, user: str) -> StoredUser | None:
        assert self.go.wait(LONG)
        if self.error is not None:
            raise self.error
        return self.users.get(user)


def test_the_online_store(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its features and history come before the bundle's; without it there are the bundle's, and the answer says so."""
    fresh = StoredUser({"genre": "drama", "gone": 1}, ("日本", "not in the catalogue", "2"), (0, DAY, 2 * DAY), ("10",))
    store = Store({"1": fresh, "new": fresh, "bad": StoredUser({"genre": 1.5})})
    monkeypatch.setattr("serving.pipeline.pipeline.open_store", lambda _: store)
    budgets = Budgets(features=500, rank=1_000 * LONG)
    pipeline = patient(bundle, features=SqliteStoreConfig(path="unused"), budgets=budgets)

    def asked(user: str) -> Recommendations:
        return pipeline.recommend(Request(user=user, explain=True))

    # User 1 is seen to have met 10, 2, 3 and 9 by the bundle. Drama: log-odds rise with the item. Tags and taste are
    # the bundle's own: 2 days, -1 + 10 + 50.
    answer = asked("1")
    assert (listed(answer), answer.degraded) == (["日本", "é"], ())
    assert answer.items[0].why == Why(
        retrieved=1,
        retrieval_score=29.5,
        ranked=1,
        ranker_score=answer.items[0].score,
        history={"日本": 6.0, "2": 2.0},
        fields={"genre": 0.25, "movie": 0.75},
    )
    assert answer.items[0].score == pytest.approx(sigmoid(3), rel=1e-6)
    new = asked("new")
    assert (listed(new), new.degraded) == (["日本", "é", "9", "3", "2"], ())
    assert [item.item for item in pipeline.history("new")] == ["2", "日本"]
    assert asked("42").degraded == asked("nobody").degraded[1:] == ()

    store.error = StoreError("store", "is down")
    down = asked("1")
    assert (listed(down), down.degraded) == (["日本", "é"], ("features",))
    assert down.items[0].score == pytest.approx(sigmoid(6), rel=1e-6)
    assert asked("new").degraded == ("features", "unknown_user")
    store.error = None
    store.go.clear()
    assert asked("1").degraded == ("features",)
    store.go.set()
    assert asked("bad").degraded == ("features", "unknown_user")


def test_the_files_store_is_opened(bundle: Bundle, tmp_path: Path) -> None:
    pipeline = patient(bundle, features=SqliteStoreConfig(path=str(tmp_path / "users.db")))
    assert listed(pipeline.recommend(Request(user="1"))) == ["日本", "é"]
    assert (tmp_path / "users.db").exists()


def test_an_event_is_seen_by_the_next_request(bundle: Bundle, tmp_path: Path) -> None:
    """User 42 has met nothing, and then 9: one event, of item code 4, which is left out from then on."""
    pipeline = patient(bundle, features=SqliteStoreConfig(path=str(tmp_path / "users.db")))
    before = pipeline.recommend(Request(user="42", k=6, explain=True))
    assert pipeline.event(EventRequest(user=42, item=9)).noted
    after = pipeline.recommend(Request(user="42", k=6, explain=True))
    assert set(listed(before)) - set(listed(after)) == {"9"}
    assert after.items[0].why is not None
    assert after.items[0].why.history == {"9": 4.0}
    with pytest.raises(RequestError, match=r"time: time .* out of range"):
        pipeline.event(EventRequest(user=42, item=9, time=2**60))
    with pytest.raises(ConfigError, match="no online store"):
        Pipeline(bundle).event(EventRequest(user=42, item=9))


def test_answers_and_feedback_are_logged(bundle: Bundle, tmp_path: Path) -> None:
    rules = RulesConfig.model_validate({"pinned": [{"item": "10", "place": 1}]})
    pipeline = patient(bundle, log=LogConfig(folder=str(tmp_path)), rules=rules, candidates=2)
    ranked = pipeline.recommend(Request(user="1", exclude_seen=False, k=2))
    popular = pipeline.recommend(Request(user="nobody", k=1))
    assert pipeline.feedback(FeedbackRequest(request_id=str(ranked.request_id), item="日本", label="click")).noted
    assert pipeline.log_counts()["responses"].dropped == 0
    pipeline.close()
    first, second = pq.read_table(tmp_path / "responses").to_pylist()
    assert (first["request_id"], second["request_id"]) == (ranked.request_id, popular.request_id)
    assert (first["user"], first["bundle"], first["version"], first["degraded"]) == ("1", "tiny", 1, [])
    assert (first["candidates"], first["retrieval_scores"]) == (["9", "日本"], [59.0, 29.5])
    assert first["ranker_scores"] == [pytest.approx(sigmoid(code), rel=1e-6) for code in (4, 6)]
    assert [(each["item"], each["score"], each["propensity"]) for each in first["shown"]] == [
        ("10", None, 1.0),
        ("日本", pytest.approx(sigmoid(6), rel=1e-6), 1.0),
    ]
    assert (first["raw.watched"], first["raw.watched.age"]) == (["9", "2", "3"], [2 * DAY, DAY, 0])
    assert (second["degraded"], second["ranker_scores"], second["candidates"]) == (["unknown_user"], None, ["2", "9"])
    (came,) = pq.read_table(tmp_path / "feedback").to_pylist()
    assert (came["request_id"], came["item"], came["label"]) == (ranked.request_id, "日本", "click")
    with pytest.raises(ConfigError, match="this server keeps none"):
        Pipeline(bundle).feedback(FeedbackRequest(request_id="a", item="2", label="click"))


def test_rules(ranked_bundle: Path) -> None:
    rules = RulesConfig.model_validate({"banned": ["é"], "pinned": [{"item": "10", "place": 1}]})
    pipeline = patient(Bundle.load(ranked_bundle), rules=rules, candidates=3)
    answer = pipeline.recommend(Request(user="1", exclude_seen=False, k=3, explain=True))
    assert [(item.item, item.score) for item in answer.items] == [
        ("10", None),
        ("日本", pytest.approx(sigmoid(6))),
        ("9", pytest.approx(sigmoid(4))),
    ]
    assert answer.items[0].why == Why(
        history={"9": 4.0, "2": 2.0, "3": 3.0}, fields={"genre": 0.25, "movie": 0.75}, rules=("pinned",)
    )
    assert {item.propensity for item in answer.items} == {None}
    assert listed(pipeline.recommend(Request(user="1"))) == ["日本"]  # the pinned one has been seen
    assert listed(pipeline.recommend(Request(user="nobody", k=2))) == ["10", "2"]
    pipeline.update(ItemsRequest(delete=("10",)))
    assert listed(pipeline.recommend(Request(user="1", exclude_seen=False, k=2))) == ["日本", "9"]


def test_exploration_tells_its_propensities(bundle: Bundle) -> None:
    """Of two places, and three other candidates, each with probability 1/2: 1/6 each, and 1/2 as it was."""
    rules = RulesConfig.model_validate({"exploration": {"share": 0.5}})
    pipeline = patient(bundle, rules=rules)
    seen = set()
    for _ in range(60):
        answer = pipeline.recommend(Request(user="1", exclude_seen=False, exclude=("10",), k=2, explain=True))
        for item in answer.items:
            assert item.why is not None
            seen.add((item.why.rules, round(item.propensity or 0, 9)))
    assert seen == {((), 0.5), (("explored",), round(1 / 6, 9))}


def test_diversity_sees_the_vectors(tiny_bundle: Path) -> None:
    """9 and 日本 point one way: once the one is there, the other comes last."""
    rules = RulesConfig.model_validate({"diversity": {"weight": 0.9}})
    pipeline = patient(Bundle.load(tiny_bundle), rules=rules)
    assert listed(pipeline.recommend(Request(user="1", exclude_seen=False))) == ["9", "2", "3", "10", "é", "日本"]


def test_limits(bundle: Bundle) -> None:
    pipeline = Pipeline(bundle, ServingConfig(limits=Limits(k=2, batch=1)))
    for place, ask in (
        ("k", lambda: pipeline.recommend(Request(user="1", k=3))),
        ("items", lambda: pipeline.rank(RankRequest(user="1", items=("2", "3")))),
        ("queries", lambda: pipeline.embed(EmbedRequest(queries=({}, {})))),
        ("delete", lambda: pipeline.update(ItemsRequest(delete=("2", "3")))),
    ):
        with pytest.raises(RequestError, match=f"^{place}: .; expected at most . on this server"):
            ask()


def test_vectors(pipeline: Pipeline) -> None:
    found = pipeline.embed(
        EmbedRequest(queries=({"genre": "comedy", "price": 3},), items=({"movie": "9"}, {"movie": "2"}))
    )
    assert found.queries == ((2.0, 0.0, 0.0, 3.0),)
    np.testing.assert_array_equal(found.items, VECTORS[[3, 1]])


def test_users_by_prefix(pipeline: Pipeline) -> None:
    assert pipeline.users() == ["1", "42", "zoë"]
    assert (pipeline.users("4"), pipeline.users("z", 1), pipeline.users("5"), pipeline.users("", 2)) == (
        ["42"],
        ["zoë"],
        [],
        ["1", "42"],
    )


def test_calls_of_many_threads_go_together(bundle: Bundle) -> None:
    """Users of other tastes, with histories of other lengths, asked for at once, are answered as they are alone."""
    together = Batching(query=Together(delay=20), rank=Together(delay=20))
    pipeline = patient(bundle, batching=together)
    requests = [
        Request(
            features={
                "genre": ("drama", "unheard of", "comedy")[n % 3],
                "price": n,
                "watched": ["2", "é"][: n % 3],
                "watched.age": [0.0, 1.0][: n % 3],
            },
            only=ITEMS[: 1 + n % 6],
        )
        for n in range(24)
    ]
    alone = [pipeline.recommend(request) for request in requests]
    with ThreadPoolExecutor(8) as pool:
        for mine, other in zip(pool.map(pipeline.recommend, requests), alone, strict=True):
            assert listed(mine) == listed(other)
            np.testing.assert_allclose([i.score for i in mine.items], [i.score for i in other.items], rtol=1e-5)
