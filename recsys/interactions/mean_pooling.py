"""Mean pooling of a history: what target attention has to beat."""

from __future__ import annotations

from recsys._compat import keras, tf
from recsys.embeddings.pooling import pool


class MeanPooling(keras.layers.Layer):
    """v_U = mean_j e_j, whatever the target: the pooling of the DIN paper's base model (eq. 1), a mean for its sum."""

    def call(self, target: tf.Tensor, history: tf.Tensor, mask: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, D] the mean of the history's events; zeros for an empty history.

        Args:
            target: [B, D], not read.
            history: [B, T, D].
            mask: [B, T] bool, true for an event.
            training: makes no difference.
        """
        return pool(history, tf.cast(mask, history.dtype), "mean")
