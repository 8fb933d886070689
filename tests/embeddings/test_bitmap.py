"""Bits that can be counted, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys._compat import tf
from recsys.embeddings.bitmap import is_set, pages, rank
from recsys.embeddings.plan import bitmap_bytes

SIZES = [1, 31, 32, 33, 127, 128, 129, 100_000]


def check(bits: np.ndarray, positions: np.ndarray, dtype: tf.DType = tf.int32) -> None:
    stored = pages(bits)
    assert stored.nbytes == bitmap_bytes(len(bits))
    at = tf.constant(positions, dtype)
    np.testing.assert_array_equal(is_set(stored, at), bits[positions])
    np.testing.assert_array_equal(rank(stored, at), (np.cumsum(bits) - bits)[positions])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
def test_every_bit_by_numpy(size: int, dtype: tf.DType) -> None:
    rng = np.random.default_rng(size)
    for density in (0.0, 0.02, 0.5, 1.0):
        check(rng.random(size) < density, np.arange(size), dtype)


@settings(max_examples=30)
@given(st.sampled_from(SIZES[:-1]), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_any_bits(size: int, seed: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    check(rng.random(size) < density, rng.permutation(size))


def test_by_hand() -> None:
    """Bit 31 is the sign of a word; bit 32 the first of the next; a page's count is that of the pages before."""
    bits = np.zeros(300, bool)
    bits[[0, 31, 32, 127, 128, 299]] = True
    assert pages(bits).tolist() == [0, -(2**31) + 1, 1, 0, -(2**31), 4, 1, 0, 0, 0, 5, 0, 2**11, 0, 0]
    assert rank(pages(bits), tf.constant([0, 1, 31, 32, 33, 127, 128, 129, 256, 299])).numpy().tolist() == [
        0, 1, 1, 2, 3, 3, 4, 5, 5, 5,
    ]  # fmt: skip


def test_nothing_is_asked_of_no_position() -> None:
    stored = pages(np.ones(40, bool))
    assert rank(stored, tf.zeros([0], tf.int32)).shape == (0,)
    assert is_set(stored, tf.zeros([0, 3], tf.int32)).shape == (0, 3)
    assert pages(np.zeros(0, bool)).tolist() == []
