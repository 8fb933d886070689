"""Numbers, transformed inside the graph, so that training and serving run the very same operations on raw float32.

All numeric features of a batch are transformed at once, a column each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recsys._compat import tf
from recsys.data.dataset import MISSING, NumericInfo


def standardize(x: tf.Tensor, infos: Sequence[NumericInfo]) -> tf.Tensor:
    """[B, F] raw numbers -> [B, F]: (x - mean) / std, after sign(x) log(1 + |x|) for `log`; missing (NaN) -> 0, the
    mean.
    """
    logs = [info.transform == "log" for info in infos]
    if any(logs):
        x = tf.where(logs, tf.sign(x) * tf.math.log1p(tf.abs(x)), x)
    scaled = (x - [info.mean for info in infos]) / [info.std for info in infos]
    return tf.where(tf.math.is_nan(scaled), 0.0, scaled)


def bucketize(x: tf.Tensor, infos: Sequence[NumericInfo]) -> tf.Tensor:
    """[B, F] raw numbers -> [B, F] int32 ids: 0 for missing, else 1 + the number of boundaries at or below x."""
    counts = [len(info.boundaries) for info in infos]
    boundaries = np.full((len(infos), max(counts)), np.inf, np.float32)
    for row, info in zip(boundaries, infos, strict=True):
        row[: len(info.boundaries)] = info.boundaries
    known = tf.transpose(tf.where(tf.math.is_nan(x), 0.0, x))
    below = tf.searchsorted(tf.constant(boundaries), known, side="right", out_type=tf.int32)
    # The padding is at or below infinity, too.
    bucket = tf.transpose(tf.minimum(below, tf.constant(counts, tf.int32)[:, tf.newaxis]))
    return tf.where(tf.math.is_nan(x), MISSING, 1 + bucket)
