"""Searches among the items that are allowed: k of them whenever there are so many, and the right ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys.ragged import Ragged
from recsys.retrieval import Allowed, ExactIndex, Index, ScannConfig, ScannIndex, tune
from recsys.retrieval import scann_index as module

N, D, PROMISE = 4_000, 12, 0.9
CONFIG = ScannConfig(leaves=60, dimensions_per_block=2, anisotropic_threshold=0.2, promise={"recall@20": PROMISE})


def made(seed: int, rows: int) -> NDArray[np.float32]:
    """Vectors in clumps, as towers make them."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(30, D))
    return (centres[rng.integers(30, size=rows)] + 0.7 * rng.normal(size=(rows, D))).astype(np.float32)


@pytest.fixture(scope="module")
def tuned() -> ScannIndex:
    return tune(made(0, N), made(1, 400), CONFIG)


@pytest.fixture
def few_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small a catalogue would be searched exactly through every filter."""
    monkeypatch.setattr(module, "FEW_ALLOWED", 20)


def checked(
    index: Index, queries: NDArray[np.float32], k: int, exclude: Ragged | None, mask: NDArray[np.bool_]
) -> float:
    """Recall of a filtered search, against what sorting gives; that all of it is legal, and as much as there is."""
    found = index.search(queries, k, exclude, Allowed(mask))
    scores = queries.astype(np.float64) @ index.vectors.T.astype(np.float64)
    shares = []
    for row, (ids, given_scores) in enumerate(zip(found.ids, found.scores, strict=True)):
        legal = mask.copy()
        if exclude is not None:
            legal[exclude[row]] = False
        there = ids[ids >= 0]
        assert len(there) == len(set(there.tolist())) == min(k, legal.sum())
        assert legal[there].all()
        np.testing.assert_allclose(given_scores[ids >= 0], scores[row, there], rtol=1e-4, atol=1e-4)
        assert (np.diff(given_scores[ids >= 0]) <= 0).all()
        assert (ids[len(there) :] == -1).all()
        best = np.argsort(-np.where(legal, scores[row], -np.inf), kind="stable")[: len(there)]
        if len(there):
            shares.append(len(set(best.tolist()) & set(there.tolist())) / len(there))
    return float(np.mean(shares)) if shares else 1.0


@pytest.mark.usefixtures("few_allowed")
@settings(max_examples=40, deadline=None)
@given(
    share=st.sampled_from([0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.9, 1.0]),
    k=st.sampled_from([1, 5, 20, 60]),
    seed=st.integers(0, 2**16),
    excluding=st.sampled_from([0, 3, 200]),
)
def test_random_filters_down_to_one_in_a_thousand(
    tuned: ScannIndex, share: float, k: int, seed: int, excluding: int
) -> None:
    rng = np.random.default_rng(seed)
    queries, mask = made(seed, 40), rng.random(N) < share
    exclude = Ragged.from_lists([rng.choice(N, excluding, replace=False) for _ in queries]) if excluding else None
    # The mean over 40 queries may be below the promise, which is about the mean of many.
    assert checked(tuned, queries, k, exclude, mask) >= PROMISE - 0.06


@pytest.mark.usefixtures("few_allowed")
def test_filters_keep_the_promise_in_the_mean(tuned: ScannIndex) -> None:
    queries, rng = made(7, 300), np.random.default_rng(8)
    for share in (0.5, 0.1, 0.03):
        assert checked(tuned, queries, 20, None, rng.random(N) < share) >= PROMISE


@pytest.mark.usefixtures("few_allowed")
def test_filters_far_from_the_query_come_back_full(tuned: ScannIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """The allowed tenth is what each query likes least: no candidate of ScaNN is among them."""
    query = made(9, 1)
    scores = tuned.vectors @ query[0]
    far = scores <= np.quantile(scores, 0.1)
    assert checked(tuned, query, 20, None, far) == 1.0
    near = scores >= np.quantile(scores, 0.9)
    assert checked(tuned, query, 20, None, near) >= PROMISE - 0.1


@pytest.mark.usefixtures("few_allowed")
def test_what_is_cheap_is_tried_first(tuned: ScannIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many allowed: ScaNN alone. Fewer near the query than elsewhere: ScaNN, deeper. None near: the exact index."""
    asked: list[int] = []
    exact: list[int] = []
    candidates, search = ScannIndex.candidates, ExactIndex.search
    monkeypatch.setattr(
        ScannIndex, "candidates", lambda self, q, depth, s: asked.append(depth) or candidates(self, q, depth, s)
    )
    monkeypatch.setattr(ExactIndex, "search", lambda self, q, *rest: exact.append(len(q)) or search(self, q, *rest))
    query = made(10, 1)
    order = np.argsort(-(tuned.vectors @ query[0]))
    half = Allowed.of(order[::2], N)
    assert (tuned.search(query, 10, None, half).ids >= 0).all()
    assert (asked, exact) == ([26], [])
    asked.clear()
    thinner_near = Allowed.of(np.concatenate([order[:200:12], order[2_200:]]), N)
    assert (tuned.search(query, 10, None, thinner_near).ids >= 0).all()
    assert len(asked) == 2
    assert exact == []
    asked.clear()
    none_near = Allowed.of(order[2_000:], N)
    assert (tuned.search(query, 10, None, none_near).ids == order[2_000:2_010]).all()
    assert (len(asked), exact) == (2, [1])
    assert asked[1] > 4 * asked[0]


