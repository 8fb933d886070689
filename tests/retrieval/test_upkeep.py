"""Whether an index that has been updated still keeps its promise, for queries near what is new too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.errors import ExportError
from recsys.retrieval import ExactIndex, ScannConfig, ScannIndex, recall_of, tune, upkeep
from recsys.retrieval.curve import Pairs
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
    assert found.near.all > 100
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
        if self is not index:
            return found
        new_ones = found.ids >= N
        return found._replace(ids=np.where(new_ones, 0, found.ids), scores=np.where(new_ones, -1.0, found.scores))

    monkeypatch.setattr(ScannIndex, "candidates", without_new)
    found = measure(index, new, QUERIES)
    assert found.recall[10] > 0.9
    assert (found.near.found, found.near.all) == (0, 120)
    assert not found.holds(CONFIG)
    anew = kept_up(index, new, QUERIES)
    assert anew is not index
    assert isinstance(anew, ScannIndex)
    assert anew.asked == CONFIG
    assert anew.curve is not None
    assert anew.curve.point.near is not None
    assert anew.curve.point.near.all == 120
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
    """New items that no search finds which looks into fewer than 40 of the 60 leaves."""

    class Deep(Near):
        def found(self, search: Any) -> Pairs:
            _, setting = search.args
            return Pairs(found=len(self.ids) if setting.leaves_to_search >= 40 else 0, all=len(self.ids))

    near = near_new(index, np.arange(N - 20, N), QUERIES)
    curve = tune(index.catalogue, QUERIES, CONFIG, near=Deep(near.queries, near.ids, near.scores, near.depth)).curve
    assert curve is not None
    assert curve.point.setting.leaves_to_search >= 40
    enough = [point for point in curve.points if point.model_copy(update={"near": None}).keeps(CONFIG)]
    assert min(point.setting.leaves_to_search for point in enough) < 20, "for users alone"


def test_few_pairs_are_not_given_up_while_there_are_leaves(index: ScannIndex) -> None:
    """One item far from all: until the last leaves are searched nothing shows that it will be found."""
    lonely = -QUERIES.mean(axis=0, keepdims=True)
    index.upsert(np.array([N]), lonely / np.linalg.norm(lonely))
    near = near_new(index, np.array([N]), QUERIES)
    assert len(near.ids) > 0
    curve = tune(index.catalogue, QUERIES, CONFIG, near=near).curve
    assert curve is not None
    assert curve.point.near is not None
    assert curve.point.near.keep(CONFIG)


def test_an_item_is_found_in_its_copy(index: ScannIndex) -> None:
    """Items of one vector: which of them a search names is all the same, and exact search names the lowest ids."""
    copies = np.arange(N, N + 40)
    index.upsert(copies, np.repeat(made(7, 1, at=9.0), 40, axis=0))
    near = near_new(index, copies, QUERIES)
    assert len(near.ids) == 80, "a tie with the best ten is as good as they are"
    assert near.found(lambda queries: index.exact.search(queries, 10)).found == 80


def test_without_new_items_users_alone_decide(index: ScannIndex) -> None:
    near = near_new(index, np.empty(0, np.int64), QUERIES)
    assert measure(index, np.empty(0, np.int64), QUERIES).near == Pairs(found=0, all=0)
    assert tune(index.catalogue, QUERIES, CONFIG, near=near).curve is not None


def test_an_index_that_cannot_find_what_is_new_is_refused(index: ScannIndex) -> None:
    farthest = index.exact.search(-QUERIES[:50], 1)
    far = Near(QUERIES[:50], farthest.ids[:, 0].astype(np.int64), -farthest.scores[:, 0], 10)
    with pytest.raises(ExportError, match=r"of 50 queries near something new 0 find it .* near new items too"):
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
    """New items are looked for among as many as the largest cut-off has, so that its recall is what they are due."""
    both, none = ScannConfig(promise={"recall@5": 0.9, "recall@50": 0.8}), Pairs(found=0, all=0)
    assert Upkeep({5: 0.9, 50: 0.8}, none).holds(both)
    assert Upkeep({5: 0.9, 50: 0.8}, Pairs(found=8, all=10)).holds(both)
    assert not Upkeep({5: 0.89, 50: 0.8}, none).holds(both)
    assert not Upkeep({5: 0.9, 50: 0.79}, none).holds(both)
    assert not Upkeep({5: 0.9, 50: 0.8}, Pairs(found=7, all=10)).holds(both)


@pytest.mark.parametrize(("found", "pairs", "kept"), [(0, 1, True), (1, 2, True), (0, 2, False), (189, 200, False)])
def test_so_few_pairs_tell_no_more_than_whole_ones(found: int, pairs: int, kept: bool) -> None:
    assert Pairs(found=found, all=pairs).keep(ScannConfig(promise={"recall@10": 0.95})) is kept


def test_whole_pairs_are_counted_as_the_promise_is_written() -> None:
    """0.29 x 100 is 28.999999999999996 to a processor."""
    promise = ScannConfig(promise={"recall@10": 0.29})
    assert Pairs(found=29, all=100).keep(promise)
    assert not Pairs(found=28, all=100).keep(promise)
