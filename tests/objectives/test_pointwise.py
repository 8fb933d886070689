"""Losses of single labels: by hand, by their gradients, and by what their logits say of probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from scipy.optimize import minimize_scalar

from recsys._compat import tf
from recsys.objectives.config import BinaryCrossEntropyConfig, FocalConfig, PointwiseLossConfig
from recsys.objectives.pointwise import Loss, log_odds, pointwise_loss

PLAIN = BinaryCrossEntropyConfig()
THRICE = BinaryCrossEntropyConfig(positive_weight=3.0)
FOCAL = FocalConfig(kind="focal", gamma=2.0)


def loss(config: Loss, label: float, logit: float) -> float:
    return float(pointwise_loss(config, tf.constant([float(label)]), tf.constant([logit]))[0])


def slope(config: Loss, label: float, logit: float) -> float:
    x = tf.constant([logit])
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = pointwise_loss(config, tf.constant([float(label)]), x)
    return float(tape.gradient(value, x)[0])


def test_by_hand() -> None:
    """sigmoid(log 4) is 0.8."""
    logit = math.log(4)
    assert loss(PLAIN, 1, logit) == pytest.approx(-math.log(0.8), rel=1e-5)
    assert loss(PLAIN, 0, logit) == pytest.approx(-math.log(0.2), rel=1e-5)
    assert loss(THRICE, 1, logit) == pytest.approx(-3 * math.log(0.8), rel=1e-5)
    assert loss(THRICE, 0, logit) == pytest.approx(-math.log(0.2), rel=1e-5)
    assert loss(FOCAL, 1, logit) == pytest.approx(-(0.2**2) * math.log(0.8), rel=1e-5)
    assert loss(FOCAL, 0, logit) == pytest.approx(-(0.8**2) * math.log(0.2), rel=1e-5)


def test_gradients_by_hand() -> None:
    """-w (1 - p) and p for cross-entropy; for the focal loss of a positive (1 - p)^g (g p log p - (1 - p))."""
    logit, p = math.log(4), 0.8
    assert slope(THRICE, 1, logit) == pytest.approx(-3 * 0.2, rel=1e-5)
    assert slope(THRICE, 0, logit) == pytest.approx(0.8, rel=1e-5)
    assert slope(THRICE, 1, logit) / slope(PLAIN, 1, logit) == pytest.approx(3, rel=1e-5)
    assert slope(FOCAL, 1, logit) == pytest.approx(0.2**2 * (2 * p * math.log(p) - 0.2), rel=1e-5)
    assert slope(FOCAL, 0, -logit) == pytest.approx(-slope(FOCAL, 1, logit), rel=1e-5)


def test_gamma_zero_and_weight_one_are_plain_cross_entropy() -> None:
    for config in (FocalConfig(kind="focal", gamma=0.0), BinaryCrossEntropyConfig(positive_weight=1.0)):
        for label in (0.0, 1.0):
            assert loss(config, label, 1.7) == pytest.approx(loss(PLAIN, label, 1.7), rel=1e-6)
        assert float(log_odds(config, tf.constant([1.7]))[0]) == pytest.approx(1.7)


@pytest.mark.parametrize("config", [PLAIN, THRICE, FOCAL])
@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_no_logit_is_too_sure(config: Loss, logit: float) -> None:
    for label in (0.0, 1.0):
        assert math.isfinite(loss(config, label, logit))
        assert math.isfinite(slope(config, label, logit))
    found = float(log_odds(config, tf.constant([logit]))[0])
    assert math.isfinite(found)
    assert found * logit > 0


@pytest.mark.parametrize("config", [PLAIN, THRICE, BinaryCrossEntropyConfig(positive_weight=0.2), FOCAL])
@pytest.mark.parametrize("rate", [0.02, 0.3, 0.8])
def test_where_the_loss_is_least_the_log_odds_are_the_true_ones(config: Loss, rate: float) -> None:
    def risk(logit: float) -> float:
        logits = tf.constant([logit, logit], tf.float64)
        ones, zeros = pointwise_loss(config, tf.constant([1, 0], tf.float64), logits).numpy()
        return float(rate * ones + (1 - rate) * zeros)

    best = minimize_scalar(risk, bounds=(-15, 15), method="bounded", options={"xatol": 1e-8}).x
    found = float(log_odds(config, tf.constant([best], tf.float64))[0])
    assert 1 / (1 + math.exp(-found)) == pytest.approx(rate, rel=1e-4)
    if config is not PLAIN:
        assert abs(found - best) > 0.05, "or there would be nothing to allow for"


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_log_odds_keep_the_order(gamma: float) -> None:
    logits = np.linspace(-30, 30, 501)
    found = log_odds(FocalConfig(kind="focal", gamma=gamma), tf.constant(logits, tf.float32)).numpy()
    assert (np.diff(found) > 0).all()
    np.testing.assert_allclose(found, -found[::-1], atol=1e-4)


def test_configs() -> None:
    read = TypeAdapter(PointwiseLossConfig).validate_python
    assert read({"positive_weight": 2.0}) == BinaryCrossEntropyConfig(positive_weight=2.0)
    assert read({"kind": "focal"}) == FocalConfig(kind="focal", gamma=2.0)
    for wrong in (
        {"positive_weight": 0.0},
        {"kind": "focal", "gamma": -1.0},
        {"kind": "focal", "positive_weight": 2.0},
    ):
        with pytest.raises(ValidationError):
            read(wrong)
