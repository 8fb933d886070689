"""Ranking metrics: numbers worked out by hand, scikit-learn's, and properties."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, ndcg_score

from recsys import metrics
from recsys.metrics import graded_ndcg_at_k, ndcg_at_k
from recsys.ragged import Ragged

Metric = Callable[[NDArray[np.bool_], NDArray[np.integer], int], NDArray[np.float64]]
ALL: list[Metric] = [
    metrics.recall_at_k,
    metrics.precision_at_k,
    metrics.hit_rate_at_k,
    metrics.ndcg_at_k,
    metrics.mrr_at_k,
    metrics.map_at_k,
]

HITS = np.array([[0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 1], [1, 1, 1, 1]], np.bool_)
RELEVANT = np.array([3, 1, 2, 9])


@pytest.mark.parametrize(
    ("metric", "k", "expected"),
    [
        (metrics.recall_at_k, 4, [2 / 3, 1, 1 / 2, 4 / 9]),
        (metrics.recall_at_k, 3, [1 / 3, 1, 0, 3 / 9]),
        (metrics.precision_at_k, 4, [2 / 4, 1 / 4, 1 / 4, 1]),
        (metrics.hit_rate_at_k, 3, [1, 1, 0, 1]),
        (metrics.mrr_at_k, 4, [1 / 2, 1, 1 / 4, 1]),
        (metrics.mrr_at_k, 3, [1 / 2, 1, 0, 1]),
        # (1/2 + 2/4) / min(3, 4); 1/1; (1/4) / 2; 4 / min(9, 4)
        (metrics.map_at_k, 4, [1 / 3, 1, 1 / 8, 1]),
        # cut at 2: (1/2) / min(3, 2); 1; 0; 2 / min(9, 2)
        (metrics.map_at_k, 2, [1 / 4, 1, 0, 1]),
        (
            metrics.ndcg_at_k,
            4,
            [
                (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3) + 1 / 2),
                1,
                (1 / math.log2(5)) / (1 + 1 / math.log2(3)),
                1,
            ],
        ),
        (metrics.ndcg_at_k, 2, [(1 / math.log2(3)) / (1 + 1 / math.log2(3)), 1, 0, 1]),
    ],
)
def test_by_hand(metric: Metric, k: int, expected: list[float]) -> None:
    found = metric(HITS, RELEVANT, k)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_ndcg_and_map_are_scikit_learns(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.permutation(12).astype(float)
    labels = rng.integers(0, 2, 12)
    labels[rng.integers(12)] = 1
    hits, relevant = (labels[np.argsort(-scores)] == 1)[None], np.array([labels.sum()])
    np.testing.assert_allclose(
        metrics.ndcg_at_k(hits, relevant, k)[0], ndcg_score([labels], [scores], k=k), rtol=0, atol=1e-9
    )
    # Without a cut-off the two definitions of average precision agree.
    np.testing.assert_allclose(
        metrics.map_at_k(hits, relevant, 12)[0], average_precision_score(labels, scores), rtol=0, atol=1e-9
    )


@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_properties(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    hits = rng.random((5, 8)) < 0.3
    relevant = np.maximum(hits.sum(axis=1) + rng.integers(0, 3, 5), 1)
    best = np.arange(8) < relevant[:, None]
    for metric in ALL:
        value = metric(hits, relevant, k)
        assert np.all((value >= 0) & (value <= 1))
        assert np.all((value > 0) == hits[:, :k].any(axis=1))
        assert np.all(metric(best, relevant, k) >= value - 1e-12), f"{metric.__name__} prefers another ranking"
        # What stands after k does not matter, and no query sees another one.
        shuffled = np.concatenate([hits[:, :k], rng.permuted(hits[:, k:], axis=1)], axis=1)
        np.testing.assert_array_equal(metric(shuffled, relevant, k), value)
        np.testing.assert_array_equal(metric(hits[::-1], relevant[::-1], k), value[::-1])


@given(st.integers(0, 2**32 - 1), st.integers(0, 6))
def test_a_hit_is_worth_more_further_up(seed: int, rank: int) -> None:
    hits = np.random.default_rng(seed).random((4, 8)) < 0.4
    hits[:, rank], hits[:, rank + 1] = False, True
    higher = hits.copy()
    higher[:, [rank, rank + 1]] = higher[:, [rank + 1, rank]]
    relevant = np.full(4, 8)
    assert np.all(metrics.ndcg_at_k(higher, relevant, 8) > metrics.ndcg_at_k(hits, relevant, 8))
    assert np.all(metrics.map_at_k(higher, relevant, 8) > metrics.map_at_k(hits, relevant, 8))
    first = hits.argmax(axis=1) == rank + 1
    assert np.all((metrics.mrr_at_k(higher, relevant, 8) > metrics.mrr_at_k(hits, relevant, 8)) == first)


def test_hits() -> None:
    ranked = np.array([[4, 0, 2], [2, 4, -1], [1, 0, 3]], np.int32)
    found = metrics.hits(ranked, Ragged.from_lists([[2, 4], [4, 7], []]))
    assert found.tolist() == [[True, False, True], [False, True, False], [False, False, False]]


@pytest.mark.parametrize("metric", ALL)
def test_misuse_is_refused(metric: Metric) -> None:
    with pytest.raises(ValueError, match="1 of 4 queries have no relevant items"):
        metric(HITS, np.array([3, 1, 2, 0]), 4)
    with pytest.raises(ValueError, match="ranks 1 to 4"):
        metric(HITS, RELEVANT, 5)
    with pytest.raises(ValueError, match="ranks 1 to 4"):
        metric(HITS, RELEVANT, 0)
    with pytest.raises(ValueError, match="more hits than relevant"):
        metric(HITS, np.array([1, 1, 2, 9]), 1)
    with pytest.raises(ValueError, match="bool"):
        metric(HITS.astype(np.float32), RELEVANT, 4)


def test_graded_ndcg_by_hand() -> None:
    gains, ideal = np.array([[1.0, 3.0, 0.0]]), np.array([[3.0, 2.0, 1.0]])
    dcg = 1 / np.log2(2) + 3 / np.log2(3)
    best = 3 / np.log2(2) + 2 / np.log2(3) + 1 / np.log2(4)
    assert graded_ndcg_at_k(gains, ideal, 3)[0] == pytest.approx(dcg / best)
    assert graded_ndcg_at_k(gains, ideal, 1)[0] == pytest.approx(1 / 3)
    assert graded_ndcg_at_k(ideal, ideal, 3)[0] == 1.0


def test_graded_ndcg_of_equal_gains_is_ndcg() -> None:
    rng = np.random.default_rng(0)
    found = rng.random((50, 10)) < 0.2
    relevant = found.sum(1) + rng.integers(1, 6, 50)
    ideal = (np.arange(16) < relevant[:, None]).astype(float)
    for k in (1, 5, 10):
        np.testing.assert_allclose(graded_ndcg_at_k(found.astype(float), ideal, k), ndcg_at_k(found, relevant, k))


def test_graded_ndcg_knows_when_it_is_not_defined() -> None:
    one = np.ones((1, 2))
    for gains, ideal, text in (
        (one, 0 * one, "no gain"),
        (one, np.array([[1.0, 2.0]]), "fall"),
        (2 * one, one, "more gain"),
        (-one, one, "negative"),
    ):
        with pytest.raises(ValueError, match=text):
            graded_ndcg_at_k(gains, ideal, 2)
    with pytest.raises(ValueError, match="k is 3"):
        graded_ndcg_at_k(one, one, 3)
