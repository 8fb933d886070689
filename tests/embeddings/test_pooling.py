"""Pooling and the weights of ages, by hand."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import pytest

from recsys._compat import keras, tf
from recsys.embeddings.pooling import AgeDecay, newest, pool

How = Literal["mean", "sum", "sqrtn"]
EVERY = pytest.mark.parametrize("how", get_args(How))
VALUES = [[[1.0, 2.0], [3.0, 4.0], [5.0, 12.0]]]


@pytest.mark.parametrize(
    ("how", "weights", "expected"),
    [
        ("sum", [1, 1, 1], [9, 18]),
        ("mean", [1, 1, 1], [3, 6]),
        ("sqrtn", [1, 1, 1], [9 / 3**0.5, 18 / 3**0.5]),
        ("sum", [3, 4, 0], [15, 22]),
        ("mean", [3, 4, 0], [15 / 7, 22 / 7]),
        ("sqrtn", [3, 4, 0], [3, 4.4]),
        ("sum", [0.5, 0, 0], [0.5, 1]),
        ("mean", [0.5, 0, 0], [1, 2]),
        ("sqrtn", [0.5, 0, 0], [1, 2]),
    ],
)
def test_pooling_by_hand(how: How, weights: list[float], expected: list[float]) -> None:
    np.testing.assert_allclose(pool(tf.constant(VALUES), tf.constant([weights], tf.float32), how), [expected], 1e-6)


@EVERY
def test_padding_changes_nothing_whatever_stands_there(how: How) -> None:
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=(4, 3, 5)), rng.uniform(0.1, 1, (4, 3))
    garbage = np.concatenate([values, 1e6 * rng.normal(size=(4, 2, 5))], 1)
    padded = np.pad(weights, [(0, 0), (0, 2)])
    np.testing.assert_allclose(
        pool(tf.constant(garbage, tf.float32), tf.constant(padded, tf.float32), how),
        pool(tf.constant(values, tf.float32), tf.constant(weights, tf.float32), how),
        rtol=1e-5,
    )


@EVERY
def test_an_empty_row_gives_zeros_and_finite_gradients(how: How) -> None:
    """Gradients to the weights too: they carry the learned decay of ages."""
    values = tf.Variable(np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32))
    weights = tf.Variable([[0.0, 0.0, 0.0], [1.0, 0.5, 0.0]])
    with tf.GradientTape() as tape:
        pooled = pool(values, weights, how)
        loss = tf.reduce_sum(pooled * [[1.0], [2.0]])
    np.testing.assert_array_equal(pooled[0], np.zeros(4))
    to_values, to_weights = tape.gradient(loss, [values, weights])
    assert np.isfinite(to_values).all()
    assert np.isfinite(to_weights).all()
    np.testing.assert_array_equal(to_values[0], np.zeros((3, 4)))
    np.testing.assert_array_equal(to_values[1, 2], np.zeros(4))
    norm = {"sum": 1.0, "mean": 1.5, "sqrtn": 1.25**0.5}[how]
    np.testing.assert_allclose(to_values[1], np.tile([[2.0], [1.0], [0.0]], 4) / norm, rtol=1e-6)
    assert np.abs(to_weights[1]).min() > 0


@EVERY
def test_no_events_at_all_give_zeros(how: How) -> None:
    np.testing.assert_array_equal(pool(tf.zeros([2, 0, 3]), tf.zeros([2, 0]), how), np.zeros((2, 3)))


def test_age_decay_by_hand() -> None:
    decay = AgeDecay()
    ages = tf.constant([[0.0, 3600.0, 7 * 3600.0, -5.0]])
    # softplus(-2) = ln(1 + e^-2) = 0.126928; 2^-0.126928 = 0.915779; 8^-0.126928 = 0.768020
    np.testing.assert_allclose(decay(ages), [[1.0, 0.915779, 0.768020, 1.0]], rtol=1e-5)
    decay.raw_decay.assign(np.log(np.e - 1))
    np.testing.assert_allclose(decay(ages), [[1.0, 1 / 2, 1 / 8, 1.0]], rtol=1e-6)


def test_the_decay_is_learned_and_never_negative() -> None:
    decay = AgeDecay()
    ages = tf.constant([[3600.0, 36_000.0]])
    optimizer = keras.optimizers.SGD(10.0)
    seen = []
    for _ in range(20):
        with tf.GradientTape() as tape:
            loss = -tf.reduce_sum(decay(ages))  # asks for weights above 1, which only a negative decay could give
        optimizer.apply_gradients([(tape.gradient(loss, decay.raw_decay), decay.raw_decay)])
        seen.append(decay(ages).numpy())
    assert (np.diff(np.stack(seen), axis=0) > 0).all()
    assert (np.stack(seen) <= 1).all()


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (1, [[3], [1], [0], [3]]),
        (2, [[2, 3], [0, 1], [0, 1], [2, 3]]),
        (3, [[1, 2, 3], [0, 1, 2], [0, 1, 2], [1, 2, 3]]),
        (4, [[0, 1, 2, 3]] * 4),
        (9, [[0, 1, 2, 3]] * 4),
    ],
)
def test_the_newest_values_stand_before_the_padding(length: int, expected: list[list[int]]) -> None:
    """Oldest first. An item without the value leaves a 0 among the others: it is an event, not the end."""
    ids = tf.constant([[5, 6, 7, 8], [5, 6, 0, 0], [0, 0, 0, 0], [5, 0, 0, 8]])
    assert newest(ids, length).numpy().tolist() == expected
    assert newest(tf.cast(ids, tf.int64), length).numpy().tolist() == expected
    assert newest(ids[:0], length).shape == (0, min(length, 4))
