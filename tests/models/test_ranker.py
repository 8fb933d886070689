"""The ranker: a planted interaction that no sum of its parts explains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from recsys._compat import keras, tf
from recsys.data.catalogue import Catalogue
from recsys.data.prepared import Prepared
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.optimizers import TableOptimizers
from recsys.models.base import Batch
from recsys.models.build import make_model
from recsys.models.config import RankerConfig
from recsys.models.ranker import Ranker
from tests.worlds import EMBEDDINGS

BATCH = 96


CROSS = {"kind": "cross"}


def ranker(world: Prepared, interaction: dict[str, Any] | None = None, **mlp: Any) -> Ranker:
    embeddings = EmbeddingsConfig.model_validate(
        EMBEDDINGS | {"optimizer": {"kind": "lazy_adam", "learning_rate": 0.01}}
    )
    model = make_model(
        RankerConfig.model_validate({"kind": "ranker", "interaction": interaction, "mlp": mlp}),
        embeddings,
        world.info.features,
        Catalogue.of(world),
        0,
    )
    assert isinstance(model, Ranker)
    dense = keras.optimizers.Adam(0.01, epsilon=1e-8, adaptive_epsilon=True, jit_compile=False)
    model.compile(TableOptimizers.of(embeddings), dense, BATCH)
    model.build_from(pairs(world, np.arange(4)))
    return model


def pairs(world: Prepared, cells: NDArray[np.int64]) -> Batch:
    """Cells of the table users x items; the label is 1 where user and item have the same parity."""
    user, item = (cells // 30).astype(np.int32), (cells % 30).astype(np.int32)
    rng = np.random.default_rng(0)
    query = {
        "user_id": user + 2,
        "device": rng.integers(1, 4, len(cells)).astype(np.int32),
        "history": np.zeros((len(cells), 4), np.int32),
        "history.age": np.zeros((len(cells), 4), np.float32),
    }
    return tf.nest.map_structure(
        tf.constant,
        {
            "query": query,
            "item": {name: column[item] for name, column in world.item_features.items()},
            "user_index": user,
            "item_index": item,
            "label": (user % 2 == item % 2).astype(np.float32),
            "weight": np.ones(len(cells), np.float32),
        },
    )


def auc_after_training(model: Ranker, world: Prepared, epochs: int) -> tuple[float, float]:
    """On a fifth of the cells, held out: before and after."""
    rng = np.random.default_rng(0)
    cells = rng.permutation(1200)
    held_out = pairs(world, cells[960:])
    before = roc_auc_score(held_out["label"], model.score(held_out))
    step = tf.function(model.train_step, reduce_retracing=True)
    for _ in range(epochs):
        order = rng.permutation(cells[:960])
        for start in range(0, 960, BATCH):
            step(pairs(world, order[start : start + BATCH]))
    return before, roc_auc_score(held_out["label"], model.score(held_out))


def test_it_learns_what_only_user_and_item_together_tell(world: Prepared) -> None:
    before, after = auc_after_training(ranker(world, hidden=[32, 16]), world, epochs=25)
    assert 0.35 < before < 0.65
    assert after > 0.95


def test_without_hidden_layers_it_cannot(world: Prepared) -> None:
    """The planted structure asks for an interaction: a bar that sums of single features do not reach."""
    _, after = auc_after_training(ranker(world, hidden=[]), world, epochs=10)
    assert after < 0.7


def test_a_cross_layer_can_without_hidden_layers(world: Prepared) -> None:
    _, after = auc_after_training(ranker(world, CROSS, hidden=[]), world, epochs=25)
    assert after > 0.95


def test_dcn_v2_is_stacked(world: Prepared) -> None:
    """Embeddings, cross layers, ReLU, one logit: recomputed from the weights."""
    model, inputs = ranker(world, {"kind": "cross", "layers": 2}, hidden=[8]), pairs(world, np.arange(40))
    x0 = x = model.embeddings({**inputs["query"], **inputs["item"]}).concat().numpy().astype(np.float64)
    names = ("kernel_1", "bias_1", "kernel_2", "bias_2", "hidden", "hidden_bias", "output", "output_bias")
    dense = [v for v in model.dense_variables() if v.shape.rank > 0]  # the decay of ages is a scalar
    for variable in dense:  # biases start at 0 and would not show
        variable.assign_add(tf.random.stateless_normal(variable.shape, [1, 2], stddev=0.1))
    weight = dict(zip(names, (v.numpy().astype(np.float64) for v in dense), strict=True))
    for layer in (1, 2):
        x = x0 * (x @ weight[f"kernel_{layer}"] + weight[f"bias_{layer}"]) + x
    hidden = np.maximum(x @ weight["hidden"] + weight["hidden_bias"], 0)
    expected = (hidden @ weight["output"] + weight["output_bias"])[:, 0]
    np.testing.assert_allclose(model.logits(inputs), expected, rtol=1e-4, atol=1e-6)


def test_every_weight_of_dcn_v2_learns(world: Prepared) -> None:
    model, inputs = ranker(world, {"kind": "cross", "projection_dim": 3}, hidden=[8]), pairs(world, np.arange(96))
    inputs["query"] |= {
        "history": tf.ones([96, 4], tf.int32) * 3,
        "history.age": tf.ones([96, 4]) * 3600 * [1, 2, 3, 4],
    }
    before = [tf.identity(v) for v in model.trainable_variables]
    model.train_step(inputs)
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert not np.array_equal(variable, old), variable.name


def test_loss_is_weighted_cross_entropy_over_the_global_batch(world: Prepared) -> None:
    model, inputs = ranker(world, hidden=[8]), pairs(world, np.arange(50, 90))
    weight = np.random.default_rng(0).uniform(0, 2, 40).astype(np.float32)
    logits, label = model.logits(inputs).numpy().astype(np.float64), inputs["label"].numpy()
    assert logits.shape == (40,)
    probability = 1 / (1 + np.exp(-logits))
    expected = -(label * np.log(probability) + (1 - label) * np.log(1 - probability))
    np.testing.assert_allclose(model.example_losses(inputs, training=False), expected, rtol=1e-5)
    found = model.compute_loss({**inputs, "weight": tf.constant(weight)})
    np.testing.assert_allclose(found, (weight * expected).sum() / BATCH, rtol=1e-5)


def test_an_example_of_weight_zero_is_absent(world: Prepared) -> None:
    model, cells = ranker(world, hidden=[8]), np.arange(0, 400, 10)

    def gradients(inputs: Batch) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(inputs)
        gradients = tape.gradient(loss, model.trainable_variables, unconnected_gradients="zero")
        return [tf.convert_to_tensor(g) for g in gradients]

    some = pairs(world, cells)
    some["weight"] = tf.constant(np.repeat([1.0, 0.0], 20), tf.float32)
    alone = {name: tf.nest.map_structure(lambda value: value[:20], value) for name, value in some.items()}
    for one, other in zip(gradients(some), gradients(alone), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-8)
    assert max(np.abs(g).max() for g in gradients(alone)) > 1e-3


def test_score_is_the_inference_logit(world: Prepared) -> None:
    model, inputs = ranker(world, hidden=[32], dropout=0.5), pairs(world, np.arange(100))
    inference = model.logits(inputs).numpy()
    np.testing.assert_allclose(model.score(inputs), inference, rtol=1e-5, atol=1e-7)
    assert not np.allclose(model.logits(inputs, training=True), inference, rtol=1e-3)


def test_the_order_of_a_batchs_features_changes_no_logit(world: Prepared) -> None:
    model, inputs = ranker(world, hidden=[8]), pairs(world, np.arange(100))
    other = {**inputs, "query": dict(reversed(inputs["query"].items())), "item": dict(reversed(inputs["item"].items()))}
    np.testing.assert_array_equal(model.logits(other), model.logits(inputs))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_stays_close_to_float32(world: Prepared, policy: str) -> None:
    inputs = pairs(world, np.arange(40))
    expected = ranker(world, CROSS, hidden=[8]).logits(inputs)
    keras.mixed_precision.set_global_policy(policy)
    try:
        model = ranker(world, CROSS, hidden=[8])
        found = model.logits(inputs)
        assert np.isfinite(model.train_step(inputs)["loss"])
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, expected, atol=0.05)
