"""Encoders of histories: what all of them keep to, and each by the equations in plain numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import TypeAdapter

from recsys._compat import keras, tf
from recsys.embeddings.seeds import seed_for
from recsys.interactions.build import make_encoder
from recsys.interactions.config import EncoderConfig

B, T, D = 5, 6, 4
RANDOM = np.random.default_rng(3)
HISTORY = RANDOM.normal(size=(B, T, D)).astype(np.float32)
LENGTHS = np.array([6, 0, 1, 3, 5])
MASK = np.arange(T) < LENGTHS[:, None]
EVERY = [
    {"kind": "attention_pooling", "hidden": 3},
    {"kind": "gru", "units": 5},
    {"kind": "gru", "layers": 2},
    {"kind": "transformer", "heads": 2, "hidden": 7},
    {"kind": "transformer", "norm": "post", "layers": 1, "dim": 6, "heads": 3, "activation": "gelu"},
]
every_encoder = pytest.mark.parametrize("config", EVERY, ids=lambda config: "-".join(map(str, config.values())))


def encoder(config: dict[str, Any], seed: int = 0, width: int = D, step: int = 3) -> keras.layers.Layer:
    """Built, with every weight away from where it starts: zeros would hide what reads them."""
    parsed = TypeAdapter(EncoderConfig).validate_python(config)
    layer = make_encoder(parsed, T, seed, tf.Variable(step, dtype=tf.int64, trainable=False), "encoder")
    layer(tf.zeros([1, T, width]), tf.ones([1, T], tf.bool))
    for weight in layer.trainable_variables:
        noise = np.random.default_rng(seed_for(seed, weight.name)).normal(size=weight.shape)
        weight.assign_add(0.3 * noise)
    return layer


def states(layer: keras.layers.Layer, history: NDArray = HISTORY, mask: NDArray = MASK, **options: Any) -> NDArray:
    return layer(tf.constant(history), tf.constant(mask), **options).numpy()


@every_encoder
def test_no_state_knows_what_comes_after_it(config: dict[str, Any]) -> None:
    """Nor padding; and each event is known from its place on."""
    layer = encoder(config)
    before = states(layer)
    for t in range(T):
        changed = HISTORY.copy()
        changed[0, t, 0] += 1.0  # of all alike, layer normalisation would see nothing
        difference = np.abs(states(layer, changed) - before)[0].max(1)
        assert difference[:t].max(initial=0.0) == 0.0
        assert (difference[t:] > 1e-6).all()
    changed = np.where(MASK[..., None], HISTORY, 7.0).astype(np.float32)
    np.testing.assert_array_equal(states(layer, changed)[MASK], before[MASK])
    assert np.isfinite(before).all()


@every_encoder
def test_a_missing_event_is_not_read(config: dict[str, Any]) -> None:
    layer, mask = encoder(config), MASK.copy()
    mask[0, 2] = False
    changed = HISTORY.copy()
    changed[0, 2] = 9.0
    np.testing.assert_array_equal(states(layer, changed, mask)[0, 3:], states(layer, HISTORY, mask)[0, 3:])
    assert np.abs(states(layer, HISTORY, mask)[0, 3:] - states(layer)[0, 3:]).max() > 1e-3


@every_encoder
def test_the_width_is_what_the_config_says(config: dict[str, Any]) -> None:
    parsed = TypeAdapter(EncoderConfig).validate_python(config)
    assert states(encoder(config)).shape == (B, T, parsed.width(D))


@every_encoder
def test_every_weight_learns_and_starts_as_the_seed_says(config: dict[str, Any]) -> None:
    layer = encoder(config)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(HISTORY, MASK) ** 3)
    for weight, gradient in zip(layer.trainable_variables, tape.gradient(loss, layer.trainable_variables), strict=True):
        assert float(tf.norm(tf.convert_to_tensor(gradient))) > 1e-6, weight.name
    tf.random.set_seed(np.random.default_rng().integers(1 << 30))
    np.testing.assert_array_equal(states(encoder(config)), states(encoder(config)))
    assert np.abs(states(encoder(config, seed=1)) - states(encoder(config))).max() > 1e-2


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@every_encoder
def test_mixed_precision_stays_close(config: dict[str, Any], policy: str) -> None:
    expected = states(encoder(config))
    keras.mixed_precision.set_global_policy(policy)
    try:
        found = encoder(config)(tf.constant(HISTORY), tf.constant(MASK))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert found.dtype == policy.removeprefix("mixed_")
    apart = np.abs(tf.cast(found, tf.float32)[MASK] - expected[MASK])
    # Layer normalization magnifies what coarse rounding does to a state that hardly varies.
    assert np.mean(apart < 0.15) >= (0.9 if policy == "mixed_bfloat16" else 1.0)


@pytest.mark.parametrize("config", [EVERY[2] | {"dropout": 0.5}, EVERY[3] | {"dropout": 0.5}])
def test_dropout_goes_by_the_step_and_only_in_training(config: dict[str, Any]) -> None:
    layer = encoder(config)
    dropped = states(layer, training=True)
    np.testing.assert_array_equal(states(encoder(config), training=True), dropped)
    np.testing.assert_array_equal(states(layer), states(encoder(config | {"dropout": 0.0})))
    for other in (states(layer), states(encoder(config, step=4), training=True)):
        assert np.abs(other - dropped)[MASK].max() > 1e-2


def softmax(x: NDArray) -> NDArray:
    e = np.exp(x - x.max())
    return e / e.sum()


def test_attention_pooling_by_the_equation() -> None:
    layer = encoder({"kind": "attention_pooling", "hidden": 3})
    weights = {weight.name.split("/")[-2] + weight.name.split("/")[-1]: weight.numpy() for weight in layer.weights}
    w, b, u = weights["hiddenkernel:0"], weights["hiddenbias:0"], weights["scorekernel:0"][:, 0]
    found = states(layer)
    for row, length in enumerate(LENGTHS):
        for t in range(length):
            e = HISTORY[row, : t + 1].astype(float)
            score = np.tanh(e @ w + b) @ u + layer.recency.numpy()[t - np.arange(t + 1)]
            np.testing.assert_allclose(found[row, t], softmax(score) @ e, rtol=1e-4, atol=1e-5)


def layer_norm(x: NDArray, gamma: NDArray, beta: NDArray) -> NDArray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-8) * gamma + beta


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_transformer_by_the_equations(norm: str) -> None:
    """Row by row, head by head, event by event, in float64, without padding: places go by the newest event."""
    heads, length = 2, 5
    layer = encoder({"kind": "transformer", "heads": heads, "norm": norm, "layers": 2, "hidden": 3})
    row = int(np.flatnonzero(length == LENGTHS)[0])
    x = HISTORY[row, :length].astype(float) * np.sqrt(D) + layer.places.numpy()[:length][::-1]
    for block in layer._blocks:
        norms = [[w.numpy().astype(float) for w in (each.gamma, each.beta)] for each in block._norms]
        linear = [
            (each.kernel.numpy().astype(float), 0.0 if each.bias is None else each.bias.numpy())
            for each in (*block._qkv, block._output)
        ]

        def attend(y: NDArray, linear: Any = linear) -> NDArray:
            q, k, v = (y @ kernel + bias for kernel, bias in linear[:3])
            out, width = np.zeros_like(y), D // heads
            for t in range(length):
                for h in range(heads):
                    part = slice(h * width, (h + 1) * width)
                    out[t, part] = softmax(k[: t + 1, part] @ q[t, part] / np.sqrt(width)) @ v[: t + 1, part]
            return out @ linear[3][0] + linear[3][1]

        def feed(y: NDArray, block: Any = block) -> NDArray:
            up = np.maximum(y @ block._up.kernel.numpy() + block._up.bias.numpy(), 0)
            return up @ block._down.kernel.numpy() + block._down.bias.numpy()

        for sublayer, (gamma, beta) in zip((attend, feed), norms, strict=True):
            x = x + sublayer(layer_norm(x, gamma, beta)) if norm == "pre" else layer_norm(x + sublayer(x), gamma, beta)
    if norm == "pre":
        x = layer_norm(x, layer._last.gamma.numpy(), layer._last.beta.numpy())
    np.testing.assert_allclose(states(layer)[row, :length], x, rtol=1e-3, atol=1e-4)


def test_the_newest_event_has_one_place_whatever_the_padding() -> None:
    layer = encoder({"kind": "transformer"})
    short = layer(tf.constant(HISTORY[3:4, :3]), tf.ones([1, 3], tf.bool)).numpy()
    np.testing.assert_allclose(states(layer)[3, :3], short[0], rtol=1e-5, atol=1e-6)
    other = layer(tf.constant(HISTORY[3:4, 1:3]), tf.ones([1, 2], tf.bool)).numpy()
    assert np.abs(other[0, 1] - short[0, 2]).max() > 1e-3  # an event less is heard


def test_an_order_that_counts() -> None:
    """GRU and transformer tell an order; attention pooling learns by distance how much."""
    for config in EVERY:
        layer = encoder(config)
        assert np.abs(states(layer, HISTORY[:1, ::-1].copy(), MASK[:1]) - states(layer)[:1])[0, -1].max() > 1e-3
    layer.places.assign(tf.zeros_like(layer.places))
    pooled = encoder(EVERY[0])
    pooled.recency.assign(tf.zeros_like(pooled.recency))
    reversed_states = states(pooled, HISTORY[:1, ::-1].copy(), MASK[:1])
    np.testing.assert_allclose(reversed_states[0, -1], states(pooled)[0, -1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("heads", "width"), [(3, 8), (5, 4)])
def test_heads_that_do_not_divide_the_width(heads: int, width: int) -> None:
    config = TypeAdapter(EncoderConfig).validate_python({"kind": "transformer", "heads": heads})
    assert config.problems(width) == [("heads", f"{heads} does not divide the width {width}; choose a divisor")]
    assert not config.problems(heads * 2)
