"""Moments that a layer keeps of past batches."""

from __future__ import annotations

from collections.abc import Sequence

from recsys._compat import keras, tf


def moving_moment(layer: keras.layers.Layer, name: str, shape: Sequence[int], initializer: str) -> tf.Variable:
    """A weight of `layer` that no gradient moves: each replica keeps its own, a checkpoint holds their mean."""
    return layer.add_weight(
        name=name,
        shape=shape,
        initializer=initializer,
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.MEAN,
    )
