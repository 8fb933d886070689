"""Several rows into one vector."""

from __future__ import annotations

from typing import Literal

from recsys._compat import keras, tf
from recsys.data.dataset import MISSING


def pool(values: tf.Tensor, weights: tf.Tensor, how: Literal["mean", "sum", "sqrtn"]) -> tf.Tensor:
    """Weighted pooling over T; a row without any weight gives zeros.

    Args:
        values: [B, T, d].
        weights: [B, T], 0 for padding.
        how: `sum` = Σ w v; `mean` = Σ w v / Σ w; `sqrtn` = Σ w v / sqrt(Σ w²).

    Returns:
        [B, d].
    """
    total = tf.einsum("bt,btd->bd", weights, values)
    if how == "sum":
        return total
    if how == "mean":
        return tf.math.divide_no_nan(total, tf.reduce_sum(weights, 1, keepdims=True))
    squares = tf.reduce_sum(tf.square(weights), 1, keepdims=True)
    # The gradient of sqrt at 0 is infinite, and times 0 it is NaN: an empty row (of zeros) is divided by 1.
    return total / tf.sqrt(tf.where(squares > 0.0, squares, 1.0))


def newest(ids: tf.Tensor, length: int) -> tf.Tensor:
    """[B, length] columns of each row's newest values in ids [B, T] (oldest first, padded at the end), oldest first; of
    shorter rows, the first columns.
    """
    length = min(length, ids.shape[1])
    # A 0 before the last value is an event whose value is missing.
    ends = tf.reduce_max(tf.where(tf.equal(ids, MISSING), 0, tf.range(1, ids.shape[1] + 1)), 1, keepdims=True)
    return tf.maximum(ends - length, 0) + tf.range(length)


class AgeDecay(keras.layers.Layer):
    """Weights (1 + age in hours)^-decay for the events of a history, with one learned decay >= 0 (0.13 at the
    start).
    """

    def build(self, _: object) -> None:
        """Makes the scalar."""
        self.raw_decay = self.add_weight(name="raw_decay", shape=(), initializer=keras.initializers.Constant(-2.0))
        super().build(None)

    def call(self, age: tf.Tensor) -> tf.Tensor:
        """From ages [B, T] in seconds to weights [B, T] in (0, 1]; an age below zero counts as zero."""
        hours = tf.maximum(age, 0.0) / 3600.0
        return tf.exp(-tf.nn.softplus(self.raw_decay) * tf.math.log1p(hours))
