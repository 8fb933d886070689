"""Salted hashing of ids, the same in every process, on every machine and in every version."""

from __future__ import annotations

import hashlib

from recsys._compat import tf


def salt(*parts: str | int) -> int:
    """A signed 64-bit salt from names and numbers: BLAKE2b of their text, so it does not depend on any order of
    registration.

    >>> salt("movie_id", 0) == salt("movie_id", 0), salt("movie_id", 0) == salt("movie_id", 1)
    (True, False)
    """
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def hash_rows(ids: tf.Tensor, salts: tf.Tensor, rows: int | tf.Tensor) -> tf.Tensor:
    """Rows in [0, rows) for int64 `ids`, mixed with `salts` by splitmix64's finaliser; salts and rows (int64) are
    broadcast against ids.

    Every bit of id and salt reaches every bit of the hash, so ids 1 apart do not land in rows 1 apart.
    """
    x = tf.bitcast(ids, tf.uint64) ^ tf.bitcast(salts, tf.uint64)
    x += tf.constant(0x9E3779B97F4A7C15, tf.uint64)
    x = (x ^ tf.bitwise.right_shift(x, tf.constant(30, tf.uint64))) * tf.constant(0xBF58476D1CE4E5B9, tf.uint64)
    x = (x ^ tf.bitwise.right_shift(x, tf.constant(27, tf.uint64))) * tf.constant(0x94D049BB133111EB, tf.uint64)
    x ^= tf.bitwise.right_shift(x, tf.constant(31, tf.uint64))
    # TensorFlow has no uint64 modulo on the CPU; dropping the sign bit keeps 63 well-mixed bits.
    return tf.math.floormod(tf.bitcast(tf.bitwise.right_shift(x, tf.constant(1, tf.uint64)), tf.int64), rows)
