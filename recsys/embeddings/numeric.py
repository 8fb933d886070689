"""Numbers, transformed inside the graph, so that training and serving run the very same operations on raw float32."""

from __future__ import annotations

from recsys._compat import tf
from recsys.data.dataset import MISSING, NumericInfo


def standardize(x: tf.Tensor, info: NumericInfo) -> tf.Tensor:
    """[B] raw numbers -> [B, 1]: (x - mean) / std, after sign(x) log(1 + |x|) for `log`; missing (NaN) -> 0, the
    mean.
    """
    if info.transform == "log":
        x = tf.sign(x) * tf.math.log1p(tf.abs(x))
    scaled = (x - info.mean) / info.std
    return tf.where(tf.math.is_nan(scaled), 0.0, scaled)[:, tf.newaxis]


def bucketize(x: tf.Tensor, info: NumericInfo) -> tf.Tensor:
    """[B] raw numbers -> [B] ids: 0 for missing, else 1 + the number of boundaries at or below x."""
    boundaries = tf.constant(info.boundaries, tf.float32)
    bucket = tf.searchsorted(boundaries, tf.where(tf.math.is_nan(x), 0.0, x), side="right", out_type=tf.int32)
    return tf.where(tf.math.is_nan(x), MISSING, 1 + bucket)
