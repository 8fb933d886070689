"""ARM-Net: by hand, sparse gates, normalisation, what it learns that a linear model does not."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score

from recsys._compat import keras, tf
from recsys.interactions.arm_net import ARMNet, NeuronNormalisation
from recsys.interactions.config import ARMNetConfig
from recsys.interactions.entmax import entmax

F, D, HEADS, NEURONS = 5, 4, 2, 3
STEP = tf.Variable(0, dtype=tf.int64)
Logits = Callable[[tf.Tensor], tf.Tensor]


def arm_net(fields: int = F, dim: int = D, seed: int = 0, name: str = "arm_net", **config: float) -> ARMNet:
    options = {"kind": "arm_net", "heads": HEADS, "neurons": NEURONS, "alpha": 1.7, **config}
    layer = ARMNet(ARMNetConfig.model_validate(options), seed, STEP, name)
    layer(tf.zeros([1, fields, dim]))
    return layer


def vectors(batch: int = 6, fields: int = F, dim: int = D, scale: float = 1.0) -> tf.Tensor:
    return tf.random.stateless_normal([batch, fields, dim], [0, 1]) * scale


def weight(layer: ARMNet, name: str) -> tf.Variable:
    (found,) = (w for w in layer.weights if w.name.split("/")[-1] == f"{name}:0")
    return found


def assign(layer: ARMNet, **weights: object) -> None:
    for name, value in weights.items():
        weight(layer, name).assign(np.reshape(value, weight(layer, name).shape))


def neurons(layer: ARMNet, fields: tf.Tensor) -> NDArray[np.float64]:
    """[B, heads, neurons, D] before the normalisation: a loop over the paper's formula."""
    bilinear, query, values = (weight(layer, name).numpy() for name in ("bilinear", "query", "values"))
    found = np.empty((len(fields), *query.shape))
    for b, e in enumerate(fields.numpy()):
        for k in range(query.shape[0]):
            for o in range(query.shape[1]):
                scores = [query[k, o] @ bilinear[k].T @ e_f / np.sqrt(e.shape[1]) for e_f in e]
                w = entmax(tf.constant(scores), layer._config.alpha).numpy() * values[k, o]
                found[b, k, o] = np.exp(sum(w_f * e_f for w_f, e_f in zip(w, e, strict=True)))
    return found


def test_a_neuron_multiplies_powers_by_hand() -> None:
    """D = 4: q = (2, 0, 0, 0) asks W's first row for e_f's first two numbers, through Wᵀ e = (e_1 + 3 e_2, 0, 0, 0);
    scores 2 (e_1 + 3 e_2) / √4 are 1, .5 and -2, gates .75, .25 and 0, w = (1.5, -1, 0). A W that is not transposed
    would see e_1 alone, a missing root would give gates (1, 0, 0).
    """
    layer = arm_net(3, 4, heads=1, neurons=1, alpha=2.0)
    bilinear = np.zeros((4, 4))
    bilinear[:, 0] = [1, 3, 0, 0]
    assign(layer, bilinear=bilinear, query=[2, 0, 0, 0], values=[2, -4, 7])
    fields = tf.constant([[[1.0, 0.0, 2.0, 0.1], [-1.0, 0.5, 1.0, 0.2], [1.0, -1.0, 9.0, 9.0]]])
    np.testing.assert_allclose(layer.gates(fields), [[[[0.75, 0.25, 0.0]]]], atol=1e-6)
    powers = [np.e**1.5 / np.e**-1.0, 1 / np.e**0.5, np.e ** (2 * 1.5) / np.e, np.e**0.15 / np.e**0.2]
    np.testing.assert_allclose(layer(fields)[0], np.array(powers) / np.sqrt(1 + 1e-5), rtol=1e-5)


@pytest.mark.parametrize("alpha", [1.5, 1.7, 2.0])
def test_all_heads_and_neurons_are_the_formula_written_out(alpha: float) -> None:
    """With moving statistics, gamma and beta of each neuron; the output is head by head, neuron by neuron, then D."""
    layer, fields = arm_net(alpha=alpha), vectors()
    ramp = np.linspace(0.5, 2.0, HEADS * NEURONS)
    assign(layer, gamma=ramp, beta=ramp - 1, moving_mean=ramp**2, moving_variance=1 / ramp)
    gamma, beta, mean, variance = (v.reshape(HEADS, NEURONS, 1) for v in (ramp, ramp - 1, ramp**2, 1 / ramp))
    expected = gamma * (neurons(layer, fields) - mean) / np.sqrt(variance + 1e-5) + beta
    np.testing.assert_allclose(layer(fields), expected.reshape(6, -1), rtol=1e-4, atol=1e-5)


