"""The factorization machine's term, against the sum over pairs."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys._compat import keras, tf
from recsys.interactions.config import FMConfig
from recsys.interactions.fm import FM


def fm() -> FM:
    return FM(FMConfig(kind="fm"), 0, tf.Variable(0, dtype=tf.int64))


def pairs(fields: np.ndarray) -> np.ndarray:
    return np.array([[sum(a @ b for a, b in combinations(vectors, 2))] for vectors in fields.astype(np.float64)])


def test_by_hand() -> None:
    """<[1, 2], [3, -1]> + <[1, 2], [0, 4]> + <[3, -1], [0, 4]> = 1 + 8 - 4."""
    found = fm()(tf.constant([[[1.0, 2.0], [3.0, -1.0], [0.0, 4.0]], [[0.0, 0.0], [1.0, 5.0], [0.0, 0.0]]]))
    np.testing.assert_array_equal(found, [[5.0], [0.0]])


@given(st.integers(0, 5), st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
def test_it_is_the_sum_over_all_pairs(batch: int, fields: int, width: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(batch, fields, width)).astype(np.float32)
    found = fm()(x)
    assert found.shape == (batch, 1)
    np.testing.assert_allclose(found, pairs(x).reshape(batch, 1), rtol=1e-4, atol=1e-5)


def test_the_gradient_of_a_vector_is_the_sum_of_the_others() -> None:
    x = tf.random.stateless_normal([4, 5, 3], [0, 1])
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(fm()(x))
    others = tf.reduce_sum(x, 1, keepdims=True) - x
    np.testing.assert_allclose(tape.gradient(loss, x), others, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_neither_cancels_nor_overflows(policy: str) -> None:
    """16 · 1/128 is lost beside 16² in half types; 300² is more than float16 holds, though the pairs' sum is 0."""
    half = tf.as_dtype(policy.removeprefix("mixed_"))
    keras.mixed_precision.set_global_policy(policy)
    try:
        small = fm()(tf.constant([[[16.0], [1 / 128]]], half))
        large = fm()(tf.constant([[[300.0, 300.0], [-300.0, 300.0]]], half))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert small.dtype == half
    assert (float(small[0, 0]), float(large[0, 0])) == (0.125, 0.0)


def test_a_saved_model_gives_the_same_numbers(tmp_path: Path) -> None:
    layer, x = fm(), tf.random.stateless_normal([6, 4, 5], [0, 2])
    assert not layer.variables
    module = tf.Module()
    module.serve = tf.function(layer.__call__, input_signature=[tf.TensorSpec([None, 4, 5])])
    tf.saved_model.save(module, str(tmp_path))
    np.testing.assert_allclose(tf.saved_model.load(str(tmp_path)).serve(x), layer(x), rtol=1e-6)
