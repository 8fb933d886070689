"""Rows of 8 bits, byte by byte, and rounding at random."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.embeddings.packing import codes, pack, pack_served, random_round, scales, unpack, unpack_served

Array = NDArray[np.float32]


def normal(*shape: int, scale: float = 1.0) -> Array:
    return (scale * np.random.default_rng(0).normal(size=shape)).astype(np.float32)


def test_a_packed_row_by_hand() -> None:
    # Scale 0.5: 63.5 is code 127, -1 is code -2, 0.24 is 0.48 steps, nearest 0.
    packed = pack(tf.constant([[63.5, -1.0, 0.24]]), tf.constant([[0.5]])).numpy()
    assert packed.dtype == np.int8
    assert packed.tolist() == [[127, -2, 0, *np.array([0.5], "<f4").view(np.int8)]]
    found, scale = unpack(packed)
    assert (found.numpy().tolist(), scale.numpy().tolist()) == ([[127.0, -2.0, 0.0]], [[0.5]])


def test_a_served_row_by_hand() -> None:
    # 127 / 4096 and half a step of it: code 127, and 63.5, which rounds to the even 64.
    packed = pack_served(tf.constant([[127 / 4096, -63.5 / 4096, 0.0]])).numpy()
    assert packed.tolist() == [[127, -64, 0, *np.array([1 / 4096], "<f2").view(np.int8)]]
    found, scale = unpack_served(packed)
    assert (found.numpy().tolist(), scale.numpy().tolist()) == ([[127.0, -64.0, 0.0]], [[1 / 4096]])


def test_quantised_rows_are_half_a_step_away_at_most_and_use_all_codes() -> None:
    rows = normal(200, 16) * np.logspace(-6, 6, 200, dtype=np.float32)[:, None]
    found, scale = (part.numpy() for part in unpack(pack(rows, scales(rows))))
    np.testing.assert_allclose(scale, np.abs(rows).max(1, keepdims=True) / 127, rtol=1e-6)
    assert np.all(np.abs(found * scale - rows) <= 0.5001 * scale)
    assert np.all(np.abs(found).max(1) == 127)


def test_rows_of_zeros_stay_zero_in_both_forms() -> None:
    rows = np.zeros([3, 4], np.float32)
    for found, scale in (unpack(pack(rows, scales(rows))), unpack_served(pack_served(tf.constant(rows)))):
        np.testing.assert_array_equal(found * scale, rows)
        assert np.all(np.isfinite(scale))
        assert np.all(scale.numpy() > 0)


@pytest.mark.parametrize("size", [1e-40, 1e-10, 3e-8, 1e-6, 1e-4, 0.008, 1.0, 1e4, 8e6])
def test_served_scales_never_under_or_overflow(size: float) -> None:
    rows = normal(50, 8)
    rows *= np.float32(size) / np.abs(rows).max(1, keepdims=True)
    packed = pack_served(tf.constant(rows)).numpy()
    assert packed[:, :-2].min() > -128
    found, scale = (part.numpy() for part in unpack_served(packed))
    smallest = 2.0**-24
    assert np.all(np.isfinite(scale) & (scale >= smallest))
    assert np.all(np.abs(found * scale - rows) <= 0.5001 * scale)
    # Rounded up, so that nothing saturates, and by no more than the next float16.
    exact = np.maximum(np.abs(rows).max(1, keepdims=True) / 127, smallest)
    assert np.all(scale >= exact * (1 - 1e-6))
    assert np.all(scale <= exact * (1 + 2.0**-10) + smallest)


@pytest.mark.parametrize("value", [9e6, np.inf, np.nan])
def test_rows_that_no_float16_scale_holds_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="too large"):
        pack_served(tf.constant([[0.0, 1.0], [value, 1.0]]))


def test_codes_saturate_and_never_reach_minus_128() -> None:
    found = codes(tf.constant([[1e9, -1e9, 127.4, -127.6]]), tf.constant([[1.0]]))
    assert found.numpy().tolist() == [[127, -127, 127, -127]]


@pytest.mark.parametrize("value", [0.25, -0.25, 3.9, -100.1, 0.001])
def test_random_codes_are_unbiased_neighbours(value: float) -> None:
    n = 40_000
    noise = tf.random.stateless_uniform([n, 1], [1, 2])
    found = codes(tf.fill([n, 1], value), tf.ones([n, 1]), noise).numpy().astype(float)
    assert set(np.unique(found)) <= {np.floor(value), np.ceil(value)}
    # Five standard errors; rounding to the nearest is off by up to half a step.
    assert abs(found.mean() - value) < 5 * 0.5 / np.sqrt(n)


def test_random_codes_leave_whole_numbers_alone() -> None:
    whole = np.arange(-127, 128, dtype=np.float32)[:, None]
    noise = tf.constant([[0.0, 0.5, np.nextafter(np.float32(1), np.float32(0))]])
    found = codes(tf.tile(whole, [1, 3]), tf.ones([255, 1]), tf.tile(noise, [255, 1]))
    np.testing.assert_array_equal(found, np.tile(whole, [1, 3]))


@pytest.mark.parametrize("kind", [tf.bfloat16, tf.float16])
@pytest.mark.parametrize("value", [1.001, -1.001, 0.3, -7e-5, 1e-7, 12345.678])
def test_random_rounding_gives_unbiased_neighbours(kind: tf.DType, value: float) -> None:
    n = 40_000
    exact = float(np.float32(value))
    found = tf.cast(random_round(tf.fill([n], value), kind, tf.constant([3, 4])), tf.float32).numpy().astype(float)
    neighbours = np.unique(found)
    assert len(neighbours) == 2
    assert neighbours[0] < exact < neighbours[1]
    assert tf.cast(exact, kind) in tf.cast(neighbours, kind).numpy()
    gap = neighbours[1] - neighbours[0]
    assert gap <= max(abs(exact) * (2.0**-7 if kind == tf.bfloat16 else 2.0**-10), 2.0**-24) * 1.0001
    assert abs(found.mean() - exact) < 5 * 0.5 * gap / np.sqrt(n)


@pytest.mark.parametrize("kind", [tf.bfloat16, tf.float16])
def test_numbers_of_the_type_stay_and_seeds_repeat(kind: tf.DType) -> None:
    rows = tf.constant(normal(500, 4, scale=0.05))
    held = tf.concat([tf.cast(rows, kind), tf.constant([[0.0, 1.0, -2.0, 6e-8]], kind)], 0)
    for seed in range(20):
        np.testing.assert_array_equal(random_round(tf.cast(held, tf.float32), kind, tf.constant([seed, 1])), held)
    one, same, other = (random_round(rows, kind, tf.constant([seed, 9])).numpy() for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.mean(one != other) > 0.3


def test_what_float16_cannot_hold_becomes_its_largest_number() -> None:
    found = random_round(tf.constant([1e6, -1e6, 65504.0]), tf.float16, tf.constant([1, 2]))
    assert found.numpy().tolist() == [65504.0, -65504.0, 65504.0]