def test_weights_and_where_they_start() -> None:
    layer = arm_net(7, 8, heads=3, neurons=5)
    shapes = {"bilinear": (3, 8, 8), "query": (3, 5, 8), "values": (3, 5, 7)}
    for name, shape in shapes.items():
        limit = math.sqrt(2) * math.sqrt(6 / (shape[1] + shape[2]))
        assert tuple(weight(layer, name).shape) == shape
        assert 0.85 * limit < np.abs(weight(layer, name)).max() <= limit, "Glorot's bounds in a head, with gain √2"
    assert sum(int(tf.size(w)) for w in layer.trainable_weights) == 3 * (8 * 8 + 5 * 8 + 5 * 7) + 2 * 3 * 5
    assert [(w.shape[axes[0]], axes) for w, axes in layer.field_weights()] == [(7, (2,))]


def test_gates_sum_to_one_and_a_field_whose_gate_stays_zero_changes_nothing() -> None:
    layer, fields = arm_net(alpha=2.0), vectors(40, scale=2.0)
    before, gates = layer(fields).numpy().reshape(40, -1, D), layer.gates(fields).numpy()
    assert gates.shape == (40, HEADS, NEURONS, F)
    np.testing.assert_allclose(gates.sum(-1), 1.0, atol=1e-6)
    moved = fields + 0.2 * tf.one_hot(2, F)[:, None]
    after, new_gates = layer(moved).numpy().reshape(40, -1, D), layer.gates(moved).numpy()
    untouched = ((gates[..., 2] == 0) & (new_gates[..., 2] == 0)).reshape(40, -1)
    assert 0.2 < untouched.mean() < 0.9
    np.testing.assert_allclose(after[untouched], before[untouched], rtol=1e-5)
    assert np.all(np.abs(after - before)[~untouched].max(-1) > 1e-4)


def test_fields_may_stand_in_any_order_with_their_values() -> None:
    layer, other, fields, order = arm_net(), arm_net(seed=1), vectors(), [3, 0, 4, 1, 2]
    assign(other, bilinear=weight(layer, "bilinear"), query=weight(layer, "query"))
    assign(other, values=tf.gather(weight(layer, "values"), order, axis=2))
    reordered = tf.gather(fields, order, axis=1)
    np.testing.assert_allclose(other(reordered), layer(fields), rtol=1e-5)
    np.testing.assert_allclose(other.gates(reordered), tf.gather(layer.gates(fields), order, axis=3), atol=1e-6)
    assert np.abs(layer(reordered) - layer(fields)).max() > 0.1, "values belong to fields"


@pytest.mark.parametrize("scale", [1.0, 0.02])
def test_training_normalises_each_neuron_by_the_batch_and_inference_by_moving_averages(scale: float) -> None:
    """At the small scale variances are near epsilon, so another one would show."""
    layer, fields = arm_net(), vectors(50, scale=scale)
    x = neurons(layer, fields)
    mean, variance = x.mean((0, 3), keepdims=True), x.var((0, 3), keepdims=True)
    if scale < 1:
        assert variance.max() < 1e-4
    expected = (x - mean) / np.sqrt(variance + 1e-5)
    np.testing.assert_allclose(layer(fields, training=True), expected.reshape(50, -1), rtol=1e-3, atol=1e-3)
    layer(fields, training=True)
    np.testing.assert_allclose(weight(layer, "moving_mean"), mean[0] * (1 - 0.9**2), rtol=1e-5)
    np.testing.assert_allclose(weight(layer, "moving_variance"), 1 + (variance[0] - 1) * (1 - 0.9**2), rtol=1e-5)
    averages = [w.numpy() for w in layer.non_trainable_weights]
    expected = (x - averages[0]) / np.sqrt(averages[1] + 1e-5)
    np.testing.assert_allclose(layer(fields), expected.reshape(50, -1), rtol=1e-4, atol=1e-5)
    for kept, found in zip(averages, layer.non_trainable_weights, strict=True):
        np.testing.assert_array_equal(found, kept)


