import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss, roc_auc_score

from recsys.metrics import auc, auc_by_group, auc_influence, calibration, gauc, logloss, normalized_entropy, rela_impr


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
    assert auc(labels, scores, weights) == pytest.approx(roc_auc_score(labels, scores, sample_weight=weights), abs=1e-9)
    reference = log_loss(labels, scores, sample_weight=weights)
    assert logloss(labels, scores, weights) == pytest.approx(reference, abs=1e-9)
    # Its loss of the base rate is the entropy that ours is divided by.
    base = np.full(20, np.average(labels, weights=weights))
    entropy = log_loss(labels, base, sample_weight=weights)
    assert normalized_entropy(labels, scores, weights) == pytest.approx(reference / entropy, abs=1e-9)
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


def test_relative_improvement_by_hand() -> None:
    """DIN's .8818 against .8624: .3818 / .3624, 5.35% more above chance; a model of .5 has lost it all."""
    assert rela_impr(0.8818, 0.8624) == pytest.approx(0.0535, abs=5e-5)
    assert rela_impr(0.75, 0.625) == 1.0
    assert rela_impr(0.5, 0.9) == -1.0
    for auc_, base in ((0.6, 0.5), (0.6, 0.4), (1.1, 0.6), (math.nan, 0.6), (0.6, math.nan)):
        with pytest.raises(ValueError, match=r"base's above 0\.5"):
            rela_impr(auc_, base)


def test_gauc_by_hand() -> None:
    """User 0: one of two pairs tied, AUC .75, 3 examples. User 1: one class, dropped. User 2: AUC 0, 2 examples."""
    labels, scores = [1, 0, 0, 1, 1, 0, 1], [0.5, 0.5, 0.1, 0.9, 0.1, 0.8, 0.3]
    groups = [0, 0, 0, 1, 1, 2, 2]
    values, sizes = auc_by_group(labels, scores, groups)
    np.testing.assert_array_equal(values, [0.75, np.nan, 0.0])
    assert sizes.tolist() == [3, 2, 2]
    assert gauc(labels, scores, groups) == pytest.approx((0.75 * 3 + 0.0 * 2) / 5)


@given(st.integers(0, 2**32 - 1))
def test_auc_inside_groups_is_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, scores, groups = rng.integers(0, 2, 60), rng.integers(0, 5, 60) / 4, rng.integers(0, 8, 60)
    values, sizes = auc_by_group(labels, scores, groups)
    for group in range(groups.max() + 1):
        mine = groups == group
        assert sizes[group] == mine.sum()
        if 0 < labels[mine].sum() < mine.sum():
            assert values[group] == pytest.approx(roc_auc_score(labels[mine], scores[mine]), abs=1e-12)
        else:
            assert np.isnan(values[group])


def test_gauc_needs_a_group_with_both_labels() -> None:
    with pytest.raises(ValueError, match="GAUC"):
        gauc([1, 0], [0.5, 0.5], [0, 1])
    with pytest.raises(ValueError, match="groups"):
        gauc([1, 0], [0.5, 0.5], [-1, 0])


def test_influence_spreads_as_auc_does() -> None:
    """Its standard error is that of AUC over fresh samples, ties and weights included; it sums to nothing."""
    rng = np.random.default_rng(0)

    def sample() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        labels = rng.integers(0, 2, 400)
        return labels, np.round(rng.normal(0.7 * labels), 1), rng.uniform(0.5, 1.5, 400)

    influence = auc_influence(*sample())
    assert influence.mean() == pytest.approx(0, abs=1e-12)
    spread = np.std([auc(*sample()) for _ in range(400)])
    assert influence.std() / np.sqrt(400) == pytest.approx(spread, rel=0.12)


def test_calibration_by_hand() -> None:
    labels, probabilities = [0, 1, 1, 1], [0.1, 0.2, 0.7, 0.9]
    curve = calibration(labels, probabilities, [1, 1, 1, 2], bins=2, strategy="uniform")
    np.testing.assert_allclose(curve.predicted, [0.15, (0.7 + 2 * 0.9) / 3])
    np.testing.assert_allclose(curve.observed, [0.5, 1.0])
    assert curve.weight.tolist() == [2, 3]
    assert curve.ece == pytest.approx((2 * 0.35 + 3 * (1 - 2.5 / 3)) / 5)


@given(st.integers(0, 2**32 - 1))
def test_scikit_learn_draws_the_same_curve(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, probabilities = np.append(rng.integers(0, 2, 98), [0, 1]), rng.random(100)
    for strategy in ("uniform", "quantile"):
        curve = calibration(labels, probabilities, bins=7, strategy=strategy)
        observed, predicted = calibration_curve(labels, probabilities, n_bins=7, strategy=strategy)
        np.testing.assert_allclose(curve.observed, observed, rtol=0, atol=1e-9)
        np.testing.assert_allclose(curve.predicted, predicted, rtol=0, atol=1e-9)
        assert curve.weight.sum() == 100


def test_a_prediction_on_an_edge_is_in_the_upper_bin() -> None:
    """scikit-learn's bins are closed above: it would put 0.5 beside 0.25."""
    curve = calibration([0, 1, 1], [0.25, 0.5, 0.75], bins=2, strategy="uniform")
    assert curve.predicted.tolist() == [0.25, 0.625]
    assert calibration_curve([0, 1, 1], [0.25, 0.5, 0.75], n_bins=2)[1].tolist() == [0.375, 0.75]


def test_equal_predictions_share_a_bin() -> None:
    assert calibration([0, 1, 1, 1], [0.5] * 4).predicted.tolist() == [0.5]
