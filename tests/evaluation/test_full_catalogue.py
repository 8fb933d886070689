"""Full-catalogue evaluation: a case worked out by hand, a slow second opinion, the same numbers for any blocking."""

import math
from dataclasses import asdict

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from recsys.errors import DataError
from recsys.evaluation import EvaluationConfig, Nearest, RetrievalResult, Task, evaluate_retrieval
from recsys.evaluation.categories import Categories
from recsys.evaluation.config import METRICS
from recsys.evaluation.retrieval import _FUNCTIONS, SLICED
from recsys.evaluation.slices import Slicing
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


def task(**changes: object) -> Task:
    return Task(**({"relevant": RELEVANT, "seen": SEEN, "train_count": COUNTS} | changes))  # type: ignore[arg-type]


def run(config: EvaluationConfig = CONFIG, **changes: object) -> RetrievalResult:
    return evaluate_retrieval(Nearest(ExactIndex(VECTORS), QUERIES), task(**changes), config)


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
        "novelty@1": [-math.log2(9 / 25), -math.log2(1 / 25)],  # of 24 training events
    }
    for name, values in expected.items():
        np.testing.assert_allclose(result.per_user[name], values, err_msg=name)
    assert result.relevant_popularity.tolist() == [(0 + 2) / 2, 4]
    # Shown at rank 1: items 1 and 2 once; up to rank 3: 1, 2, 2, 3, 3, 4.
    assert result.exposure == pytest.approx(
        {"coverage@1": 2 / 5, "coverage@3": 4 / 5, "gini@1": 3 / 5, "gini@3": (-2 * 1 + 0 + 2 * 2 + 4 * 2 - 0) / 30}
    )
    summary = result.summary()
    assert summary["ndcg@3"] == pytest.approx(np.mean(expected["ndcg@3"]))
    assert summary["popularity_lift@3"] == pytest.approx(3 / 2.5)
    assert summary["coverage@3"] == 4 / 5
    beyond = ("popularity", "popularity_lift", "novelty", "coverage", "gini")
    names = [f"{metric}@{k}" for metric in (*METRICS, *beyond) for k in CONFIG.ks]
    assert sorted(summary) == sorted(names)
    assert tuple(_FUNCTIONS) == METRICS


@pytest.mark.parametrize("users_per_block", [1, 2, 3])
def test_blocks_change_nothing(users_per_block: int) -> None:
    more = {
        "gain": np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], np.float32),
        "categories": Categories(np.array([1, 2, 1, 2, 0])),
        "slicings": [Slicing("half", {"low": np.arange(5) < 3, "high": np.arange(5) >= 3})],
    }
    config = EvaluationConfig(ks=(1, 3), monitor="ndcg@3", users_per_block=users_per_block)
    np.testing.assert_equal(asdict(run(config, **more)), asdict(run(**more)))


def test_an_item_slice_by_hand() -> None:
    """User 0: relevant 2 at rank 2, and 4, which is not shown; user 2: relevant 3 at rank 2."""
    low, high = run(slicings=[Slicing("half", {"low": np.arange(5) < 3, "high": np.arange(5) >= 3})]).slices
    assert [(each.by, each.name, each.rows.tolist()) for each in (low, high)] == [
        ("half", "low", [0]),
        ("half", "high", [0, 1]),
    ]
    assert sorted(low.per_user) == sorted(f"{metric}@{k}" for metric in SLICED for k in CONFIG.ks)
    assert low.per_user["recall@3"].tolist() == [1.0]  # of one relevant item in the slice, not of two
    assert low.per_user["ndcg@3"].tolist() == pytest.approx([1 / math.log2(3)])
    assert high.per_user["recall@3"].tolist() == [0.0, 1.0]
    assert high.per_user["ndcg@3"].tolist() == pytest.approx([0.0, 1 / math.log2(3)])


def test_slices_without_relevant_items_are_left_out() -> None:
    assert run(slicings=[Slicing("x", {"nobody's": np.arange(5) == 0})]).slices == ()


def test_gains_by_hand() -> None:
    """User 0 likes 4 (gain 1) and 2 (gain 2, shown at rank 2); of user 2's events with 3 the better one counts."""
    result = run(gain=np.array([1.0, 2.0, 3.0, 9.0, 5.0, 9.0]))
    ideal = 2 + 1 / math.log2(3)
    assert result.per_user["graded_ndcg@3"].tolist() == pytest.approx([2 / math.log2(3) / ideal, 5 / math.log2(3) / 5])
    assert result.per_user["graded_ndcg@1"].tolist() == [0.0, 0.0]