def test_few_allowed_items_are_scored_exactly(tuned: ScannIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScannIndex, "candidates", None)
    mask = np.random.default_rng(0).random(N) < 0.3
    assert checked(tuned, made(11, 30), 25, None, mask) == 1.0


@settings(max_examples=60, deadline=None)
@given(
    items=st.integers(1, 90),
    k=st.integers(1, 40),
    share=st.floats(0, 1),
    seed=st.integers(0, 999),
    tile=st.sampled_from([(1, 1), (3, 7), (256, 4_096)]),
    rows=st.sampled_from([1, 3, 40]),
)
def test_the_exact_index_is_exact_through_any_filter(
    items: int, k: int, share: float, seed: int, tile: tuple[int, int], rows: int
) -> None:
    rng = np.random.default_rng(seed)
    index = ExactIndex(rng.integers(-3, 4, (items, 3)), queries_at_once=tile[0], items_at_once=tile[1])
    queries = rng.integers(-3, 4, (rows, 3)).astype(np.float32)
    exclude = Ragged.from_lists([np.flatnonzero(rng.random(items) < 0.2) for _ in queries])
    mask = rng.random(items) < share
    found = index.search(queries, k, exclude, Allowed(mask))
    for row, query in enumerate(queries):
        legal = mask & ~np.isin(np.arange(items), exclude[row])
        scores = np.where(legal, index.vectors @ query, -np.inf)
        best = np.lexsort((np.arange(items), -scores))[: min(k, legal.sum())]  # ties by id
        assert found.ids[row].tolist() == [*best.tolist(), *[-1] * (k - len(best))]


def test_one_query_shares_its_items_among_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.retrieval.exact.SHARED", 50)
    index, query = ExactIndex(made(0, 1_000)), made(1, 1)
    mask = np.random.default_rng(0).random(1_000) < 0.7
    exclude = Ragged.from_lists([np.arange(0, 1_000, 3)])
    assert checked(index, query, 30, exclude, mask) == 1.0
    assert index.search(query, 1_000).ids[0].tolist() == np.argsort(-(index.vectors @ query[0])).tolist()


def test_a_filter_of_another_catalogue_is_refused(tuned: ScannIndex) -> None:
    for index in (tuned, ExactIndex(made(0, 20))):
        with pytest.raises(ValueError, match="allowed is of 3 items"):
            index.search(made(1, 1), 5, None, Allowed(np.ones(3, np.bool_)))
    with pytest.raises(ValueError, match="a mask is bool"):
        Allowed([1, 0])
