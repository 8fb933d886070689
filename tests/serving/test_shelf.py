"""Filters in requests, and items that come and go, on the tiny bundle."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest

from recsys.bundle import Bundle
from recsys.errors import RequestError
from recsys.retrieval import ExactIndex
from serving import Pipeline, Request
from serving.messages import ItemsRequest
from serving.pipeline import shelf as module
from serving.pipeline.gate import Gate
from tests.serving.test_pipeline import ALL_OF_USER_1, answer
from tests.tiny_bundle import ITEMS, VECTORS, write


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return Pipeline(Bundle.load(write(tmp_path / "bundle")))


def items_of(pipeline: Pipeline, **request: Any) -> list[str]:
    return [item for item, _ in answer(pipeline, user="1", exclude_seen=False, **request)]


def test_filters(pipeline: Pipeline) -> None:
    every = [item for item, _ in ALL_OF_USER_1]
    assert items_of(pipeline) == every == ["9", "日本", "2", "3", "10", "é"]
    assert items_of(pipeline, where={"movie": ["2", "é", "9"]}) == ["9", "2", "é"]
    assert items_of(pipeline, where={"item": {"not_in": ["9", "2"]}}, k=2) == ["日本", "3"]
    assert items_of(pipeline, only=["é", 3, "no such item"]) == ["3", "é"]
    assert items_of(pipeline, only=["é", "3"], where={"movie": "3"}) == ["3"]
    assert items_of(pipeline, only=["é", "3"], exclude=["é"]) == ["3"]
    assert items_of(pipeline, only=[]) == []
    assert items_of(pipeline, where={"title": "Two"}) == ["2"]
    with pytest.raises(RequestError, match=r"where\.movi: no such column.*did you mean movie"):
        items_of(pipeline, where={"movi": "2"})
    with pytest.raises(RequestError, match=r"only\.0: 1\.5"):
        items_of(pipeline, only=[1.5])


def test_items_come_change_and_go(pipeline: Pipeline) -> None:
    """The item tower gives a new item of movie 9 the vector of 9, and one of an unknown movie none."""
    pipeline.update(
        ItemsRequest(upsert=[{"item": "0 new", "title": "New", "movie": "9"}, {"item": "zz", "movie": "unheard of"}])
    )
    assert items_of(pipeline) == ["9", "0 new", "日本", "2", "3", "10", "zz", "é"]  # equal scores: as they came
    found = pipeline.recommend(Request(user="1", exclude_seen=False, k=2)).items
    assert [(item.item, item.title) for item in found] == [("9", None), ("0 new", "New")]
    assert items_of(pipeline, where={"movie": "9"}) == ["9", "0 new"]
    assert items_of(pipeline, only=["0 new"]) == ["0 new"]
    pipeline.update(ItemsRequest(upsert=[{"item": "0 new", "movie": "2"}]))
    assert items_of(pipeline, where={"movie": "2"}) == ["2", "0 new"]
    pipeline.update(ItemsRequest(delete=["9", "zz"]))
    assert items_of(pipeline) == ["日本", "2", "0 new", "3", "10", "é"]
    assert items_of(pipeline, only=["9"]) == []
    assert items_of(pipeline, where={"item": {"not_in": ["2"]}})[:2] == ["日本", "0 new"]
    # A deleted item stays in the histories that it stands in: their embedding does not change.
    assert dict(answer(pipeline, user="1", exclude_seen=False))["2"] == 17
    assert [item.item for item in pipeline.history("1", 2)] == ["3", "2"]
    pipeline.update(ItemsRequest(upsert=[{"item": "9", "movie": "9"}]))
    assert items_of(pipeline)[0] == "9"


def test_unsound_updates_change_nothing(pipeline: Pipeline) -> None:
    for rows, message in (
        ([{"movie": "9"}], r"items\[0\]\.item: no id"),
        ([{"item": "a"}, {"item": "a"}], r"items\[1\]\.item: 'a' twice"),
        ([{"item": 1.5}], r"items\[0\]\.item: the float"),
        ([{"item": "a", "title": 3}], r"items\[0\]\.title: 3"),
        ([{"item": "a", "movi": "9"}], r"features\.movi: no such feature.*did you mean movie"),
        ([{"item": "b"}, {"item": "a", "movie": 1.5}], r"items\[1\]\.features\.movie: the float"),
    ):
        with pytest.raises(RequestError, match=message):
            pipeline.update(ItemsRequest(upsert=rows))
    with pytest.raises(RequestError, match=r"delete\[1\]: no item 'nobody'"):
        pipeline.update(ItemsRequest(delete=["9", "nobody"]))
    with pytest.raises(RequestError, match="no item would be left"):
        pipeline.update(ItemsRequest(delete=ITEMS))
    assert items_of(pipeline) == [item for item, _ in ALL_OF_USER_1]


def test_requests_are_answered_while_an_index_is_built_anew(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    building, ready = Event(), Event()

    def rebuilt(index: ExactIndex, *_: object) -> ExactIndex:
        building.set()
        assert ready.wait(30)
        return ExactIndex(index.catalogue)

    monkeypatch.setattr(module, "kept_up", rebuilt)
    before = pipeline._shelf.now.index
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(pipeline.update, ItemsRequest(upsert=[{"item": "new", "movie": "9"}]))
        assert building.wait(30)
        assert "new" in items_of(pipeline)
        assert pipeline._shelf.now.index is before
        ready.set()
        done.result()
    assert pipeline._shelf.now.index is not before
    assert "new" in items_of(pipeline)


def test_searches_and_updates_at_once(pipeline: Pipeline) -> None:
    """Every answer is of one catalogue: its scores are those of its items."""
    scores = dict(ALL_OF_USER_1)
    stop = Event()
    failures: list[object] = []

    def ask() -> None:
        while not stop.is_set():
            for item, score in answer(pipeline, user="1", exclude_seen=False, k=50):
                expected = scores.get(item, scores["2"])
                if score != expected:
                    failures.append((item, score))

    threads = [Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for n in range(15):
        pipeline.update(ItemsRequest(upsert=[{"item": f"new {n}", "movie": "2"}]))
        if n:
            pipeline.update(ItemsRequest(delete=[f"new {n - 1}"]))
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert "new 14" in items_of(pipeline, k=50)


def test_a_gate_lets_readers_in_together_and_writers_alone() -> None:
    gate, inside = Gate(), list[str]()

    def steps() -> Iterator[str]:
        with gate.reading(), gate.reading():
            yield "two readers"
            writer = Thread(target=write_once)
            writer.start()
            time.sleep(0.05)
            assert not inside, "the writer waits for the readers"
        writer.join(10)
        assert inside == ["writer"]

    def write_once() -> None:
        with gate.writing():
            inside.append("writer")

    assert list(steps()) == ["two readers"]

    def read_once() -> None:
        with gate.reading():
            inside.append("reader")

    with gate.writing():
        reader = Thread(target=read_once)
        reader.start()
        time.sleep(0.05)
        assert inside == ["writer"], "a reader waits for the writer"
    reader.join(10)
    assert inside == ["writer", "reader"]


def test_vectors_of_the_bundle_are_not_changed(pipeline: Pipeline) -> None:
    pipeline.update(ItemsRequest(upsert=[{"item": "9", "movie": "2"}]))
    np.testing.assert_array_equal(np.load(pipeline.bundle.folder / "index" / "vectors.npy"), VECTORS)