def test_the_variance_of_neurons_near_one_is_exact() -> None:
    """E[x²] - E[x]² would be off by a fifth of the output here."""
    x = np.exp(np.random.default_rng(0).normal(scale=1e-3, size=(2000, 1, 2, 8))).astype(np.float32)
    mean, variance = (f(x.astype(np.float64), (0, 3), keepdims=True) for f in (np.mean, np.var))
    found = NeuronNormalisation("normalisation")(tf.constant(x), training=True)
    np.testing.assert_allclose(found, (x - mean) / np.sqrt(variance + 1e-5), atol=1e-3)


def test_gradients_flow_through_the_batchs_statistics() -> None:
    """dx = (dy - mean of dy - x̂ · mean of dy x̂) / √(variance + ε), as in Ioffe and Szegedy 2015."""
    x, dy = np.random.default_rng(0).normal(size=(2, 9, 2, 3, 4)).astype(np.float32)
    deviation = np.sqrt(x.var((0, 3), keepdims=True) + 1e-5)
    normal = (x - x.mean((0, 3), keepdims=True)) / deviation
    expected = (dy - dy.mean((0, 3), keepdims=True) - normal * (dy * normal).mean((0, 3), keepdims=True)) / deviation
    point = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(point)
        found = NeuronNormalisation("normalisation")(point, training=True)
    np.testing.assert_allclose(tape.gradient(found, point, dy), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_every_weight_and_the_input_have_a_gradient(training: bool) -> None:
    layer, fields = arm_net(alpha=1.3), vectors(20)
    with tf.GradientTape() as tape:
        tape.watch(fields)
        loss = tf.reduce_sum(layer(fields, training=training) ** 3)
    assert len(layer.trainable_weights) == 5
    for gradient in tape.gradient(loss, [fields, *layer.trainable_weights]):
        assert np.mean(np.abs(gradient) > 1e-6) > 0.9


def test_great_vectors_do_not_overflow() -> None:
    layer = arm_net()
    fields = tf.Variable(vectors() * 1e4)
    for training in (True, False):
        with tf.GradientTape() as tape:
            out = layer(fields, training=training)
            loss = tf.reduce_sum(out**2)
        gradients = tape.gradient(loss, [fields, *layer.trainable_weights])
        assert all(np.all(np.isfinite(value)) for value in (out, *gradients))
    assert np.all(np.isfinite(weight(layer, "moving_variance")))


def test_initial_weights_are_functions_of_seed_and_name() -> None:
    def starts(layer: ARMNet) -> list[bytes]:
        return [np.sort(weight(layer, name).numpy().ravel()).tobytes() for name in ("bilinear", "query", "values")]

    first = starts(arm_net(F, D, neurons=D))
    tf.random.set_seed(99)
    assert starts(arm_net(F, D, neurons=D)) == first
    assert len({*first, *starts(arm_net(seed=1, neurons=D)), *starts(arm_net(name="other", neurons=D))}) == 9


def test_a_graph_of_unknown_batch_and_an_empty_one() -> None:
    layer, fields = arm_net(), vectors()
    for training in (False, True):
        graph = tf.function(lambda x, t=training: layer(x, training=t), input_signature=[tf.TensorSpec([None, F, D])])
        np.testing.assert_allclose(graph(fields), layer(fields, training=training), rtol=1e-4, atol=1e-5)
    assert layer(fields[:0]).shape == (0, HEADS * NEURONS * D)


def test_a_saved_model_gives_the_same_numbers(tmp_path: Path) -> None:
    layer, fields = arm_net(), vectors()
    layer(fields, training=True)
    module = tf.Module()
    module.layer = layer
    module.serve = tf.function(lambda x: layer(x), input_signature=[tf.TensorSpec([None, F, D])])
    module.gates = tf.function(layer.gates, input_signature=[tf.TensorSpec([None, F, D])])
    tf.saved_model.save(module, str(tmp_path / "model"))
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    np.testing.assert_array_equal(loaded.serve(fields), module.serve(fields))
    np.testing.assert_array_equal(loaded.gates(fields), module.gates(fields))


def test_a_checkpoint_holds_the_moving_averages(tmp_path: Path) -> None:
    layer, other, fields = arm_net(), arm_net(seed=1), vectors()
    layer(fields, training=True)
    path = tf.train.Checkpoint(layer=layer).save(str(tmp_path / "arm_net"))
    tf.train.Checkpoint(layer=other).restore(path).assert_consumed()
    np.testing.assert_array_equal(other(fields), layer(fields))


def test_mixed_precision_computes_in_float32() -> None:
    fields = tf.cast(tf.cast(vectors(), tf.bfloat16), tf.float32)
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        layer = arm_net()
        found, gates = layer(tf.cast(fields, tf.bfloat16), training=True), layer.gates(tf.cast(fields, tf.bfloat16))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert (found.dtype, gates.dtype) == (tf.bfloat16, tf.float32)
    assert {w.dtype for w in layer.weights} == {tf.float32}
    exact = tf.cast(arm_net()(fields, training=True), tf.bfloat16)
    np.testing.assert_array_equal(tf.cast(found, tf.float32), tf.cast(exact, tf.float32))
    np.testing.assert_allclose(gates, arm_net().gates(fields), atol=1e-6)


def test_two_replicas_normalise_by_the_whole_batch(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.interactions.normalised_on_replicas", str(tmp_path / "found.npz")]
    subprocess.run(command, check=True, timeout=300, cwd=Path(__file__).parents[2])
    found = np.load(tmp_path / "found.npz")
    assert set(found) == {"output", "moving_mean", "moving_variance", "gradient"}
    for name in found:
        alone, together = found[name]
        np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


def planted(count: int) -> tuple[tf.Tensor, NDArray[np.float32]]:
    """[n, 10] ids of four values a field, each worth 1 or -1; labels are the sign of fields 1, 4 and 7's product."""
    ids = np.random.default_rng(0).integers(0, 4, (count, 10))
    worth = np.where(ids % 2, 1, -1)[:, [1, 4, 7]]
    return tf.constant(ids + 4 * np.arange(10)), (worth.prod(1) > 0).astype(np.float32)


def trained(interaction: keras.layers.Layer, ids: tf.Tensor, labels: NDArray[np.float32]) -> tuple[Logits, tf.Variable]:
    """Embeddings, the interaction and a linear head after 250 steps: the logits of ids, and the table."""
    table = tf.Variable(tf.random.stateless_normal([40, 8], [1, 2]))
    head = keras.layers.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(seed=3))

    def logits(ids: tf.Tensor, training: bool = False) -> tf.Tensor:
        return head(interaction(tf.gather(table, ids), training=training))[:, 0]

    logits(ids[:1])
    weights = [table, *interaction.trainable_weights, *head.trainable_weights]
    optimizer = keras.optimizers.Adam(0.02)
    optimizer.build(weights)

    @tf.function
    def step(rows: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            found = logits(tf.gather(ids, rows), training=True)
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(tf.gather(labels, rows), found))
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))

    random = np.random.default_rng(1)
    for _ in range(250):
        step(tf.constant(random.integers(0, len(labels), 250)))
    return logits, table


