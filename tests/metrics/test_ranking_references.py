"""Ranking metrics are those of trec_eval and scikit-learn wherever the definitions agree; where not, ours by hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import ndcg_score

from recsys import metrics
from recsys.metrics import graded_ndcg_at_k, hits
from recsys.ragged import Ragged

ITEMS, LONGEST = 25, 12
KS = (1, 2, 5, 10, 12)
OURS = {
    "recall": metrics.recall_at_k,
    "P": metrics.precision_at_k,
    "success": metrics.hit_rate_at_k,
    "ndcg_cut": metrics.ndcg_at_k,
    "map_cut": metrics.map_at_k,
}


@dataclass(frozen=True)
class Problem:
    """Rankings of different lengths, all with something relevant."""

    ranked: NDArray[np.int64]
    """[Q, LONGEST], -1 after the ranking's end"""
    grades: NDArray[np.int64]
    """[Q, ITEMS] from 0, irrelevant"""

    @classmethod
    def random(cls, seed: int, most: int = 1) -> Problem:
        rng = np.random.default_rng(seed)
        grades = rng.integers(1, most + 1, (6, ITEMS)) * (rng.random((6, ITEMS)) < rng.choice([0.05, 0.3, 0.9]))
        grades[np.arange(6), rng.integers(0, ITEMS, 6)] = most
        ranked = np.argsort(rng.random((6, ITEMS)), axis=1)[:, :LONGEST]
        return cls(np.where(np.arange(LONGEST) < rng.integers(0, LONGEST + 1, (6, 1)), ranked, -1), grades)

    @property
    def hits(self) -> NDArray[np.bool_]:
        rows, items = np.nonzero(self.grades)
        return hits(self.ranked, Ragged.from_pairs(rows, items, len(self.grades)))

    @property
    def relevant(self) -> NDArray[np.int64]:
        return np.count_nonzero(self.grades, axis=1)

    def trec_eval(self, measures: set[str], k: int = LONGEST) -> list[dict[str, float]]:
        """Of each query; trec_eval sorts by score, so that a rank's score is its distance from the end."""
        judged = {
            str(q): {f"{item:02}": int(grade) for item, grade in enumerate(row)} for q, row in enumerate(self.grades)
        }
        shown = {
            str(q): {f"{item:02}": float(LONGEST - rank) for rank, item in enumerate(row[:k]) if item >= 0}
            for q, row in enumerate(self.ranked)
        }
        found = pytrec_eval.RelevanceEvaluator(judged, measures).evaluate(shown)
        return [found[str(q)] if shown[str(q)] else dict.fromkeys(_names(measures), 0.0) for q in range(len(judged))]


def _names(measures: set[str]) -> set[str]:
    return {measure.replace(".", "_") for measure in measures}


@given(st.integers(0, 2**32 - 1))
def test_trec_eval_agrees(seed: int) -> None:
    problem = Problem.random(seed)
    found = problem.trec_eval({f"{name}.{k}" for name in OURS for k in KS})
    for name, function in OURS.items():
        for k in KS:
            expected = np.array([query[f"{name}_{k}"] for query in found])
            if name == "map_cut":  # trec_eval divides by all that is relevant, we by what k ranks can hold
                expected *= problem.relevant / np.minimum(problem.relevant, k)
            ours = function(problem.hits, problem.relevant, k)
            np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-9, err_msg=f"{name}@{k}")


@given(st.integers(0, 2**32 - 1), st.sampled_from(KS))
def test_trec_eval_agrees_on_the_reciprocal_rank_of_a_ranking_that_is_cut(seed: int, k: int) -> None:
    problem = Problem.random(seed)
    expected = [query["recip_rank"] for query in problem.trec_eval({"recip_rank"}, k)]
    np.testing.assert_allclose(metrics.mrr_at_k(problem.hits, problem.relevant, k), expected, rtol=0, atol=1e-9)


@given(st.integers(0, 2**32 - 1))
def test_trec_eval_agrees_on_graded_ndcg(seed: int) -> None:
    """Gains are the grades themselves."""
    problem = Problem.random(seed, most=4)
    found = problem.trec_eval({f"ndcg_cut.{k}" for k in KS})
    for k in KS:
        ours = graded_ndcg_at_k(*_gains(problem), k)
        np.testing.assert_allclose(ours, [query[f"ndcg_cut_{k}"] for query in found], rtol=0, atol=1e-9)


