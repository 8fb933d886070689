import numpy as np
import pytest

from recsys.errors import DataError
from recsys.evaluation import evaluate_ranking
from recsys.evaluation.pointwise import user_values
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
    known, values, shares = user_values(labels, probabilities, weights, users)
    assert known.tolist() == [2, 3, 5, 8, 13]
    expected = evaluate_ranking(labels, probabilities, weights, users)
    for metric, found in values.items():
        assert np.average(found, weights=shares[metric]) == pytest.approx(expected[metric], abs=1e-12), metric
    mine = users == 8
    assert values["logloss"][3] == pytest.approx(logloss(labels[mine], probabilities[mine], weights[mine]))
    assert values["gauc"][3] == pytest.approx(auc(labels[mine], probabilities[mine]))


def test_users_without_weight_or_both_labels_do_not_count() -> None:
    _, values, shares = user_values([1, 0, 1], [0.9, 0.2, 0.5], [1.0, 1.0, 0.0], np.array([0, 0, 1]))
    assert shares["auc"].tolist() == [2, 0]
    assert shares["gauc"].tolist() == [2, 0]
    assert np.isnan(values["gauc"][1])


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_named(label: int) -> None:
    with pytest.raises(DataError, match=rf"all 3 examples have label {label}; expected both.*data\.negatives"):
        evaluate_ranking([label] * 3, [0.1, 0.2, 0.3])
