"""The cross network of DCN-V2: by hand, its gradients, its seeds."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from recsys._compat import keras, tf
from recsys.interactions.config import CrossConfig
from recsys.interactions.cross import CrossNetwork

X = tf.constant([[1.0, 2.0], [0.0, 0.0], [-1.0, 0.5]])


def cross(width: int = 2, seed: int = 0, name: str = "cross", **config: int) -> CrossNetwork:
    layer = CrossNetwork(CrossConfig(kind="cross", **config), seed, name)
    layer(tf.zeros([1, width]))
    return layer


def test_two_layers_by_hand() -> None:
    """x1 = x0 ⊙ (x0 K + b) + x0 = [1, 2] ⊙ ([7, 10] + [.5, -1]) + [1, 2] = [8.5, 20]; the second layer swaps:
    x2 = x0 ⊙ [20, 8.5] + x1 = [28.5, 37]. A layer that multiplies by x1 instead would give [178.5, 190].
    """
    layer = cross(layers=2)
    layer.set_weights([np.array(w) for w in ([[1, 2], [3, 4]], [0.5, -1], [[0, 1], [1, 0]], [0, 0])])
    found = layer(X).numpy()
    np.testing.assert_allclose(found[0], [28.5, 37.0], rtol=1e-6)
    np.testing.assert_array_equal(found[1], [0.0, 0.0])
    # x0 = [-1, .5]: x0 K = [.5, 0]; x1 = [-1, .5] ⊙ [1, -1] + x0 = [-2, 0]; x2 = [-1, .5] ⊙ [0, -2] + x1.
    np.testing.assert_allclose(found[2], [-2.0, -1.0], rtol=1e-6)


def test_a_low_rank_layer_by_hand() -> None:
    """[1, 2] U = 5; 5 V = [15, -5]; plus b = [16, -4]; x1 = [1, 2] ⊙ [16, -4] + [1, 2]."""
    layer = cross(projection_dim=1)
    assert [tuple(w.shape) for w in layer.trainable_variables] == [(2, 1), (1, 2), (2,)]
    layer.set_weights([np.array(w) for w in ([[1], [2]], [[3, -1]], [1, 1])])
    np.testing.assert_allclose(layer(X)[0], [17.0, -6.0], rtol=1e-6)


@pytest.mark.parametrize("config", [{"layers": 3}, {"layers": 2, "projection_dim": 2}])
def test_every_weight_and_the_input_have_a_gradient(config: dict[str, int]) -> None:
    layer, x = cross(5, **config), tf.random.stateless_normal([7, 5], [0, 1])
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(layer(x) ** 2)
    assert len(layer.trainable_variables) == 6
    for gradient in tape.gradient(loss, [x, *layer.trainable_variables]):
        assert np.all(np.abs(gradient.numpy()) > 0)


def test_initial_weights_are_functions_of_seed_and_name() -> None:
    def kernels(layer: CrossNetwork) -> list[np.ndarray]:
        return [w.numpy() for w in layer.trainable_variables if w.shape.rank == 2]

    config = {"layers": 2, "projection_dim": 3}
    first = kernels(cross(8, **config))
    tf.random.set_seed(99)
    for one, other in zip(first, kernels(cross(8, **config)), strict=True):
        np.testing.assert_array_equal(one, other)
    # No two of these share their numbers: both factors of both layers, another seed, another name.
    others = [*first, *kernels(cross(8, seed=1, **config)), *kernels(cross(8, name="other", **config))]
    assert len({np.sort(kernel.ravel())[:5].tobytes() for kernel in others}) == 12
    limit = np.sqrt(6 / (8 + 3))
    assert all(0.8 * limit < np.abs(kernel).max() <= limit for kernel in others), "Glorot's bounds"


def test_it_is_saved_and_loaded(tmp_path: str) -> None:
    layer = cross(layers=2, projection_dim=1)
    path = tf.train.Checkpoint(layer=layer).save(f"{tmp_path}/cross")
    other = cross(layers=2, projection_dim=1, seed=1)
    assert not np.allclose(other(X), layer(X))
    tf.train.Checkpoint(layer=other).restore(path).assert_consumed()
    np.testing.assert_array_equal(other(X), layer(X))


def test_mixed_precision_computes_in_half_and_keeps_weights_whole() -> None:
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        layer = cross(layers=2)
        found = layer(X)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert found.dtype == tf.bfloat16
    assert {w.dtype for w in layer.trainable_variables} == {tf.float32}
    np.testing.assert_allclose(tf.cast(found, tf.float32), cross(layers=2)(X), rtol=0.05, atol=0.05)


def test_an_empty_batch() -> None:
    assert cross(layers=2)(tf.zeros([0, 2])).shape == (0, 2)


def test_a_rank_that_saves_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"projection_dim: a rank of 2 saves nothing where the features' width is 2"):
        cross(2, projection_dim=2)
    assert not CrossConfig(kind="cross", projection_dim=1).problems(2)


def test_the_config_round_trips_and_is_strict() -> None:
    config = CrossConfig(kind="cross", layers=3, projection_dim=16)
    assert CrossConfig.model_validate(config.model_dump(mode="json")) == config
    assert CrossConfig(kind="cross") == CrossConfig(kind="cross", layers=1, projection_dim=None)
    for wrong in ({"layers": 0}, {"projection_dim": 0}, {"kind": "fm"}, {"rank": 3}):
        with pytest.raises(ValidationError):
            CrossConfig.model_validate({"kind": "cross", **wrong})
