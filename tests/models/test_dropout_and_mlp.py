"""Dropout without a state, and dense layers whose initial weights repeat."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.interactions.dice import Dice
from recsys.models.config import MLPConfig
from recsys.models.layers import MLP, StatelessDropout

ONES = tf.ones([400, 50])


def mask(rate: float = 0.25, seed: int = 0, step: int = 3, name: str = "d") -> NDArray[np.float32]:
    """Made anew each time: nothing but the arguments may matter."""
    layer = StatelessDropout(rate, seed, tf.Variable(step, dtype=tf.int64, trainable=False), name)
    return layer(ONES, training=True).numpy()


def test_a_mask_is_a_function_of_seed_step_and_layer() -> None:
    first = mask()
    tf.random.set_seed(99)
    np.testing.assert_array_equal(mask(), first)
    for other in (mask(step=4), mask(seed=1), mask(name="e")):
        # Independent masks agree in .75² + .25² = .625 of the places.
        assert abs(float((other == first).mean()) - 0.625) < 0.02


def test_masks_follow_the_step_inside_one_graph() -> None:
    step = tf.Variable(0, dtype=tf.int64, trainable=False)
    layer = StatelessDropout(0.5, 0, step, "d")
    graph = tf.function(lambda: layer(ONES, training=True))
    first = graph().numpy()
    np.testing.assert_array_equal(graph(), first)
    step.assign_add(1)
    assert not np.array_equal(graph(), first)
    step.assign(0)
    np.testing.assert_array_equal(graph(), first)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_expectation(rate: float) -> None:
    dropped = mask(rate)
    np.testing.assert_allclose(np.unique(dropped), [0.0, 1 / (1 - rate)], rtol=1e-6)
    spread = np.sqrt(rate * (1 - rate) / dropped.size)
    assert abs((dropped == 0).mean() - rate) < 5 * spread
    # Neither whole rows nor whole columns go together.
    assert 0 < (dropped == 0).mean(0).min() <= (dropped == 0).mean(0).max() < 1
    assert len({row.tobytes() for row in dropped}) > 350 or rate == 0.9


def test_no_dropout_in_inference_nor_at_rate_zero() -> None:
    layer = StatelessDropout(0.5, 0, tf.Variable(0, dtype=tf.int64), "d")
    np.testing.assert_array_equal(layer(ONES), ONES)
    np.testing.assert_array_equal(layer(ONES, training=False), ONES)
    np.testing.assert_array_equal(mask(0.0), ONES)


def mlp(config: MLPConfig, output: int | None = None, seed: int = 0, name: str = "m") -> MLP:
    made = MLP(config, output, seed, tf.Variable(0, dtype=tf.int64, trainable=False), name)
    made(tf.zeros([1, 3]))
    return made


def test_mlp_is_relu_layers_and_a_linear_output() -> None:
    layer = mlp(MLPConfig(hidden=(5, 4)), 2)
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    weights = [variable.numpy() for variable in layer.trainable_variables]
    assert [w.shape for w in weights] == [(3, 5), (5,), (5, 4), (4,), (4, 2), (2,)]
    hidden = np.maximum(np.maximum(x @ weights[0], 0) @ weights[2], 0)
    expected = hidden @ weights[4]
    assert expected.min() < 0 < expected.max()
    np.testing.assert_allclose(layer(tf.constant(x)), expected, rtol=1e-4, atol=1e-6)


def test_mlp_without_layers_is_the_identity() -> None:
    x = tf.random.stateless_normal([4, 3], [0, 0])
    np.testing.assert_array_equal(mlp(MLPConfig())(x, training=True), x)


def test_mlp_drops_after_every_hidden_layer_in_training_alone() -> None:
    layer = mlp(MLPConfig(hidden=(64, 64), dropout=0.5))
    x = tf.random.stateless_uniform([32, 3], [0, 0])
    inference, training = layer(x).numpy(), layer(x, training=True).numpy()
    np.testing.assert_array_equal(layer(x).numpy(), inference)
    positive = inference > 0
    assert 0.35 < (training[positive] == 0).mean() < 0.75
    kept = (training != 0) & positive
    # The first layer's dropout too: what is left is not just twice the undropped value.
    assert np.abs(training[kept] / inference[kept] - 2).mean() > 0.1


def test_initial_weights_are_a_function_of_seed_and_name() -> None:
    def weights(seed: int, name: str) -> list[NDArray[np.float32]]:
        tf.random.set_seed(np.random.default_rng().integers(1 << 30))
        made = mlp(MLPConfig(hidden=(8, 3)), 8, seed, name)
        return [v.numpy() for v in made.trainable_variables if v.shape.rank == 2]

    first = weights(0, "m")
    assert not np.array_equal(first[0], first[2]), "two layers of one shape start apart"
    for one, again, seeded, named in zip(first, weights(0, "m"), weights(1, "m"), weights(0, "n"), strict=True):
        np.testing.assert_array_equal(one, again)
        assert not np.array_equal(one, seeded)
        assert not np.array_equal(one, named)


def test_dice_stands_behind_each_layer_and_moves_its_averages_in_training_alone() -> None:
    mlp = MLP(MLPConfig(hidden=(4, 3), activation="dice"), 1, 0, tf.Variable(0, dtype=tf.int64), "mlp")
    x = tf.constant(np.random.default_rng(0).normal(2.0, 3.0, (64, 5)), tf.float32)
    before = mlp(x, training=False)
    dice = [layer for layer in mlp._layers if isinstance(layer, Dice)]
    assert [layer.alpha.shape[0] for layer in dice] == [4, 3]
    first = mlp._layers[0](x)
    expected = dice[0](first, training=False)
    np.testing.assert_allclose(mlp._layers[-1](dice[1](mlp._layers[3](expected), training=False)), before, rtol=1e-5)
    mlp(x, training=True)
    np.testing.assert_allclose(dice[0].moving_mean, 0.01 * tf.reduce_mean(first, 0), rtol=1e-4, atol=1e-6)
    assert not np.allclose(mlp(x, training=False), before)
