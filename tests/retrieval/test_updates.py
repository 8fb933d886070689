"""Items that come, change and go while an index lives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys.errors import BundleError, DataError
from recsys.ragged import Ragged
from recsys.retrieval import Allowed, Catalogue, ExactIndex, Index, InGraphIndex, ScannConfig, ScannIndex, recall_of
from recsys.retrieval.rows import Rows

N, D = 2_000, 8
TREE = ScannConfig(leaves=30, leaves_to_search=30, reorder=2_100, promise={"recall@20": 0.9})
"""Every leaf, and everything scored again, what is added too: exact, so that each id can be told."""


def made(seed: int, rows: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(rows, D)).astype(np.float32)


def indexes() -> list[ExactIndex | ScannIndex]:
    whole = TREE.model_copy(update={"leaves": 0, "leaves_to_search": 1})
    prefix = TREE.model_copy(update={"prefix": 5})
    return [ExactIndex(made(0, N)), *(ScannIndex.build(made(0, N), config) for config in (TREE, whole, prefix))]


def must_find(index: Index, vectors: NDArray[np.float32], there: NDArray[np.bool_]) -> None:
    """The best of what is there, by sorting."""
    queries = made(1, 20)
    scores = np.where(there, queries @ vectors.T, -np.inf)
    np.testing.assert_array_equal(index.search(queries, 15).ids, np.argsort(-scores, axis=1)[:, :15])
    exclude = Ragged.from_lists([row[:3] for row in np.argsort(-scores, axis=1)])
    np.testing.assert_array_equal(index.search(queries, 12, exclude).ids, np.argsort(-scores, axis=1)[:, 3:15])
    legal = Allowed(np.arange(len(vectors)) % 2 == 0)
    even = np.argsort(-np.where(legal.mask, scores, -np.inf), axis=1)[:, :15]
    np.testing.assert_array_equal(index.search(queries, 15, None, legal).ids, even)


@pytest.mark.parametrize("at", range(4), ids=["exact", "tree", "whole", "prefix"])
def test_new_changed_and_deleted_items(at: int, tmp_path: Path) -> None:
    index = indexes()[at]
    vectors, there = made(0, N), np.ones(N, np.bool_)
    new = 3 * made(2, 40)
    index.upsert(np.arange(N, N + 40), new)
    vectors, there = np.concatenate([vectors, new]), np.ones(N + 40, np.bool_)
    must_find(index, vectors, there)
    gone = np.concatenate([np.arange(5, 900, 7), [N + 1, N + 39]])
    index.delete(gone)
    there[gone] = False
    must_find(index, vectors, there)
    changed = np.array([3, N + 2, 5, N + 39])  # the last two come back
    vectors[changed] = 3 * made(3, 4)
    there[changed] = True
    index.upsert(changed, vectors[changed])
    must_find(index, vectors, there)
    index.delete(gone)
    there[gone] = False
    assert index.size == N + 40
    assert index.alive is not None
    np.testing.assert_array_equal(index.alive.mask, there)
    index.save(tmp_path / "index")
    assert not list((tmp_path / "index").rglob("*.pkl"))
    loaded = type(index).load(tmp_path / "index")
    must_find(loaded, vectors, there)
    loaded.upsert(np.array([N + 40]), made(4, 1))  # what was mapped is copied first
    loaded.delete(np.array([0]))
    there[0] = False
    must_find(loaded, np.concatenate([vectors, made(4, 1)]), np.append(there, True))
    np.testing.assert_array_equal(np.load(tmp_path / "index" / "vectors.npy"), vectors)


def test_a_snapshot_knows_the_items_by_their_ids() -> None:
    for config in (TREE, TREE.model_copy(update={"prefix": 5})):
        index = ScannIndex.build(made(0, N), config)
        index.delete(np.arange(0, 400, 3))
        index.upsert(np.array([N]), 3 * made(2, 1))
        snapshot = InGraphIndex.of(index)
        ids, scores = snapshot.search(made(1, 20), 25)
        live = index.search(made(1, 20), 25)
        np.testing.assert_array_equal(ids.numpy(), live.ids)
        np.testing.assert_allclose(scores.numpy(), live.scores, rtol=1e-5)


def test_a_prefix_with_full_width_reordering_is_exact_where_all_are_reordered() -> None:
    vectors, queries = made(0, N), made(1, 50)
    for leaves in (0, 30):
        config = ScannConfig(leaves=leaves, leaves_to_search=max(leaves, 1), reorder=N, prefix=3)
        found, truth = ScannIndex.build(vectors, config).search(queries, 20), ExactIndex(vectors).search(queries, 20)
        np.testing.assert_array_equal(found.ids, truth.ids)
        np.testing.assert_allclose(found.scores, truth.scores, rtol=1e-5)


def test_candidates_of_a_prefix_are_its_own_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """The searcher knows three dimensions: what is best by the others alone is not among 100 candidates of 2,000."""
    vectors = made(0, N)
    vectors[7] = [-1, 0, 0, 9, 9, 9, 9, 9]
    query = np.array([[1, 0, 0, 1, 1, 1, 1, 1]], np.float32)
    whole = ScannIndex.build(vectors, ScannConfig(leaves=0, reorder=N, prefix=3))
    assert whole.search(query, 1).ids[0, 0] == 7
    short = ScannIndex.build(vectors, ScannConfig(leaves=0, reorder=100, prefix=3))
    best = np.argsort(-vectors[:, 0])[:100]
    found = short.search(query, 10).ids[0]
    assert 7 not in found
    assert found.tolist() == best[np.argsort(-(vectors[best] @ query[0]))][:10].tolist()
    with monkeypatch.context() as patch:
        patch.setattr("recsys.retrieval.scann_index.RESCORED", 1)  # one query at a time
        queries = made(1, 9)
        np.testing.assert_array_equal(
            short.search(queries, 10).ids, np.stack([short.search(q[None], 10).ids[0] for q in queries])
        )
    with pytest.raises(ValueError, match="prefix is 9, but vectors have 8"):
        ScannIndex.build(vectors, ScannConfig(prefix=9))


def test_more_of_the_prefix_finds_more() -> None:
    rng = np.random.default_rng(0)
    scale = 2.0 ** -np.arange(D)  # as Matryoshka vectors: the first dimensions tell most
    vectors, queries = (scale * rng.normal(size=(rows, D)) for rows in (N, 100))
    exact = ExactIndex(vectors)
    recall = {
        prefix: recall_of(
            ScannIndex.build(vectors, ScannConfig(leaves=0, reorder=60, prefix=prefix)), exact, queries, 20
        )
        for prefix in (1, 2, 4, 8)
    }
    assert recall[1] < recall[2] < recall[4] <= recall[8] == 1.0
    assert recall[4] > 0.95


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_rows_follow_what_scann_does(data: st.DataObject) -> None:
    """ScaNN puts its last vector into the gap of a deleted one: a list that does so stands for it."""
    size = data.draw(st.integers(2, 12))
    rows, searcher = Rows(np.arange(size), size), list(range(size))
    for _ in range(data.draw(st.integers(1, 6))):
        gone = data.draw(st.lists(st.sampled_from(searcher), unique=True, max_size=len(searcher) - 1))
        for place in rows.remove(np.array(gone, np.int64)):
            searcher[place] = searcher[-1]
            searcher.pop()
        back = [*sorted(set(range(size)) - set(searcher))[:1], size]
        rows.append(np.array(back))
        searcher, size = searcher + back, size + 1
        assert rows.ids.tolist() == searcher
        places = rows.places(np.arange(size + 2)).tolist()
        assert places == [searcher.index(n) if n in searcher else -1 for n in range(size + 2)]


@pytest.mark.parametrize("at", [0, 1], ids=["exact", "tree"])
def test_unsound_updates_are_refused_and_change_nothing(at: int) -> None:
    index = indexes()[at]
    for ids, vectors, message in (
        ([N + 1], made(0, 1), "new ids must follow the last, 1999"),
        ([3, 3], made(0, 2), "nor come twice"),
        ([-1], made(0, 1), "must not be negative"),
        ([1, 2], made(0, 1), "ids and"),
        ([1], np.ones((1, D + 1)), "index of width 8"),
    ):
        with pytest.raises(ValueError, match=message):
            index.upsert(ids, vectors)
    with pytest.raises(DataError, match="NaN"):
        index.upsert([1], np.full((1, D), np.nan))
    with pytest.raises(ValueError, match=r"ids -1\.\.5 to delete"):
        index.delete([5, -1])
    with pytest.raises(ValueError, match="at least one vector"):
        index.delete(np.arange(N))
    must_find(index, made(0, N), np.ones(N, np.bool_))


def test_damage_is_named(tmp_path: Path) -> None:
    index = ScannIndex.build(made(0, N), TREE)
    index.delete([1])
    index.save(tmp_path / "index")
    for name, damage, message in (
        ("rows.npy", np.arange(5, dtype=np.int32), r"rows\.npy: cannot be read"),
        ("deleted.npy", np.array([N]), r"deleted\.npy: cannot be read"),
        ("deleted.npy", np.array([1, 2]), r"rows\.npy: cannot be read"),
    ):
        before = np.load(tmp_path / "index" / name)
        np.save(tmp_path / "index" / name, damage)
        with pytest.raises(BundleError, match=message):
            ScannIndex.load(tmp_path / "index")
        np.save(tmp_path / "index" / name, before)


def test_a_catalogue_grows_by_more_than_it_must() -> None:
    """Or each new item would copy all vectors."""
    catalogue = Catalogue(made(0, 800))
    catalogue.upsert(np.array([800]), made(1, 1))
    room = catalogue.vectors.base
    catalogue.upsert(np.array([801]), made(1, 1))
    assert catalogue.vectors.base is room
    np.testing.assert_array_equal(catalogue.vectors[:800], made(0, 800))
