"""Dice: by hand, its moments with and without padding, its state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recsys._compat import keras, tf
from recsys.interactions.dice import Dice

X = np.array([[1.0, 10.0], [2.0, -10.0], [6.0, 0.0]], np.float32)
ALPHA = np.array([0.5, -1.0], np.float32)


def dice(units: int = 2, alpha: np.ndarray | None = ALPHA) -> Dice:
    layer = Dice("dice")
    layer(tf.zeros([1, units]))
    if alpha is not None:
        layer.alpha.assign(alpha)
    return layer


def by_hand(x: np.ndarray, mean: np.ndarray, variance: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    p = 1 / (1 + np.exp(-(x - mean) / np.sqrt(variance + 1e-8)))
    return p * x + (1 - p) * alpha * x


def test_a_batch_by_hand() -> None:
    """Unit 0 has mean 3 and biased variance (4 + 1 + 9) / 3; p(1) = σ(-2 / 2.160) = .2837, f(1) = .2837 + .7163 / 2."""
    found = dice()(X, training=True).numpy()
    np.testing.assert_allclose(found[0, 0], 0.64188, atol=1e-5)
    np.testing.assert_allclose(found, by_hand(X, X.mean(0), X.var(0), ALPHA), rtol=1e-6)


def test_epsilon_stands_inside_the_root() -> None:
    """At variance 0 and s - E = 1e-4, p = σ(1e-4 / √1e-8) = σ(1); outside of the root it would be 1."""
    layer = dice(1, np.zeros(1))
    layer.moving_mean.assign([1.0])
    layer.moving_variance.assign([0.0])
    np.testing.assert_allclose(layer(tf.constant([[1.0001]]))[0, 0], 0.73106, atol=1e-3)


def test_inference_takes_the_moving_moments_and_leaves_them() -> None:
    layer = dice()
    np.testing.assert_allclose(layer(X), by_hand(X, np.zeros(2), np.ones(2), ALPHA), rtol=1e-6)
    layer.moving_mean.assign([2.0, 1.0])
    layer.moving_variance.assign([4.0, 9.0])
    np.testing.assert_allclose(layer(X), by_hand(X, np.array([2, 1]), np.array([4, 9]), ALPHA), rtol=1e-6)
    np.testing.assert_array_equal(layer.moving_mean, [2.0, 1.0])


def test_training_moves_the_averages_by_a_hundredth() -> None:
    layer = dice()
    layer(X, training=True)
    layer(X, training=True)
    np.testing.assert_allclose(layer.moving_mean, X.mean(0) * (1 - 0.99**2), atol=1e-7)
    np.testing.assert_allclose(layer.moving_variance, 1 + (X.var(0) - 1) * (1 - 0.99**2), rtol=1e-5)


def test_padding_is_in_no_moment() -> None:
    """The spec's planted case: 80 pads behind lengths below 20 pull an unmasked mean from 2 to .2."""
    random = np.random.default_rng(0)
    x = random.normal(2.0, 1.0, (32, 100, 3)).astype(np.float32)
    mask = np.arange(100) < random.integers(0, 20, 32)[:, None]
    x[~mask] = 0.0
    layer, short = dice(3, None), dice(3, None)
    found = layer(x, mask=mask, training=True).numpy()
    values = x[mask]
    np.testing.assert_allclose(found[mask], by_hand(values, values.mean(0), values.var(0), np.zeros(3)), atol=1e-5)
    np.testing.assert_allclose(layer.moving_mean, values.mean(0) / 100, rtol=1e-4)
    np.testing.assert_allclose(short(x[:, :20], mask=mask[:, :20], training=True), found[:, :20], atol=1e-6)
    np.testing.assert_allclose(short.moving_variance, layer.moving_variance, rtol=1e-6)


def test_a_batch_of_padding_alone_changes_nothing() -> None:
    layer = dice()
    layer.moving_mean.assign([2.0, 1.0])
    found = layer(X[:, np.newaxis], mask=np.zeros([3, 1], bool), training=True)
    assert np.all(np.isfinite(found))
    np.testing.assert_array_equal(layer.moving_mean, [2.0, 1.0])
    np.testing.assert_array_equal(layer.moving_variance, [1.0, 1.0])


@pytest.mark.parametrize("mask", [None, np.array([True, False, True, True])])
def test_gradients_flow_through_the_batch_moments(mask: np.ndarray | None) -> None:
    """Against finite differences in float64 of the formula by hand: stopped moments would give other numbers. What
    padding gives counts as well, if a loss reads it.
    """
    random = np.random.default_rng(3)
    x, weights, steps = random.normal(size=(4, 2)), random.normal(size=(4, 2)), 1e-6 * np.eye(10)
    layer, start = dice(), tf.constant(x, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(start)
        loss = tf.reduce_sum(layer(start, mask=mask, training=True) * weights)
    found = tape.gradient(loss, [start, layer.alpha])

    def value(place: np.ndarray) -> float:
        s, alpha = place[:8].reshape(4, 2), place[8:]
        seen = s if mask is None else s[mask]
        return float((by_hand(s, seen.mean(0), seen.var(0), alpha) * weights).sum())

    here = np.concatenate([x.ravel(), ALPHA])
    slopes = [(value(here + step) - value(here - step)) / 2e-6 for step in steps]
    np.testing.assert_allclose(np.concatenate([tf.reshape(g, [-1]) for g in found]), slopes, rtol=1e-3, atol=1e-4)


def test_its_state_is_in_the_checkpoint(tmp_path: Path) -> None:
    layer, other = dice(), dice(alpha=None)
    layer(X, training=True)
    path = tf.train.Checkpoint(layer=layer).save(str(tmp_path / "dice"))
    assert not np.allclose(other(X), layer(X))
    tf.train.Checkpoint(layer=other).restore(path).assert_consumed()
    np.testing.assert_array_equal(other(X), layer(X))


def test_mixed_precision_keeps_moments_whole() -> None:
    """In bfloat16 numbers around 1000 lie 4 apart, and their variance is lost."""
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        layer = dice()
        found = layer(tf.cast(X + 1000.0, tf.bfloat16), training=True)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert found.dtype == tf.bfloat16
    assert {weight.dtype for weight in layer.weights} == {tf.float32}
    rounded = tf.cast(tf.cast(X + 1000.0, tf.bfloat16), tf.float32).numpy()
    np.testing.assert_allclose(layer.moving_mean, rounded.mean(0) / 100, rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, 0.99 + rounded.var(0) / 100, rtol=1e-4)


def test_averages_move_inside_a_strategy() -> None:
    """They are assigned in the context of a replica."""
    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
    with strategy.scope():
        layer = dice()
    strategy.run(tf.function(lambda: layer(X, training=True)))
    np.testing.assert_allclose(layer.moving_mean, X.mean(0) / 100, atol=1e-7)
