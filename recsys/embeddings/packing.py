"""Rows of few bits: 8-bit codes with a scale for the row, and float32 rounded at random to 16 bits.

A row w of d numbers is `codes * scale`, codes being whole numbers in [-127, 127]. While a table trains, a row is d + 4
bytes: the codes, then the float32 scale; in a bundle it is d + 2 bytes: the codes, then a float16 scale. One gather
reads a row with its scale, and one scatter writes it. Scales are little-endian.

Reference: Li et al., "Adaptive Low-Precision Training for Embeddings in Click-Through Rate Prediction", AAAI 2023.
"""

from __future__ import annotations

import sys

import numpy as np

from recsys._compat import tf

MAX_CODE = 127
SCALE_BYTES, SERVED_SCALE_BYTES = 4, 2
SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
"""A row of zeros has this scale: it grows with the row."""
SMALLEST_SERVED_SCALE = float(np.finfo(np.float16).smallest_subnormal)
LARGEST_SERVED_SCALE = float(np.finfo(np.float16).max)

if sys.byteorder != "little":
    raise ImportError("packed rows are little-endian, and this machine is not")


def scales(values: tf.Tensor) -> tf.Tensor:
    """[n, 1] float32 > 0: the scale at which the largest |value| of each row [n, d] gets the code 127."""
    return tf.maximum(tf.reduce_max(tf.abs(values), axis=1, keepdims=True) / MAX_CODE, SMALLEST_SCALE)


def codes(values: tf.Tensor, scale: tf.Tensor, noise: tf.Tensor | None = None) -> tf.Tensor:
    """int8 [n, d]: values [n, d] in steps of scale [n, 1], kept within [-127, 127].

    Args:
        noise: uniform in [0, 1), of the shape of values: rounds at random, without bias. None rounds to the nearest.
    """
    steps = values / scale
    whole = tf.round(steps) if noise is None else _round_by(steps, noise)
    return tf.cast(tf.clip_by_value(whole, -MAX_CODE, MAX_CODE), tf.int8)


def pack(values: tf.Tensor, scale: tf.Tensor, noise: tf.Tensor | None = None) -> tf.Tensor:
    """int8 [n, d + 4]: rows [n, d] float32 as codes and their scale [n, 1] float32; `noise` as in `codes`."""
    return tf.concat([codes(values, scale, noise), _to_bytes(scale)], axis=1)


def unpack(packed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """What `pack` wrote: codes [n, d] and scale [n, 1], both float32; the rows are codes * scale."""
    return _split(packed, tf.float32, SCALE_BYTES)


def pack_served(values: tf.Tensor) -> tf.Tensor:
    """int8 [n, d + 2]: rows [n, d] float32 as codes rounded to the nearest, and a float16 scale.

    The scale is rounded up to float16, so that every value of the row has a code. Where scales are normal (from 6.1e-5,
    rows that reach .008) that costs at most 1/1024 of the precision, below (subnormal scales) up to half of it, and
    rows that stay below 3e-8 become zero. A zero row stays zero.

    Raises:
        ValueError: a value is not finite, or larger than 127 times the largest float16.
    """
    scale = scales(values)
    if not bool(tf.reduce_all(scale <= LARGEST_SERVED_SCALE)):
        raise ValueError("a row holds a value too large for 8 bits with a float16 scale, or not finite")
    half = _round_up(scale)
    return tf.concat([codes(values, tf.cast(half, tf.float32)), _to_bytes(half)], axis=1)


def unpack_served(packed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """What `pack_served` wrote: codes [n, d] and scale [n, 1], both float32; the rows are codes * scale."""
    return _split(packed, tf.float16, SERVED_SCALE_BYTES)


def random_round(values: tf.Tensor, dtype: tf.DType, seed: tf.Tensor) -> tf.Tensor:
    """Values float32, each rounded at random to one of its two neighbours in bfloat16 or float16, without bias.

    The same seed [2] gives the same numbers. What float16 cannot hold becomes its largest number.
    """
    if dtype == tf.bfloat16:
        return _random_bfloat16(values, seed)
    return _random_float16(values, seed)


def _random_bfloat16(values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """bfloat16 is the upper half of a float32: 16 random bits carry into it as often as its lower half says."""
    noise = tf.random.stateless_uniform(tf.shape(values), seed, 0, 1 << 16, dtype=tf.int32)
    carried = tf.bitcast(values, tf.int32) + noise
    cut = tf.bitcast(tf.bitwise.bitwise_and(carried, -(1 << 16)), tf.float32)
    return tf.cast(tf.where(tf.math.is_finite(cut), cut, values), tf.bfloat16)


def _random_float16(values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """float16 has its own exponents: neighbours are 2^-10 of the leading power of two apart, and at least 2^-24."""
    leading = tf.bitcast(tf.bitwise.bitwise_and(tf.bitcast(values, tf.int32), 0x7F800000), tf.float32)
    step = tf.maximum(leading * 2.0**-10, SMALLEST_SERVED_SCALE)
    rounded = _round_by(values / step, tf.random.stateless_uniform(tf.shape(values), seed)) * step
    return tf.cast(tf.clip_by_value(rounded, -LARGEST_SERVED_SCALE, LARGEST_SERVED_SCALE), tf.float16)


def _round_by(values: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
    """Down or up, up with the probability of the fraction; whole numbers always stay."""
    whole = tf.floor(values)
    return whole + tf.cast(noise < values - whole, tf.float32)


def _round_up(scale: tf.Tensor) -> tf.Tensor:
    """float16, the smallest that is not below scale float32 > 0."""
    half = tf.cast(scale, tf.float16)
    next_up = tf.bitcast(tf.bitcast(half, tf.int16) + tf.constant(1, tf.int16), tf.float16)
    return tf.where(tf.cast(half, tf.float32) < scale, next_up, half)


def _to_bytes(scale: tf.Tensor) -> tf.Tensor:
    """int8 [n, bytes of a scale] of scale [n, 1]."""
    return tf.bitcast(tf.squeeze(scale, 1), tf.int8)


def _split(packed: tf.Tensor, dtype: tf.DType, scale_bytes: int) -> tuple[tf.Tensor, tf.Tensor]:
    scale = tf.bitcast(packed[:, -scale_bytes:], dtype)[:, tf.newaxis]
    return tf.cast(packed[:, :-scale_bytes], tf.float32), tf.cast(scale, tf.float32)
