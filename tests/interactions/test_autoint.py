"""AutoInt: the paper's equations and the authors' code, by hand; what must hold of any weights; what it must learn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score

from recsys._compat import keras, tf
from recsys.interactions.autoint import AutoInt
from recsys.interactions.config import AutoIntConfig

VARIANTS = ["paper", "reference"]
FIELDS = np.array([[[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]], [[-1.0, 0.5], [0.0, 0.0], [2.0, -1.0]]], np.float32)


def step(number: int = 0) -> tf.Variable:
    return tf.Variable(number, dtype=tf.int64, trainable=False)


def autoint(width: int = 2, fields: int = 3, seed: int = 0, name: str = "autoint", **config: Any) -> AutoInt:
    layer = AutoInt(AutoIntConfig(kind="autoint", **config), seed, step(), name)
    layer(tf.zeros([1, fields, width]))
    return layer


def random(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def fill(layer: AutoInt, values: Mapping[str, Any]) -> None:
    """Sets the weights of a single layer by name."""
    weights = {weight.name.split("/")[-1].split(":")[0]: weight for weight in layer.trainable_variables}
    assert weights.keys() == values.keys()
    for name, value in values.items():
        weights[name].assign(np.array(value, np.float32))


def randomised(layer: AutoInt, seed: int = 0) -> AutoInt:
    """Biases and gains, too, which start where they do nothing."""
    for number, weight in enumerate(layer.trainable_variables):
        weight.assign(weight + 0.5 * random(*weight.shape, seed=seed + number))
    return layer


def trained(layer: AutoInt) -> list[NDArray[np.float32]]:
    """The weights, without the step."""
    return [weight.numpy() for weight in layer.trainable_variables]


def test_the_papers_layer_by_hand() -> None:
    """Head 1 of e_1 = [1, 0], with q = k = v = e and no residual: ψ = [1, 0, 1], so α = [e, 1, e] / (2e + 1), and
    ẽ = α_1 [1, 0] + α_2 [0, 2] + α_3 [1, 1]. Uniform attention would give [2/3, 1]; a scale of √2 another α; a sum over
    queries in place of keys another ẽ.
    """
    layer = autoint(layers=1, heads=1, head_dim=2, residual=False)
    fill(layer, {name: np.eye(2) for name in ("query", "key", "value")})
    found = layer(FIELDS).numpy().reshape(2, 3, 2)
    e = np.e
    np.testing.assert_allclose(found[0, 0], [2 * e / (2 * e + 1), (2 + e) / (2 * e + 1)], rtol=1e-6)
    # e_2 = [0, 2]: ψ = [0, 4, 2].
    total = 1 + e**4 + e**2
    np.testing.assert_allclose(found[0, 1], [(1 + e**2) / total, (2 * e**4 + e**2) / total], rtol=1e-6)
    np.testing.assert_allclose(
        layer.attention_maps(FIELDS)[0, 0, 0],
        np.exp(FIELDS[0] @ FIELDS[0].T) / [[2 * e + 1], [total], [e + 2 * e**2]],
        rtol=1e-6,
    )


def test_embedding_dropout_hides_numbers_of_the_first_layer_alone() -> None:
    """Training is inference on fields with half their numbers gone and the others doubled."""
    layer = autoint(layers=2, embedding_dropout=0.5)
    fields = 1.0 + np.abs(random(300, 3, 2))
    seen = layer._dropout(fields, training=True).numpy()
    assert np.mean(seen == 0.0) == pytest.approx(0.5, abs=0.05)
    np.testing.assert_allclose(seen[seen != 0.0], 2.0 * fields[seen != 0.0], rtol=1e-6)
    np.testing.assert_allclose(layer(fields, training=True), layer(seen), rtol=1e-5)
    np.testing.assert_array_equal(layer(fields), autoint(layers=2)(fields))


def test_query_key_value_and_residual_are_not_exchanged() -> None:
    """W_Query = [[1, 0], [0, 0]] keeps the first number, W_Key = [[0, 0], [1, 0]] puts the second in its place:
    ψ(m, k) = e_m1 e_k2. For e_1 = [1, 0] that is [0, 2, 1]; values are doubled; the residual takes ten from the second
    number, and the activation comes after the sum.
    """
    layer = autoint(layers=1, heads=1, head_dim=2)
    fill(
        layer,
        {
            "query": [[1, 0], [0, 0]],
            "key": [[0, 0], [1, 0]],
            "value": 2 * np.eye(2),
            "residual": [[0, -10], [0.25, 0]],
        },
    )
    found = layer(FIELDS).numpy().reshape(2, 3, 2)
    alpha = np.array([1, np.e**2, np.e]) / (1 + np.e**2 + np.e)
    mixed = 2 * alpha @ FIELDS[0]
    assert mixed[1] < 10
    np.testing.assert_allclose(found[0, 0], [mixed[0], 0.0], rtol=1e-6)
    # e_2 = [0, 2] has nothing to ask with: uniform attention, 2 [2/3, 1], and the residual adds 2 / 4.
    np.testing.assert_allclose(found[0, 1], [4 / 3 + 0.5, 2.0], rtol=1e-6)


def expected(
    config: AutoIntConfig, weights: list[NDArray[np.float32]], x: NDArray[np.float32]
) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """Loops over examples, heads and fields, as the equations stand; also the attention [H, M, M] of each layer."""
    queue = [weight.astype(np.float64) for weight in weights]
    reference, maps = config.variant == "reference", []
    found = x.astype(np.float64)
    for _ in range(config.layers):
        names = ["query", "key", "value", *(["residual"] if config.residual else [])]
        kernels = {name: queue.pop(0) for name in names}
        biases = {name: queue.pop(0) for name in names} if reference else {}
        gain, shift = (queue.pop(0), queue.pop(0)) if reference else (1.0, 0.0)
        after = np.zeros((len(x), x.shape[1], config.field_width))
        alphas = np.zeros((len(x), config.heads, x.shape[1], x.shape[1]))
        for b, fields in enumerate(found):
            maps_to = {
                name: np.maximum(fields @ kernel + biases[name], 0) if reference else fields @ kernel
                for name, kernel in kernels.items()
            }
            for head in range(config.heads):
                cut = slice(head * config.head_dim, (head + 1) * config.head_dim)
                for m in range(len(fields)):
                    scores = np.array([maps_to["query"][m, cut] @ maps_to["key"][k, cut] for k in range(len(fields))])
                    scores = scores / np.sqrt(config.head_dim) if reference else scores
                    alphas[b, head, m] = np.exp(scores) / np.exp(scores).sum()
                    after[b, m, cut] = alphas[b, head, m] @ maps_to["value"][:, cut]
            after[b] = np.maximum(after[b] + maps_to.get("residual", 0.0), 0)
        if reference:
            mean, variance = after.mean(-1, keepdims=True), after.var(-1, keepdims=True)
            after = gain * (after - mean) / np.sqrt(variance + 1e-8) + shift
        maps.append(alphas)
        found = after
    assert not queue
    return found.reshape(len(x), -1), maps


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("width", [3, 4, 5])
def test_layers_and_heads_as_the_equations_stand(variant: str, residual: bool, width: int) -> None:
    """Fields narrower than a head, as wide, and wider: products come in another order."""
    config = {"layers": 2, "heads": 3, "head_dim": 4, "residual": residual, "variant": variant}
    layer, x = randomised(autoint(width, 4, **config)), random(6, 4, width)
    output, maps = expected(AutoIntConfig(kind="autoint", **config), trained(layer), x)
    assert output.shape == (6, 4 * 12)
    np.testing.assert_allclose(layer(x), output, rtol=1e-3, atol=1e-4)
    found = layer.attention_maps(x)
    assert (found.shape, found.dtype) == ((6, 2, 3, 4, 4), tf.float32)
    np.testing.assert_allclose(found, np.stack(maps, 1), rtol=1e-3, atol=1e-5)


def test_the_variants_differ() -> None:
    x = random(8, 3, 2)
    one, other = (randomised(autoint(layers=2, variant=variant)) for variant in VARIANTS)
    assert not np.allclose(one.attention_maps(x), other.attention_maps(x), atol=1e-2)


@pytest.mark.parametrize(("variant", "count"), [("paper", 39_361), ("reference", 40_513)])
def test_parameters_are_those_of_the_published_model(variant: str, count: int) -> None:
    """39 fields, d = 16, 3 layers, 2 heads of 32, and the logit (spec: the paper's table 3 says 3.9e4)."""
    layer, logit = AutoInt(AutoIntConfig(kind="autoint", variant=variant), 0, step()), keras.layers.Dense(1)
    logit(layer(tf.zeros([1, 39, 16])))
    assert sum(int(np.prod(weight.shape)) for weight in layer.trainable_variables + logit.trainable_variables) == count


def test_w_res_stands_in_every_layer_also_between_equal_widths() -> None:
    def shapes(**config: Any) -> list[tuple[int, ...]]:
        return [tuple(w.shape) for w in autoint(4, layers=2, heads=2, head_dim=2, **config).trainable_variables]

    assert shapes() == [(4, 4)] * 8
    assert shapes(residual=False) == [(4, 4)] * 6
    assert shapes(variant="reference") == ([(4, 4)] * 4 + [(4,)] * 6) * 2


@pytest.mark.parametrize("variant", VARIANTS)
def test_permuted_fields_give_permuted_vectors_and_maps(variant: str) -> None:
    layer, x = randomised(autoint(5, 6, layers=3, variant=variant)), random(4, 6, 5)
    order = np.array([3, 0, 5, 1, 4, 2])
    straight, permuted = (layer(fields).numpy().reshape(4, 6, 64) for fields in (x, x[:, order]))
    np.testing.assert_allclose(permuted, straight[:, order], rtol=1e-4, atol=1e-4)
    assert not np.allclose(permuted, straight, atol=0.1)
    maps, permuted_maps = layer.attention_maps(x).numpy(), layer.attention_maps(x[:, order]).numpy()
    np.testing.assert_allclose(permuted_maps, maps[:, :, :, order][..., order], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_attention_sums_to_one_over_keys(variant: str) -> None:
    maps = randomised(autoint(5, 6, layers=2, variant=variant)).attention_maps(random(4, 6, 5)).numpy()
    np.testing.assert_allclose(maps.sum(-1), 1.0, rtol=1e-5)
    assert maps.min() >= 0
    assert np.abs(maps.sum(-2) - 1).max() > 0.1


def test_one_field_attends_to_itself_alone() -> None:
    """ReLU(e W_Value + e W_Res), whatever asks and answers."""
    layer, x = randomised(autoint(5, 1, layers=1)), random(7, 1, 5)
    _, _, value, residual = trained(layer)
    assert (x @ value < 0).any()
    np.testing.assert_allclose(layer(x), np.maximum(x @ value + x @ residual, 0)[:, 0], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(layer.attention_maps(x), np.ones((7, 1, 2, 1, 1)))


def test_examples_do_not_see_each_other() -> None:
    layer, x = randomised(autoint(5, 4, layers=2)), random(6, 4, 5)
    changed = x.copy()
    changed[2:] += 1
    np.testing.assert_allclose(layer(changed)[:2], layer(x)[:2], rtol=1e-5)
    assert not np.allclose(layer(changed)[2:], layer(x)[2:], rtol=0.1)


def test_without_residual_it_is_another_function_of_the_same_attention() -> None:
    layer, x = randomised(autoint(5, 4, layers=1)), random(6, 4, 5)
    without = autoint(5, 4, layers=1, residual=False)
    for weight, value in zip(without.trainable_variables, trained(layer), strict=False):
        weight.assign(value)
    np.testing.assert_array_equal(without.attention_maps(x), layer.attention_maps(x))
    assert np.abs(without(x).numpy() - layer(x).numpy()).max() > 0.5


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_weight_and_the_input_have_a_gradient(variant: str) -> None:
    layer, x = randomised(autoint(5, 4, layers=2, heads=2, head_dim=3, variant=variant)), tf.constant(random(20, 4, 5))
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(layer(x, training=True) ** 3)
    gradients = tape.gradient(loss, [x, *layer.trainable_variables])
    assert len(gradients) == 1 + 2 * {"paper": 4, "reference": 10}[variant]
    for gradient, weight in zip(gradients, [x, *layer.trainable_variables], strict=True):
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 1e-3, getattr(weight, "name", "input")


@pytest.mark.parametrize("variant", VARIANTS)
def test_zero_fields_are_finite_with_finite_gradients(variant: str) -> None:
    """All features missing; ReLU that is dead for a whole field makes the normalised variance 0."""
    layer, x = autoint(5, 4, layers=2, variant=variant), tf.zeros([3, 4, 5])
    with tf.GradientTape() as tape:
        tape.watch(x)
        found = layer(x)
    assert np.isfinite(found).all()
    for gradient in tape.gradient(found, [x, *layer.trainable_variables]):
        assert np.isfinite(gradient).all()


def test_dropout_is_of_the_attention_and_of_each_head_its_own() -> None:
    """With values of 1 and no residual, an output is Σ_k α_k keep_k / (1 - rate): its mean stays 1, heads differ,
    and no dropout reaches inference or the maps.
    """
    config = AutoIntConfig(kind="autoint", layers=1, heads=2, head_dim=2, residual=False, dropout=0.4)
    count = step(5)
    layer = AutoInt(config, 0, count)
    x = np.ones((3000, 10, 1), np.float32)
    layer(x)
    fill(layer, {"query": np.zeros((1, 4)), "key": np.zeros((1, 4)), "value": np.ones((1, 4))})
    first = layer(x, training=True).numpy().reshape(3000, 10, 2, 2)
    np.testing.assert_array_equal(first[..., 0], first[..., 1], "what is dropped is the whole weight")
    kept = first[..., 0] * 10 * 0.6
    np.testing.assert_allclose(kept, kept.round(), atol=1e-4)
    assert abs(first.mean() - 1) < 0.01
    assert abs(np.corrcoef(kept[..., 0].ravel(), kept[..., 1].ravel())[0, 1]) < 0.03
    np.testing.assert_array_equal(layer(x, training=True), first.reshape(3000, 40))
    np.testing.assert_allclose(layer(x), 1.0, rtol=1e-6)
    np.testing.assert_allclose(layer.attention_maps(x), 0.1, rtol=1e-6)
    count.assign_add(1)
    assert not np.array_equal(layer(x, training=True), first.reshape(3000, 40))


def test_initial_weights_are_functions_of_seed_and_name() -> None:
    first = trained(autoint(8, layers=2))
    tf.random.set_seed(99)
    for one, other in zip(first, trained(autoint(8, layers=2)), strict=True):
        np.testing.assert_array_equal(one, other)
    others = [*first, *trained(autoint(8, seed=1, layers=2)), *trained(autoint(8, name="x", layers=2))]
    assert len({np.sort(kernel.ravel())[:5].tobytes() for kernel in others}) == 24
    for kernel in others:
        limit = np.sqrt(6 / sum(kernel.shape))
        assert 0.9 * limit < np.abs(kernel).max() <= limit, "Glorot's bounds, of the paper's matrices"


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_computes_in_half_and_keeps_weights_whole(variant: str, policy: str) -> None:
    x, layer = random(6, 4, 5), autoint(5, 4, layers=2, variant=variant)
    keras.mixed_precision.set_global_policy(policy)
    try:
        half = autoint(5, 4, layers=2, variant=variant, dropout=0.1)
        found, maps = half(x), half.attention_maps(x)
        assert np.isfinite(tf.cast(half(tf.zeros([2, 4, 5]), training=True), tf.float32)).all()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert found.dtype == tf.as_dtype(policy.removeprefix("mixed_"))
    assert {w.dtype for w in half.trainable_variables} == {tf.float32}
    np.testing.assert_allclose(tf.cast(found, tf.float32), layer(x), rtol=0.05, atol=0.08)
    assert maps.dtype == tf.float32
    np.testing.assert_allclose(tf.reduce_sum(maps, -1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_saved_model_gives_the_same_numbers(variant: str, tmp_path: Path) -> None:
    layer, x = randomised(autoint(5, 4, layers=2, variant=variant)), random(6, 4, 5)
    module = tf.Module()
    module.layer = layer
    module.serve = tf.function(
        lambda fields: {"out": layer(fields), "maps": layer.attention_maps(fields)},
        input_signature=[tf.TensorSpec([None, 4, 5])],
    )
    tf.saved_model.save(module, str(tmp_path / "saved"))
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    found = loaded.serve(x)
    np.testing.assert_allclose(found["out"], layer(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["maps"], layer.attention_maps(x), rtol=1e-5, atol=1e-6)
    assert module.serve(np.zeros((0, 4, 5), np.float32))["out"].shape == (0, 4 * 64)
    path = tf.train.Checkpoint(layer=layer).save(f"{tmp_path}/weights")
    other = autoint(5, 4, seed=1, layers=2, variant=variant)
    assert not np.allclose(other(x), layer(x), atol=1e-2)
    tf.train.Checkpoint(layer=other).restore(path).assert_consumed()
    np.testing.assert_array_equal(other(x), layer(x))


def planted(rows: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Ids [rows, 6] of fields with 10 values each, and the exclusive or of a bit of the second and of the fifth field,
    2% of them flipped. No field alone tells anything.
    """
    ids = rng.integers(0, 10, (rows, 6))
    bits = np.random.default_rng(7).permuted(np.tile(np.arange(10) % 2, (2, 1)), axis=1)
    label = bits[0][ids[:, 1]] ^ bits[1][ids[:, 4]] ^ (rng.random(rows) < 0.02)
    return ids, label.astype(np.float32)


def auc_on_planted(layers: list[keras.layers.Layer]) -> float:
    """Of embeddings, these layers and a logit after five epochs: spec/corrections, section b."""
    rng = np.random.default_rng(0)
    (ids, label), (test_ids, test_label) = planted(20_000, rng), planted(10_000, rng)
    keras.utils.set_random_seed(0)
    start = keras.initializers.RandomNormal(stddev=0.01)
    embeddings = keras.layers.Embedding(60, 16, embeddings_initializer=start)
    model = keras.Sequential([keras.Input((6,)), embeddings, *layers, keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile(
        keras.optimizers.Adam(1e-3), keras.losses.BinaryCrossentropy(from_logits=True), steps_per_execution=79
    )
    offsets = 10 * np.arange(6)
    model.fit(ids + offsets, label, batch_size=256, epochs=5, verbose=0)
    return roc_auc_score(test_label, model.predict(test_ids + offsets, batch_size=5000, verbose=0)[:, 0])


def test_the_planted_interaction_is_out_of_reach_without_a_layer() -> None:
    assert auc_on_planted([]) <= 0.53


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_layer_learns_the_planted_interaction(variant: str) -> None:
    assert auc_on_planted([AutoInt(AutoIntConfig(kind="autoint", layers=1, variant=variant), 0, step())]) >= 0.97


def test_the_config_round_trips_and_is_strict() -> None:
    config = AutoIntConfig(kind="autoint", layers=2, heads=4, head_dim=8, residual=False, variant="reference")
    assert AutoIntConfig.model_validate(config.model_dump(mode="json")) == config
    assert config.field_width == 32
    default = AutoIntConfig(kind="autoint")
    assert (default.layers, default.heads, default.head_dim, default.residual) == (3, 2, 32, True)
    assert (default.dropout, default.variant) == (0.0, "paper")
    for wrong in ({"layers": 0}, {"heads": 0}, {"dropout": 1.0}, {"variant": "code"}, {"width": 64}):
        with pytest.raises(ValidationError):
            AutoIntConfig.model_validate({"kind": "autoint", **wrong})
