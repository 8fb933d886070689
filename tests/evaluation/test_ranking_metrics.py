import numpy as np
import pytest

from recsys.errors import DataError
from recsys.evaluation import evaluate_ranking
from recsys.evaluation.pointwise import Examples, evaluate_order, user_values
from recsys.metrics import auc, calibration, logloss, normalized_entropy


def test_what_is_measured() -> None:
    labels, probabilities, weights = [1, 0, 0, 1], np.array([0.9, 0.2, 0.6, 0.4], np.float32), [1.0, 1, 1, 2]
    assert evaluate_ranking(labels, probabilities, weights) == {
        "auc": auc(labels, probabilities, weights),
        "logloss": logloss(labels, probabilities, weights),
        "normalized_entropy": normalized_entropy(labels, probabilities, weights),
        "ece": calibration(labels, probabilities, weights, bins=20).ece,
        "base_rate": 3 / 5,
    }
    assert evaluate_ranking(labels, probabilities)["base_rate"] == 0.5


def test_gauc_is_of_users_with_both_labels() -> None:
    labels, probabilities = [1, 0, 0, 1], [0.9, 0.2, 0.6, 0.4]
    assert evaluate_ranking(labels, probabilities, users=[0, 0, 1, 1])["gauc"] == (1 + 0) / 2
    assert "gauc" not in evaluate_ranking(labels, probabilities, users=[0, 1, 2, 3])


def test_user_values_average_to_the_metrics() -> None:
    rng = np.random.default_rng(0)
    users, labels = rng.choice([2, 3, 5, 8, 13], 200), rng.integers(0, 2, 200)
    probabilities, weights = np.round(rng.random(200), 1) * 0.98 + 0.01, rng.uniform(0.5, 2, 200)
    found = user_values(Examples(labels.astype(float), weights, users), probabilities)
    assert found.users.tolist() == [2, 3, 5, 8, 13]
    expected = evaluate_ranking(labels, probabilities, weights, users)
    values = found.values
    assert sorted(values) == ["auc", "gauc", "logloss", "normalized_entropy"]
    for metric, array in values.items():
        assert np.average(array, weights=found.weights[metric]) == pytest.approx(expected[metric], abs=1e-12), metric
    mine = users == 8
    assert values["logloss"][3] == pytest.approx(logloss(labels[mine], probabilities[mine], weights[mine]))
    assert values["gauc"][3] == pytest.approx(auc(labels[mine], probabilities[mine]))


def test_users_without_weight_or_both_labels_do_not_count() -> None:
    found = user_values(Examples(np.array([1.0, 0, 1]), np.array([1.0, 1, 0]), np.array([0, 0, 1])), [0.9, 0.2, 0.5])
    assert found.weights["auc"].tolist() == [2, 0]
    assert found.weights["gauc"].tolist() == [2, 0]
    assert np.isnan(found.values["gauc"][1])


def test_of_one_class_logloss_alone_is_defined() -> None:
    examples = Examples(np.ones(3), np.ones(3), np.array([0, 0, 1]))
    assert examples.one_class
    assert list(user_values(examples, [0.9, 0.2, 0.5]).values) == ["logloss"]
    assert user_values(examples, [3.0, 2.0, 1.0], probabilities=False).values == {}


def test_scores_that_are_no_probabilities_have_an_order_alone() -> None:
    labels, scores, users = [1, 0, 0, 1], [9.0, -2.0, 6.0, 4.0], [0, 0, 1, 1]
    assert evaluate_order(labels, scores, users=users) == {"auc": 3 / 4, "gauc": 1 / 2}
    examples = Examples(np.array(labels, float), np.ones(4), np.array(users))
    assert sorted(user_values(examples, scores, probabilities=False).values) == ["auc", "gauc"]
    names = user_values(examples, scores, probabilities=False).evidence(np.array(["ann", "bob"])).users
    assert names.tolist() == ["ann", "bob"]


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_named(label: int) -> None:
    with pytest.raises(DataError, match=rf"all 3 examples have label {label}; expected both.*data\.negatives"):
        evaluate_ranking([label] * 3, [0.1, 0.2, 0.3])
