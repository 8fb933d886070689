"""Full-catalogue evaluation: a case worked out by hand, a slow second opinion, the same numbers for any blocking."""

import math
from dataclasses import asdict

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from recsys.errors import DataError
from recsys.evaluation import EvaluationConfig, RetrievalResult, evaluate_popularity, evaluate_retrieval
from recsys.evaluation.config import METRICS
from recsys.evaluation.retrieval import _FUNCTIONS
from recsys.ragged import Ragged
from recsys.retrieval import ExactIndex

CONFIG = EvaluationConfig(ks=(1, 3), monitor="ndcg@3")
# Items 0..4 score 5, 4, 3, 2, 1 for everyone.
VECTORS = np.array([[5.0], [4], [3], [2], [1]], np.float32)
COUNTS = np.array([10, 8, 0, 4, 2])
# User 0: ranks 1, 2, 3 after the seen 0; relevant 2 and 4. User 1: nothing relevant. User 2: 1 is relevant but seen,
# and 3, named twice, counts once. User 3: what was relevant is seen.
RELEVANT = Ragged.from_lists([[4, 2], [], [3, 1, 3], [0]])
SEEN = Ragged.from_lists([[0], [], [1, 0], [0, 1]])
QUERIES = np.ones((4, 1), np.float32)


def run(queries: object = QUERIES, config: EvaluationConfig = CONFIG) -> RetrievalResult:
    return evaluate_retrieval(ExactIndex(VECTORS), queries, RELEVANT, SEEN, COUNTS, config)  # type: ignore[arg-type]


