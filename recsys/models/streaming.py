"""AUC and logloss of a ranker while it trains, from sums in the graph."""

from __future__ import annotations

import math

import numpy as np

from recsys._compat import keras, tf
from recsys.metrics.pointwise import TINIEST

BINS = 2_000
REACH = math.log((1 - TINIEST) / TINIEST)
"""Logits are kept within this of 0, as far as a float32 sigmoid can tell them from certainty."""


class StreamingRanking(keras.metrics.Metric):
    """`auc` and `logloss` (nats) of logits that pass by once: approximate and exact, in `BINS` sums a class.

    Logits are counted in bins of equal width, by label. Two in one bin count as tied, so AUC is off by at most half the
    share of the pairs (positive, negative) that meet in a bin. Sums are float64, added one example after the other:
    the same bits in every run. They are variables, so a checkpoint holds them, and replicas' are added up.

    Args:
        name: of the metric.
    """

    def __init__(self, name: str = "ranking") -> None:
        super().__init__(name=name, dtype="float64")
        self._weight = self.add_weight("weight", shape=(2 * BINS,), initializer="zeros")
        self._loss = self.add_weight("loss", initializer="zeros")

    def update_state(self, labels: tf.Tensor, logits: tf.Tensor, sample_weight: tf.Tensor) -> None:
        """Counts a batch: labels in [0, 1], log-odds and weights, each [B]."""
        positive, weight = tf.cast(labels, tf.float64), tf.cast(sample_weight, tf.float64)
        near = tf.clip_by_value(tf.stop_gradient(tf.cast(logits, tf.float64)), -REACH, REACH)
        place = tf.cast((near + REACH) * (BINS / (2 * REACH)), tf.int32)
        place = tf.clip_by_value(place, 0, BINS - 1)  # also what is not a number, which the loss tells of
        weights = tf.concat([weight * (1 - positive), weight * positive], 0)
        places = tf.concat([place, place + BINS], 0)
        self._weight.assign_add(tf.math.unsorted_segment_sum(weights, places, 2 * BINS))
        losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=positive, logits=near)
        self._loss.assign_add(tf.reduce_sum(weight * losses))

    def result(self) -> dict[str, tf.Tensor]:
        """Of what has been counted; AUC is NaN as long as one class is missing, logloss without any example."""
        negative, positive = tf.split(tf.convert_to_tensor(self._weight), 2)
        below = tf.cumsum(negative, exclusive=True) + negative / 2
        pairs = tf.reduce_sum(positive) * tf.reduce_sum(negative)
        total = tf.reduce_sum(positive) + tf.reduce_sum(negative)
        return {"auc": tf.reduce_sum(positive * below) / pairs, "logloss": self._loss / total}

    def reset_state(self) -> None:
        """Forgets everything."""
        for variable in self.variables:
            variable.assign(np.zeros(variable.shape))
