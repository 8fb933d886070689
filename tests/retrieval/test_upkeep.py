"""Whether an index that has been updated still keeps its promise, for queries near what is new too."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.errors import ExportError
from recsys.retrieval import ExactIndex, ScannConfig, ScannIndex, recall_of, tune, upkeep
from recsys.retrieval.near import Near, near_queries
from recsys.retrieval.upkeep import Upkeep, kept_up, near_new

N, D = 4_000, 16
CONFIG = ScannConfig(leaves=60, dimensions_per_block=2, anisotropic_threshold=0.2, promise={"recall@10": 0.9})


def made(seed: int, rows: int, at: float = 0.0) -> NDArray[np.float32]:
    """Vectors in 20 clumps on the sphere; `at` moves them along one direction."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(20, D))
    rows_ = centres[rng.integers(20, size=rows)] + 0.6 * rng.normal(size=(rows, D)) + at * np.eye(D)[0]
    return (rows_ / np.linalg.norm(rows_, axis=1, keepdims=True)).astype(np.float32)


QUERIES = made(1, 400)


def measure(index: ScannIndex, ids: NDArray[np.int64], queries: NDArray[np.float32]) -> Upkeep:
    return upkeep.measure(index, near_new(index, ids, queries), queries)


@pytest.fixture
def index() -> ScannIndex:
    return tune(made(0, N), QUERIES, CONFIG)


def test_more_of_the_same_leaves_the_index_alone(index: ScannIndex) -> None:
    new = np.arange(N, N + 100)
    index.upsert(new, made(2, 100))
    found = measure(index, new, QUERIES)
    assert found.holds(CONFIG)
    assert found.near is not None
    assert kept_up(index, new, QUERIES) is index


def test_an_average_hides_what_queries_near_new_items_show(index: ScannIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """60 new items that a search passes by, as where they stand in leaves that are not theirs: no user of before asks
    for them, so that the mean recall is as high as ever.
    """
    new = np.arange(N, N + 60)
    index.upsert(new, made(3, 60, at=9.0))
    candidates = ScannIndex.candidates

    def without_new(self: ScannIndex, *arguments: object) -> object:
        found = candidates(self, *arguments)  # type: ignore[arg-type]
        return found._replace(ids=np.where(found.ids >= N, 0, found.ids)) if self is index else found

    monkeypatch.setattr(ScannIndex, "candidates", without_new)
    found = measure(index, new, QUERIES)
    assert found.recall[10] > 0.9
    assert found.near == 0.0
    assert not found.holds(CONFIG)
    anew = kept_up(index, new, QUERIES)
    assert anew is not index
    assert isinstance(anew, ScannIndex)
    assert anew.asked == CONFIG
    assert anew.curve is not None
    assert anew.curve.point.near is not None
    assert measure(anew, new, QUERIES).holds(CONFIG), "the promise holds near the new items too"
    assert (anew.search(made(3, 60, at=9.0), 10).ids >= N).any(axis=1).mean() > 0.9
    assert anew.catalogue is index.catalogue


def test_another_catalogue_is_built_anew_and_keeps_its_promise(index: ScannIndex) -> None:
    """All items but a few move away: leaves that were trained on the old ones tell nothing of them."""
    moved = np.arange(N)
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(N, D)).astype(np.float32)
    queries = rng.normal(size=(400, D)).astype(np.float32)
    index.upsert(moved, vectors)
    assert not measure(index, moved, queries).holds(CONFIG)
    anew = kept_up(index, moved, queries)
    assert recall_of(anew, ExactIndex(vectors), queries, 10) >= 0.9


def test_a_promise_that_is_lost_for_good_is_told(index: ScannIndex) -> None:
    index.asked = CONFIG.model_copy(update={"leaves_to_search": 1, "reorder": 20})
    rng = np.random.default_rng(5)
    index.upsert(np.arange(N), rng.normal(size=(N, D)).astype(np.float32))
    with pytest.raises(ExportError, match=r"promise: at best recall@10"):
        kept_up(index, np.arange(N), rng.normal(size=(400, D)).astype(np.float32))


def test_a_new_index_is_no_cheaper_than_its_new_items_allow(index: ScannIndex) -> None:
    """Items between the clumps, which few leaves hold: what is cheaper keeps the promise for users, not for them."""
    rng = np.random.default_rng(6)
    ids = np.arange(N, N + 200)
    vectors = rng.normal(size=(200, D)).astype(np.float32)
    index.upsert(ids, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    near = near_new(index, ids, QUERIES)
    assert len(near.ids) == 400
    curve = tune(index.catalogue, QUERIES, CONFIG, near=near).curve
    assert curve is not None
    assert curve.point.near is not None
    assert curve.point.near >= 0.9
    plain = [point.model_copy(update={"near": None}) for point in curve.points]
    cheapest = min((p for p in plain if p.keeps(CONFIG)), key=lambda point: point.milliseconds.estimate)
    passed = [p for p, kept in zip(curve.points, plain, strict=True) if kept.keeps(CONFIG) and not p.keeps(CONFIG)]
    assert cheapest.milliseconds.estimate <= curve.point.milliseconds.estimate
    assert passed
    assert all(point.near is not None and point.near < 0.9 for point in passed)


def test_an_index_that_cannot_find_what_is_new_is_refused(index: ScannIndex) -> None:
    far = Near(QUERIES[:50], index.exact.search(-QUERIES[:50], 1).ids[:, 0].astype(np.int64), 10)
    with pytest.raises(ExportError, match=r"and 0\.0000 of what is new is found by queries near it"):
        tune(index.catalogue, QUERIES, CONFIG, near=far)


def test_what_scores_every_item_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "measure", None)
    for index in (ExactIndex(made(0, 50)), ScannIndex.build(made(0, 50), ScannConfig())):
        index.upsert([50], made(1, 1))
        assert kept_up(index, np.array([50]), QUERIES) is index


def test_near_queries_lie_between_the_nearest_query_and_the_item() -> None:
    queries = np.array([[2, 0], [0, 0.5], [-3, 0]], np.float32)
    items = np.array([[0.1, 0.2], [7, 0]], np.float32)
    near = near_queries(items, queries)
    half = np.array([1, 2]) / np.sqrt(5) + [0, 1]
    np.testing.assert_allclose(near[0], 0.5 * half / np.linalg.norm(half), rtol=1e-6)
    np.testing.assert_allclose(near[1], [2, 0], rtol=1e-6)
    np.testing.assert_allclose(near[2], 0.5 * np.array([1, 2]) / np.sqrt(5), rtol=1e-6)
    np.testing.assert_allclose(near[3], [2, 0], rtol=1e-6)


def test_every_part_of_the_promise_must_hold() -> None:
    both = ScannConfig(promise={"recall@5": 0.9, "recall@50": 0.8})
    assert Upkeep({5: 0.9, 50: 0.8}, None).holds(both)
    assert Upkeep({5: 0.9, 50: 0.8}, 0.9).holds(both)
    assert not Upkeep({5: 0.89, 50: 0.8}, None).holds(both)
    assert not Upkeep({5: 0.9, 50: 0.79}, None).holds(both)
    assert not Upkeep({5: 0.9, 50: 0.8}, 0.89).holds(both)
