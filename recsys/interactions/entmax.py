"""Entmax: a softmax that can say zero (Peters, Niculae and Martins, "Sparse Sequence-to-Sequence Models", ACL 2019)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from recsys._compat import tf


def entmax(scores: tf.Tensor, alpha: float) -> tf.Tensor:
    """Probabilities along the last axis, zero where a score is too far below the others: [..., F] -> [..., F].

        p_i = max((alpha - 1) s_i - tau, 0)^(1 / (alpha - 1)),   tau such that Σ p = 1

    alpha = 2 is sparsemax; alpha -> 1 tends to softmax. The gradient is the paper's, made of p alone:

        ∂p/∂s = diag(g) - g gᵀ / Σ g,   g_i = p_i^(2 - alpha) where p_i > 0, else 0

    Args:
        scores: float32 or float64, F > 0.
        alpha: greater than 1, up to 2.

    Raises:
        ValueError: alpha is not in that range.
    """
    if not 1.0 < alpha <= 2.0:
        raise ValueError(f"alpha is {alpha}; entmax is sparse, and has this form, for 1 < alpha <= 2")

    @tf.custom_gradient
    def probabilities(scores: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        p = _probabilities(scores, alpha)

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            g = _power(p, 2.0 - alpha)
            mean = tf.reduce_sum(g * upstream, -1, keepdims=True) / tf.reduce_sum(g, -1, keepdims=True)
            return g * (upstream - mean)

        return p, gradient

    return probabilities(scores)


def _probabilities(scores: tf.Tensor, alpha: float) -> tf.Tensor:
    """Looks for tau by Newton's method on the p-norm r(tau) = ‖max(z - tau, 0)‖_q - 1, q = 1 / (alpha - 1) >= 1.

    r is convex and falling, and r(max z - 1) >= 0: from there Newton's steps near the root from the left and never
    pass it. Each divides |r r'|, which begins at F^2 or less, by four or more, and |r'| >= 1: that bounds their number.
    Three to eight do in practice, because the norm is nearly linear.
    """
    z = (alpha - 1.0) * scores
    z -= tf.reduce_max(z, -1, keepdims=True)
    q = 1.0 / (alpha - 1.0)
    precision = np.finfo(z.dtype.as_numpy_dtype).eps

    def step(tau: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        u = tf.nn.relu(z - tau)
        slopes = _power(u, q - 1.0)
        total = tf.reduce_sum(u * slopes, -1, keepdims=True)
        move = (total - total ** (1.0 - 1.0 / q)) / tf.reduce_sum(slopes, -1, keepdims=True)
        return tau + move, move

    tau, _ = tf.while_loop(
        lambda _, move: tf.reduce_any(move > 16.0 * precision),
        step,
        (-tf.ones_like(z[..., :1]), tf.ones_like(z[..., :1])),
        maximum_iterations=math.ceil(math.log2(z.shape[-1]) - math.log2(precision) / 2),
    )
    p = _power(tf.nn.relu(z - tau), q)
    return p / tf.reduce_sum(p, -1, keepdims=True)


def _power(x: tf.Tensor, exponent: float) -> tf.Tensor:
    """x^exponent for x >= 0 and an exponent >= 0, with 0^0 = 0."""
    if exponent == 0.0:
        return tf.sign(x)
    if exponent == 1.0:
        return x
    return tf.exp(exponent * tf.math.log(x))  # nine times as fast as TensorFlow's power on a CPU