def test_it_learns_a_product_of_three_fields_in_ten_that_a_linear_model_does_not() -> None:
    ids, labels = planted(3000)

    def auc(logits: Logits) -> float:
        return float(roc_auc_score(labels[2000:], logits(ids[2000:]).numpy()))

    linear, _ = trained(keras.layers.Lambda(lambda x: tf.reshape(x, [-1, 80])), ids[:2000], labels[:2000])
    assert auc(linear) < 0.56
    layer = arm_net(10, 8, heads=2, neurons=16)
    learned, table = trained(layer, ids[:2000], labels[:2000])
    assert auc(learned) > 0.97
    heeded = layer.gates(tf.gather(table, ids[2000:])).numpy().mean((0, 1, 2))
    assert heeded[[1, 4, 7]].mean() > 1.5 * np.delete(heeded, [1, 4, 7]).mean(), "the gates tell which fields they were"


def test_the_config_round_trips_and_is_strict() -> None:
    config = ARMNetConfig(kind="arm_net", neurons=8, heads=1, alpha=1.5)
    assert ARMNetConfig.model_validate(config.model_dump(mode="json")) == config
    for wrong in ({"alpha": 1.0}, {"alpha": 2.5}, {"heads": 0}, {"neurons": 0}, {"kind": "fm"}, {"layers": 2}):
        with pytest.raises(ValidationError):
            ARMNetConfig.model_validate({"kind": "arm_net", **wrong})