def test_by_hand() -> None:
    result = run()
    assert result.users.tolist() == [0, 2]
    assert result.without_relevant == 2
    # User 0 is shown 1, 2, 3 (a hit at rank 2 of 2 relevant); user 2 is shown 2, 3, 4 (a hit at rank 2 of 1).
    expected: dict[str, list[float]] = {
        "recall@1": [0, 0],
        "recall@3": [1 / 2, 1],
        "precision@3": [1 / 3, 1 / 3],
        "hit_rate@1": [0, 0],
        "hit_rate@3": [1, 1],
        "mrr@3": [1 / 2, 1 / 2],
        "map@3": [1 / 4, 1 / 2],
        "ndcg@3": [(1 / math.log2(3)) / (1 + 1 / math.log2(3)), 1 / math.log2(3)],
        "popularity@1": [8, 0],
        "popularity@3": [12 / 3, 6 / 3],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(result.per_user[name], values, err_msg=name)
    assert result.relevant_popularity.tolist() == [(0 + 2) / 2, 4]
    assert result.coverage == {"coverage@1": 2 / 5, "coverage@3": 4 / 5}
    summary = result.summary()
    assert summary["ndcg@3"] == pytest.approx(np.mean(expected["ndcg@3"]))
    assert summary["popularity_lift@3"] == pytest.approx(3 / 2.5)
    assert summary["coverage@3"] == 4 / 5
    names = [f"{metric}@{k}" for metric in (*METRICS, "popularity", "popularity_lift", "coverage") for k in CONFIG.ks]
    assert sorted(summary) == sorted(names)
    assert tuple(_FUNCTIONS) == METRICS


@pytest.mark.parametrize("users_per_block", [1, 2, 3, 100])
def test_blocks_change_nothing(users_per_block: int) -> None:
    config = EvaluationConfig(ks=(1, 3), monitor="ndcg@3", users_per_block=users_per_block)
    whole = asdict(run())
    for queries in (QUERIES, iter([QUERIES[:1], QUERIES[1:1], QUERIES[1:]]), [QUERIES[:3], QUERIES[3:]]):
        np.testing.assert_equal(asdict(run(queries, config)), whole)


def test_against_a_second_opinion() -> None:
    """Each user by himself, straight from the definitions."""
    rng = np.random.default_rng(0)
    users, items, k = 40, 30, 5
    scores = rng.normal(size=(users, items))
    events = rng.random((users, items))
    relevant, seen = events < 0.1, (events > 0.05) & (events < 0.4)
    result = evaluate_retrieval(
        ExactIndex(np.eye(items)),  # the queries are the scores
        scores.astype(np.float32),
        _ragged(relevant),
        _ragged(seen),
        np.ones(items, int),
        EvaluationConfig(ks=(k,), monitor="recall@5", users_per_block=7),
    )
    evaluated: list[int] = []
    for user in range(users):
        targets = {i for i in range(items) if relevant[user, i] and not seen[user, i]}
        if not targets:
            continue
        ranking = sorted((i for i in range(items) if not seen[user, i]), key=lambda i: -scores[user, i])[:k]
        gains = [int(item in targets) for item in ranking]
        dcg = sum(gain / math.log2(rank + 2) for rank, gain in enumerate(gains))
        ideal = sum(1 / math.log2(rank + 2) for rank in range(min(k, len(targets))))
        row = len(evaluated)
        assert result.per_user["recall@5"][row] == pytest.approx(sum(gains) / len(targets))
        assert result.per_user["ndcg@5"][row] == pytest.approx(dcg / ideal)
        evaluated.append(user)
    assert result.users.tolist() == evaluated
    assert result.without_relevant == users - len(evaluated) > 0


def _ragged(flags: NDArray[np.bool_]) -> Ragged:
    rows, items = np.nonzero(flags)
    return Ragged.from_pairs(rows, items, len(flags))


def test_popularity_recommends_the_most_popular_that_is_not_seen() -> None:
    counts = np.array([3, 9, 5, 9])  # in order: 1, 3 (a tie: the lower id first), 2, 0
    config = EvaluationConfig(ks=(1, 2), monitor="ndcg@1")
    relevant = Ragged.from_lists([[1], [3], [0], [2]])
    result = evaluate_popularity(relevant, Ragged.from_lists([[], [], [1, 3, 2], [1]]), counts, config)
    assert result.per_user["hit_rate@1"].tolist() == [1, 0, 1, 0]
    assert result.per_user["mrr@2"].tolist() == [1, 1 / 2, 1, 1 / 2]


def test_cold_relevant_items_have_no_lift_and_no_nan() -> None:
    result = evaluate_popularity(
        Ragged.from_lists([[2]]),
        Ragged.from_lists([[]]),
        np.array([1, 1, 0]),
        EvaluationConfig(ks=(9,), monitor="map@9"),
    )
    summary = result.summary()
    assert not any(name.startswith("popularity_lift") for name in summary)
    assert all(math.isfinite(value) for value in summary.values())
    assert summary["mrr@9"] == 1 / 3


def test_nobody_to_evaluate_is_a_data_error() -> None:
    with pytest.raises(DataError, match=r"none of 1 users .* data\.split"):
        evaluate_popularity(Ragged.from_lists([[0]]), Ragged.from_lists([[0]]), np.array([1, 2]), CONFIG)


def test_arguments_must_fit() -> None:
    index = ExactIndex(VECTORS)
    with pytest.raises(ValueError, match="3 queries for 4 users"):
        run(QUERIES[:3])
    with pytest.raises(ValueError, match="5 queries for 4 users"):
        run(np.ones((5, 1), np.float32))
    with pytest.raises(ValueError, match="4 users in relevant, 3 in seen"):
        evaluate_retrieval(index, QUERIES, RELEVANT, SEEN.slice(0, 3), COUNTS, CONFIG)
    with pytest.raises(ValueError, match="4 items in train_count, 5 in the index"):
        evaluate_retrieval(index, QUERIES, RELEVANT, SEEN, COUNTS[:4], CONFIG)
    with pytest.raises(DataError, match="queries"):
        run(np.full((4, 1), np.nan, np.float32))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ks": [10, 5], "monitor": "ndcg@10"}, "must rise"),
        ({"ks": [5, 5], "monitor": "ndcg@5"}, "must rise"),
        ({"ks": []}, "at least 1 item"),
        ({"ks": [0], "monitor": "ndcg@0"}, "greater than 0"),
        ({"monitor": "ndcg@20"}, r"it can be recall@10, .*map@100"),
        ({"monitor": "auc"}, "it can be recall@10"),
    ],
)
def test_config_mistakes(given: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EvaluationConfig.model_validate(given)
