"""Dice, DIN's activation: a PReLU whose bend stands where the data are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from recsys._compat import keras, tf
from recsys.interactions.moving import moving_moment

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
        self.moving_mean = moving_moment(self, "moving_mean", units, "zeros")
        self.moving_variance = moving_moment(self, "moving_variance", units, "ones")
        super().build(shape)

    def call(self, x: tf.Tensor, mask: tf.Tensor | None = None, training: bool = False) -> tf.Tensor:
        """f(x).

        Args:
            x: [..., n], for instance [B, n] or [B, T, n].
            mask: [...] bool, false for padding, whose output means nothing; None for no padding.
            training: whether to take the batch's moments, and to move the averages.
        """
        s, alpha = tf.cast(x, tf.float32), tf.convert_to_tensor(self.alpha)
        if not training:
            return tf.cast(_dice(s, alpha, self.moving_mean, self.moving_variance), x.dtype)
        rows = tf.reshape(s, [-1, s.shape[-1]])
        values = tf.ones_like(rows[:, 0]) if mask is None else tf.cast(tf.reshape(mask, [-1]), tf.float32)
        count = tf.reduce_sum(values)
        shares = values / tf.maximum(count, 1.0)
        given = tf.stop_gradient(rows)  # what comes through the moments is in the gradient of `_dice_of_batch`
        mean = _sum(given, shares)
        variance = _sum(_squares(given, mean), shares)
        move = tf.where(count > 0.0, 1.0 - MOMENTUM, 0.0)
        self.moving_mean.assign_add(move * (mean - self.moving_mean))
        self.moving_variance.assign_add(move * (variance - self.moving_variance))
        return tf.cast(tf.reshape(_dice_of_batch(rows, alpha, shares, mean, variance), tf.shape(x)), x.dtype)


def _dice(s: tf.Tensor, alpha: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor) -> tf.Tensor:
    """f(s), with moments that are given."""
    p = tf.sigmoid((s - mean) * tf.math.rsqrt(variance + EPSILON))
    return s * (alpha + (1.0 - alpha) * p)


@tf.custom_gradient
def _dice_of_batch(
    s: tf.Tensor, alpha: tf.Tensor, shares: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor
) -> tuple[tf.Tensor, Callable[..., tuple[tf.Tensor | None, ...]]]:
    """f(s) of rows [N, n], whose moments are sums by the rows' shares [N]. The gradient of s holds what comes through
    the moments.

    A history's rows are many, and every pass over them costs more than what is computed there. So XLA makes one pass of
    all that goes by element, and sums over rows, at which it is slow, are products: half the time of plain operations.
    """

    def gradient(of_f: tf.Tensor) -> tuple[tf.Tensor | None, ...]:
        ones = tf.ones_like(shares)
        of_z, of_root, of_alpha = (_sum(each, ones) for each in _slopes(s, alpha, mean, variance, of_f))
        of_s = _gradient_of_s(s, alpha, shares, mean, variance, of_f, of_z, of_root)
        return of_s, of_alpha, None, None, None

    return _dice_in_one_pass(s, alpha, mean, variance), gradient


_in_one_pass = partial(tf.function, jit_compile=True, autograph=False)
_dice_in_one_pass = _in_one_pass(_dice)


@_in_one_pass
def _squares(s: tf.Tensor, mean: tf.Tensor) -> tf.Tensor:
    return tf.square(s - mean)


@_in_one_pass
def _slopes(
    s: tf.Tensor, alpha: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor, of_f: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """[N, n] each, to be summed over the rows: the gradients of z = (s - E) / √(Var + ε), of z by z, and of α."""
    z, p, of_z = _inner(s, alpha, mean, variance, of_f)
    return of_z, of_z * z, of_f * s * (1.0 - p)


@_in_one_pass
def _gradient_of_s(
    s: tf.Tensor,
    alpha: tf.Tensor,
    shares: tf.Tensor,
    mean: tf.Tensor,
    variance: tf.Tensor,
    of_f: tf.Tensor,
    sum_of_z: tf.Tensor,
    sum_of_root: tf.Tensor,
) -> tf.Tensor:
    z, p, of_z = _inner(s, alpha, mean, variance, of_f)
    through_moments = shares[:, tf.newaxis] * (sum_of_z + z * sum_of_root)
    return of_f * (alpha + (1.0 - alpha) * p) + tf.math.rsqrt(variance + EPSILON) * (of_z - through_moments)


def _inner(
    s: tf.Tensor, alpha: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor, of_f: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """z, p = σ(z), and the gradient of z."""
    z = (s - mean) * tf.math.rsqrt(variance + EPSILON)
    p = tf.sigmoid(z)
    return z, p, of_f * s * ((1.0 - alpha) * p * (1.0 - p))


def _sum(rows: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """[n] the weighted sum of rows [N, n]: as a product, faster than `reduce_sum`."""
    return tf.linalg.matvec(rows, weights, transpose_a=True)
