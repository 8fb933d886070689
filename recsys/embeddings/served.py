"""Rows as a bundle holds them: frozen, in as few bytes as the precision allows, with dense-looking lookups."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.embeddings.config import Precision
from recsys.embeddings.packing import pack_served, unpack_served


class ServedRows(Protocol):
    """Frozen rows."""

    def lookup(self, rows: tf.Tensor) -> tf.Tensor:
        """From rows [n] to vectors [n, D] float32."""


class ServedFloats(tf.Module):
    """[V, D] in float32, float16 or bfloat16."""

    def __init__(self, values: NDArray[np.float32], precision: tf.DType) -> None:
        super().__init__()
        self.embeddings = tf.Variable(tf.cast(values, precision), trainable=False, name="embeddings")

    def lookup(self, rows: tf.Tensor) -> tf.Tensor:
        """One gather."""
        return tf.cast(tf.gather(self.embeddings, rows), tf.float32)


class ServedInt8(tf.Module):
    """[V, D + 2] int8: a row's codes, and its float16 scale in the last two bytes."""

    def __init__(self, values: NDArray[np.float32]) -> None:
        super().__init__()
        self.packed = tf.Variable(pack_served(tf.constant(values)), trainable=False, name="packed")

    def lookup(self, rows: tf.Tensor) -> tf.Tensor:
        """One gather; the row's scale comes with its codes."""
        codes, scale = unpack_served(tf.gather(self.packed, rows))
        return codes * scale


def served_rows(values: NDArray[np.float32], precision: Precision) -> ServedRows:
    """[V, D] values at a precision."""
    return ServedInt8(values) if precision == "int8" else ServedFloats(values, tf.dtypes.as_dtype(precision))
