import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from recsys.metrics import auc, logloss, normalized_entropy


def test_auc_by_hand() -> None:
    # Positives 3, 1; negatives 2, 1: pairs 3>2, 3>1, 1<2, 1=1.
    assert auc([1, 1, 0, 0], [3, 1, 2, 1]) == (1 + 1 + 0 + 0.5) / 4
    # The pair (positive i, negative j) weighs w_i w_j.
    assert auc([1, 1, 0, 0], [3, 1, 2, 1], [1, 2, 3, 4]) == (3 + 4 + 0 + 0.5 * 8) / (3 * 7)


def test_logloss_by_hand() -> None:
    assert logloss([1, 0], [0.8, 0.4]) == pytest.approx(-(math.log(0.8) + math.log(0.6)) / 2)
    assert logloss([1, 0], [0.8, 0.4], [3, 1]) == pytest.approx(-(3 * math.log(0.8) + math.log(0.6)) / 4)


def test_a_saturated_sigmoid_is_not_infinite() -> None:
    assert logloss([0, 1], [1.0, 1.0]) == pytest.approx(-math.log(2**-23) / 2, rel=1e-6)


def test_normalized_entropy_of_the_base_rate_is_one() -> None:
    labels, weights = np.array([1, 0, 0, 0]), np.array([1.0, 1, 2, 1])
    assert normalized_entropy(labels, np.full(4, 0.25)) == pytest.approx(1)
    assert normalized_entropy(labels, np.full(4, 0.2), weights) == pytest.approx(1)
    assert normalized_entropy(labels, np.array([0.9, 0.1, 0.1, 0.1])) < 1


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_scikit_learn_agrees(seed: int, weighted: bool) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([0, 1], [12, 8]))
    scores = rng.integers(1, 8, 20) / 8  # few values: many ties
    weights = rng.random(20) if weighted else None
    assert auc(labels, scores, weights) == pytest.approx(roc_auc_score(labels, scores, sample_weight=weights))
    assert logloss(labels, scores, weights) == pytest.approx(log_loss(labels, scores, sample_weight=weights))
    # AUC depends on the order of scores only, and mirrors.
    assert auc(labels, np.exp(7 * scores), weights) == auc(labels, scores, weights)
    assert auc(labels, -scores, weights) == pytest.approx(1 - auc(labels, scores, weights))


def test_one_class_has_no_auc() -> None:
    for labels, weights in (([1, 1], None), ([0, 0], None), ([1, 0], [1.0, 0.0])):
        with pytest.raises(ValueError, match="positives and negatives"):
            auc(labels, [0.1, 0.2], weights)


@pytest.mark.parametrize(
    ("labels", "scores", "weights", "message"),
    [
        ([1, 0.5], [0.1, 0.2], None, "0 or 1"),
        ([1, math.nan], [0.1, 0.2], None, "0 or 1"),
        ([1, 0], [0.1, math.nan], None, "1 scores are NaN"),
        ([1, 0], [0.1], None, "alike"),
        ([[1, 0]], [[0.1, 0.2]], None, "alike"),
        ([1, 0], [0.1, 0.2], [1.0, -1.0], "weights"),
        ([1, 0], [0.1, 0.2], [0.0, 0.0], "weights"),
        ([1, 0], [0.1, 0.2], [math.nan, 1.0], "weights"),
    ],
)
def test_unsound_arguments_are_refused(labels: list, scores: list, weights: list | None, message: str) -> None:
    for metric in (auc, logloss, normalized_entropy):
        with pytest.raises(ValueError, match=message):
            metric(labels, scores, weights)


def test_logits_are_no_probabilities() -> None:
    with pytest.raises(ValueError, match="logits"):
        logloss([1, 0], [2.3, -0.1])
