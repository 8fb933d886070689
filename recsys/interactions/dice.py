"""Dice, DIN's activation: a PReLU whose bend stands where the data are."""

from __future__ import annotations

from recsys._compat import keras, tf

EPSILON = 1e-8
MOMENTUM = 0.99
"""Of the moving moments; the paper names none."""


class Dice(keras.layers.Layer):
    """Data adaptive activation (Zhou et al., "Deep Interest Network", KDD 2018, eq. 9), unit by unit: [..., n] -> same.

        p(s) = σ((s - E[s]) / √(Var[s] + ε)),   f(s) = p(s) s + (1 - p(s)) α s,   ε = 1e-8

    In training E and Var are those of the batch, and gradients flow through them; at inference, moving averages of
    them. Both are over what the mask lets through: padding would pull them to its own value. A batch that is padding
    alone leaves the averages. Under replicas each takes the moments of its own share of the batch; a checkpoint holds
    the mean of their averages.

    Computes in float32 under every policy. α starts at 0, as in the authors' code; the averages start at 0 and 1.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name=name, dtype="float32", autocast=False)

    def build(self, shape: tf.TensorShape) -> None:
        """Makes α and the moving moments, one of each a unit."""
        units = (shape[-1],)
        self.alpha = self.add_weight(name="alpha", shape=units, initializer="zeros")
        self.moving_mean = self._moving("moving_mean", units, "zeros")
        self.moving_variance = self._moving("moving_variance", units, "ones")
        super().build(shape)

    def _moving(self, name: str, shape: tuple[int], initializer: str) -> tf.Variable:
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=initializer,
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.MEAN,
        )

    def call(self, x: tf.Tensor, mask: tf.Tensor | None = None, training: bool = False) -> tf.Tensor:
        """f(x).

        Args:
            x: [..., n], for instance [B, n] or [B, T, n].
            mask: [...] bool, false for padding, whose output means nothing; None for no padding.
            training: whether to take the batch's moments, and to move the averages.
        """
        s = tf.cast(x, tf.float32)
        mean, variance = self._batch_moments(s, mask) if training else (self.moving_mean, self.moving_variance)
        p = tf.sigmoid((s - mean) * tf.math.rsqrt(variance + EPSILON))
        return tf.cast(s * (self.alpha + (1.0 - self.alpha) * p), x.dtype)

    def _batch_moments(self, s: tf.Tensor, mask: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        """[n] mean and (biased) variance of the values; the averages move towards them."""
        s = tf.reshape(s, [-1, s.shape[-1]])
        values = tf.ones_like(s[:, :1]) if mask is None else tf.cast(tf.reshape(mask, [-1, 1]), tf.float32)
        count = tf.reduce_sum(values)
        whole = tf.maximum(count, 1.0)
        mean = tf.linalg.matvec(s, values[:, 0], transpose_a=True) / whole
        variance = tf.linalg.matvec(tf.square(s - mean), values[:, 0], transpose_a=True) / whole
        move = tf.where(count > 0.0, 1.0 - MOMENTUM, 0.0)
        self.moving_mean.assign_add(move * (mean - self.moving_mean))
        self.moving_variance.assign_add(move * (variance - self.moving_variance))
        return mean, variance
