"""Bits that can be counted: is bit p set, and how many are set before it?

A plan keeps some rows of a table, or some numbers of a row, and stores the kept ones side by side. Where one stands is
how many are kept before it. The bits stand in words of 32, four words to a *page*, and before each page's words stands
how many bits are set in the pages before it:

    page: [count, word 0, word 1, word 2, word 3]      20 bytes for 128 bits, 0.16 bytes a bit

So a count costs one gather of a page; a map from ids to places would take 4 bytes an id.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys._compat import tf

WORDS = 4
PAGE_BITS = 32 * WORDS
PAGE_INTS = 1 + WORDS


def pages(bits: NDArray[np.bool_]) -> NDArray[np.int32]:
    """[5 ceil(n / 128)] the pages of bits [n], one after the other.

    >>> pages(np.array([True, False, True])).tolist()
    [0, 5, 0, 0, 0]
    """
    count = -(-len(bits) // PAGE_BITS)
    padded = np.zeros(count * PAGE_BITS, bool)
    padded[: len(bits)] = bits
    words = np.packbits(padded, bitorder="little").view("<i4").reshape(count, WORDS)
    set_bits = padded.reshape(count, PAGE_BITS).sum(1)
    before = np.cumsum(set_bits) - set_bits
    return np.column_stack([before, words]).astype(np.int32).ravel()


def is_index(variable: tf.Variable) -> bool:
    """Whether a variable of a table holds pages, not numbers."""
    return bool(variable.dtype == tf.int32)


def is_set(stored: tf.Variable | tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Whether bits are set, bool of the shape of `positions` (int32 or int64)."""
    page, within = positions // PAGE_BITS, positions % PAGE_BITS
    word = tf.gather(stored, page * PAGE_INTS + 1 + within // 32)
    shifted = tf.bitwise.right_shift(word, tf.cast(within % 32, tf.int32))
    return tf.not_equal(tf.bitwise.bitwise_and(shifted, 1), 0)


def rank(stored: tf.Variable | tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """[n] int32 how many bits are set before each position [n] (below the number of bits)."""
    page, within = positions // PAGE_BITS, tf.cast(positions % PAGE_BITS, tf.int32)
    ints = tf.range(PAGE_INTS, dtype=positions.dtype)
    found = tf.gather(stored, page[:, tf.newaxis] * PAGE_INTS + ints)
    counted = tf.clip_by_value(within[:, tf.newaxis] - 32 * tf.range(WORDS), 0, 32)  # bits of each word
    # A shift by 32 is not defined.
    masks = tf.where(counted < 32, tf.bitwise.left_shift(1, tf.minimum(counted, 31)) - 1, -1)
    below = tf.raw_ops.PopulationCount(x=tf.bitwise.bitwise_and(found[:, 1:], masks))
    return found[:, 0] + tf.reduce_sum(tf.cast(below, tf.int32), 1)
