"""Numbers, transformed inside the graph, so that training and serving run the very same operations on raw float32.

All numeric features of a batch are transformed at once, a column each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from recsys._compat import keras, tf
from recsys.data.dataset import MISSING, NumericInfo
from recsys.embeddings.config import UniformConfig
from recsys.embeddings.rows import make_initializer
from recsys.embeddings.seeds import seed_for


def standardize(x: tf.Tensor, infos: Sequence[NumericInfo]) -> tf.Tensor:
    """[B, F] raw numbers -> [B, F]: (x - mean) / std, after the logarithm of those that have one; missing (NaN) -> 0,
    the mean.
    """
    x = _transformed(x, infos)
    scaled = (x - [info.mean for info in infos]) / [info.std for info in infos]
    return tf.where(tf.math.is_nan(scaled), 0.0, scaled)


def bucketize(x: tf.Tensor, infos: Sequence[NumericInfo]) -> tf.Tensor:
    """[B, F] raw numbers -> [B, F] int32 ids: 0 for missing, else 1 + the number of boundaries at or below the number
    (or its squared logarithm).
    """
    x = _transformed(x, infos)
    counts = [len(info.boundaries) for info in infos]
    boundaries = np.full((len(infos), max(counts)), np.inf, np.float32)
    for row, info in zip(boundaries, infos, strict=True):
        row[: len(info.boundaries)] = info.boundaries
    known = tf.transpose(tf.where(tf.math.is_nan(x), 0.0, x))
    below = tf.searchsorted(tf.constant(boundaries), known, side="right", out_type=tf.int32)
    # The padding is at or below infinity, too.
    bucket = tf.transpose(tf.minimum(below, tf.constant(counts, tf.int32)[:, tf.newaxis]))
    return tf.where(tf.math.is_nan(x), MISSING, 1 + bucket)


def _transformed(x: tf.Tensor, infos: Sequence[NumericInfo]) -> tf.Tensor:
    """[B, F] as `recsys.data.numbers.transformed` has it, but for the rounding, which buckets need not."""
    logs = [info.transform == "log" for info in infos]
    if any(logs):
        x = tf.where(logs, tf.sign(x) * tf.math.log1p(tf.abs(x)), x)
    squares = [info.transform in ("log_squared", "log_squared_buckets") for info in infos]
    if any(squares):
        # In float64: its whole part must be that of the training's statistics.
        whole = tf.floor(tf.math.log(tf.cast(tf.maximum(x, 2.0), tf.float64)) ** 2)
        x = tf.where(squares & (x > 2.0), tf.cast(whole, x.dtype), x)
    return x


class NumberVectors(keras.layers.Layer):
    """Numbers in one space with the rows of tables: e_m = x_m v_m, v_m learned, no bias (Song et al., AutoInt, CIKM
    2019, eq. 4).

    Args:
        names: all features that become vectors of this width.
        width: D.
        seed: the experiment's seed; each v_m starts where a table's row does, as seed and name say.
    """

    def __init__(self, names: Sequence[str], width: int, seed: int) -> None:
        super().__init__(name=f"numbers_{width}")
        self.names, self._width, self._seed = tuple(names), width, seed

    def build(self, input_shape: Any) -> None:
        """Makes the v_m, a row each."""
        rows = [make_initializer(UniformConfig(), seed_for(self._seed, "number", name)) for name in self.names]
        self.vectors = self.add_weight(
            name="vectors",
            shape=(len(self.names), self._width),
            initializer=lambda shape, dtype: tf.concat([row((1, shape[1]), dtype) for row in rows], 0),
        )
        super().build(input_shape)

    def call(self, x: tf.Tensor, names: Sequence[str]) -> tf.Tensor:
        """[B, F] numbers of the features `names` -> [B, F, D]."""
        vectors = tf.convert_to_tensor(self.vectors)
        if tuple(names) != self.names:
            each = tf.unstack(vectors)
            vectors = tf.stack([each[self.names.index(name)] for name in names])
        return x[..., tf.newaxis] * vectors
