"""Rows as a bundle holds them: frozen, in as few bytes as the precision allows, with dense-looking lookups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.embeddings.config import Precision
from recsys.embeddings.packing import pack_served, unpack_served

BLOCK = 1 << 20
"""Rows that are packed at once: packing needs several times the memory of what it packs."""


class ServedRows(Protocol):
    """Frozen rows."""

    @property
    def variables(self) -> Sequence[tf.Variable]:
        """All that a bundle stores of them."""

    def lookup(self, rows: tf.Tensor) -> tf.Tensor:
        """From rows [n] to vectors [n, D] float32."""


class ServedFloats(tf.Module):
    """[V, D] in float32, float16 or bfloat16, rounded to the nearest.

    Raises:
        ValueError: a value is not finite, or not at this precision (the largest float16 is 65504).
    """

    def __init__(self, values: NDArray[np.float32], precision: tf.DType) -> None:
        super().__init__()
        rounded = tf.cast(values, precision)
        if not bool(tf.reduce_all(tf.math.is_finite(rounded))):
            raise ValueError(f"a row holds a value that is not finite as {precision.name}")
        self.embeddings = tf.Variable(rounded, trainable=False, name="embeddings")

    def lookup(self, rows: tf.Tensor) -> tf.Tensor:
        """One gather."""
        return tf.cast(tf.gather(self.embeddings, rows), tf.float32)


class ServedInt8(tf.Module):
    """[V, D + 2] int8: a row's codes, and its float16 scale in the last two bytes.

    Raises:
        ValueError: a value is not finite, or larger than 127 times the largest float16.
    """

    def __init__(self, values: NDArray[np.float32]) -> None:
        super().__init__()
        blocks = [pack_served(tf.constant(values[start : start + BLOCK])) for start in range(0, len(values), BLOCK)]
        self.packed = tf.Variable(tf.concat(blocks, 0), trainable=False, name="packed")

    def lookup(self, rows: tf.Tensor) -> tf.Tensor:
        """One gather; the row's scale comes with its codes."""
        codes, scale = unpack_served(tf.gather(self.packed, rows))
        return codes * scale


def served_rows(values: NDArray[np.float32], precision: Precision) -> ServedRows:
    """[V, D] values at a precision.

    Raises:
        ValueError: a value cannot be stored at it.
    """
    return ServedInt8(values) if precision == "int8" else ServedFloats(values, tf.dtypes.as_dtype(precision))