def test_gains_tell_good_from_better() -> None:
    """With equal gains graded nDCG is nDCG; a user whose gains are all 0 has none."""
    same = run(gain=np.ones(6))
    np.testing.assert_allclose(same.per_user["graded_ndcg@3"], same.per_user["ndcg@3"])
    without = run(gain=np.array([0.0, 0.0, 1.0, 1.0, 1.0, 1.0]))
    assert np.isnan(without.per_user["graded_ndcg@3"]).tolist() == [True, False]
    assert math.isfinite(without.summary()["graded_ndcg@3"])


def test_categories_of_the_recommended() -> None:
    """Items 0..4 are of categories a, b, a, b, none. User 0 had 0 (a) and is shown 1, 2, 3: b, a, b."""
    result = run(categories=Categories(np.array([1, 2, 1, 2, 0])))
    assert result.per_user["diversity@3"][0] == pytest.approx(2 / 3)  # two of three pairs differ
    assert result.per_user["diversity@3"][1] == pytest.approx(1.0)  # 2, 3 and one without
    assert np.isnan(result.per_user["diversity@1"]).all()
    mixed = 0.99 * (1 / 3) + 0.01
    assert result.per_user["miscalibration@3"][0] == pytest.approx(-math.log(mixed))


def test_against_a_second_opinion() -> None:
    """Each user by himself, straight from the definitions."""
    rng = np.random.default_rng(0)
    users, items, k = 40, 30, 5
    scores = rng.normal(size=(users, items))
    events = rng.random((users, items))
    relevant, seen = events < 0.1, (events > 0.05) & (events < 0.4)
    result = evaluate_retrieval(
        Nearest(ExactIndex(np.eye(items)), scores.astype(np.float32)),  # the queries are the scores
        Task(_ragged(relevant), _ragged(seen), np.ones(items, int)),
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


def test_cold_relevant_items_have_no_lift_and_no_nan() -> None:
    counts = np.array([1, 1, 0])
    config = EvaluationConfig(ks=(3,), monitor="map@3")
    most = Nearest(ExactIndex(counts[:, None]), np.ones((1, 1), np.float32))
    summary = evaluate_retrieval(
        most, Task(Ragged.from_lists([[2]]), Ragged.from_lists([[]]), counts), config
    ).summary()
    assert not any(name.startswith("popularity_lift") for name in summary)
    assert all(math.isfinite(value) for value in summary.values())
    assert summary["mrr@3"] == 1 / 3


def test_nobody_to_evaluate_is_a_data_error() -> None:
    with pytest.raises(DataError, match=r"none of 4 users .* data\.split"):
        run(relevant=SEEN)


def test_arguments_must_fit() -> None:
    index = ExactIndex(VECTORS)
    with pytest.raises(ValueError, match="3 users of the recommender, 4 of the task"):
        evaluate_retrieval(Nearest(index, QUERIES[:3]), task(), CONFIG)
    with pytest.raises(ValueError, match="4 users in relevant, 3 in seen"):
        task(seen=SEEN.slice(0, 3))
    with pytest.raises(ValueError, match="5 items of the recommender, 4 in train_count"):
        run(train_count=COUNTS[:4])
    with pytest.raises(DataError, match="queries"):
        evaluate_retrieval(Nearest(index, np.full((4, 1), np.nan, np.float32)), task(), CONFIG)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ks": [10, 5], "monitor": "ndcg@10"}, "must rise"),
        ({"ks": [5, 5], "monitor": "ndcg@5"}, "must rise"),
        ({"ks": []}, "at least 1 item"),
        ({"ks": [0], "monitor": "ndcg@0"}, "greater than 0"),
        ({"monitor": "ndcg@20"}, r"it can be recall@10, .*map@100"),
        ({"monitor": "auc"}, "it can be recall@10"),
        ({"slices": [{"feature": "age", "edges": [3, 1]}]}, r"edges must rise, as \[1.0, 3.0\] do"),
        ({"slices": [{"feature": "age", "edges": []}]}, "edges must rise"),
        ({"slices": [{"feature": "age"}, {"feature": "age", "top": 3}]}, "age is sliced by twice"),
        ({"slices": [{"kind": "item_frequency", "head": 0.5, "tail": 0.5}]}, "leaves no torso"),
        ({"slices": [{"kind": "user_activity", "groups": 1}]}, "greater than or equal to 2"),
    ],
)
def test_config_mistakes(given: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EvaluationConfig.model_validate(given)