@given(st.integers(0, 2**32 - 1), st.integers(1, ITEMS), st.booleans())
def test_scikit_learn_agrees_on_graded_ndcg(seed: int, k: int, exponential: bool) -> None:
    """It wants a score of every item, so the whole catalogue is ranked."""
    rng = np.random.default_rng(seed)
    grades = rng.integers(0, 4, (3, ITEMS))
    grades[:, 0] = 3
    gains = 2.0**grades - 1 if exponential else grades.astype(float)
    scores = rng.permuted(np.tile(np.arange(ITEMS, dtype=float), (3, 1)), axis=1)
    shown = np.take_along_axis(gains, np.argsort(-scores, axis=1), axis=1)
    ours = graded_ndcg_at_k(shown, -np.sort(-gains, axis=1), k)
    assert ours.mean() == pytest.approx(ndcg_score(gains, scores, k=k), abs=1e-9)


def test_exponential_gains_by_hand() -> None:
    """Grades 1, 0, 2 shown: gains 1, 0, 3 of the ideal 3, 1."""
    gains, ideal = 2.0 ** np.array([[1, 0, 2]]) - 1, 2.0 ** np.array([[2, 1, 0]]) - 1
    assert graded_ndcg_at_k(gains, ideal, 3)[0] == pytest.approx((1 + 3 / 2) / (3 + 1 / np.log2(3)), abs=1e-12)


def test_ties_are_the_rankers() -> None:
    """Three equal scores: trec_eval ranks 02, 01, 00. We take the ranking as it comes, by id if from `ExactIndex`."""
    judged, shown = {"q": {"00": 1}}, {"q": {"00": 1.0, "01": 1.0, "02": 1.0}}
    found = pytrec_eval.RelevanceEvaluator(judged, {"recip_rank"}).evaluate(shown)["q"]
    assert found["recip_rank"] == pytest.approx(1 / 3)
    relevant = Ragged.from_lists([[0]])
    for ranked, value in (([2, 1, 0], 1 / 3), ([0, 1, 2], 1.0)):
        assert metrics.mrr_at_k(hits(np.array([ranked]), relevant), relevant.lengths, 3)[0] == pytest.approx(value)


def test_nobody_relevant_is_a_zero_there_and_left_out_here() -> None:
    found = pytrec_eval.RelevanceEvaluator({"q": {"00": 0}}, {"ndcg_cut.1"}).evaluate({"q": {"00": 1.0}})
    assert found["q"]["ndcg_cut_1"] == 0.0
    for function in OURS.values():
        with pytest.raises(ValueError, match="leave them out"):
            function(np.array([[False]]), np.array([0]), 1)


def test_average_precision_of_more_relevant_items_than_ranks_by_hand() -> None:
    """Two ranks, both hits, of 5 relevant items: (1/1 + 2/2) / 2 is the best there is; trec_eval says 2/5."""
    assert metrics.map_at_k(np.array([[True, True]]), np.array([5]), 2).tolist() == [1.0]
    judged, shown = {"q": {f"0{item}": 1 for item in range(5)}}, {"q": {"00": 2.0, "01": 1.0}}
    found = pytrec_eval.RelevanceEvaluator(judged, {"map_cut.2"}).evaluate(shown)
    assert found["q"]["map_cut_2"] == pytest.approx(0.4)


def test_ranks_that_nothing_fills_are_misses() -> None:
    found = hits(np.array([[4, -1, -1, -1]]), Ragged.from_lists([[4, 5]]))
    assert metrics.precision_at_k(found, np.array([2]), 4).tolist() == [0.25]
    assert metrics.recall_at_k(found, np.array([2]), 4).tolist() == [0.5]


@pytest.mark.parametrize(
    ("ranked", "relevant", "text"),
    [
        ([[1, 2], [7, 7]], [[1], [2]], "ranking of query 1 holds item 7 twice"),
        ([[1, 3, 1]], [[1]], "ranking of query 0 holds item 1 twice"),
        ([[1, 2], [3, 4]], [[1], [3, 5, 3]], "item 3 is twice relevant to query 1"),
    ],
)
def test_an_item_counts_once(ranked: list[list[int]], relevant: list[list[int]], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        hits(np.array(ranked), Ragged.from_lists(relevant))
    # Without an item there is nothing to be there twice, and two queries may have the same one.
    assert hits(np.array([[-1, -1], [3, -1]]), Ragged.from_lists([[3], [3]])).tolist() == [
        [False, False],
        [True, False],
    ]


def _gains(problem: Problem) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    grades = np.take_along_axis(problem.grades, np.maximum(problem.ranked, 0), axis=1)
    return np.where(problem.ranked >= 0, grades, 0).astype(float), -np.sort(-problem.grades.astype(float), axis=1)
