"""Losses of a label by itself, and what the logits trained by them say of its probability."""

from __future__ import annotations

import math

from recsys._compat import tf
from recsys.objectives.config import BinaryCrossEntropyConfig, FocalConfig

Loss = BinaryCrossEntropyConfig | FocalConfig
SUREST = 60.0
"""Logits of the focal loss beyond this are all one certainty: e^60 is still a float32."""


def pointwise_loss(config: Loss, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """[b] the loss of each example, with p = sigmoid(logit):

        binary_cross_entropy    -y positive_weight log p - (1 - y) log(1 - p)
        focal                   -y (1 - p)^gamma log p - (1 - y) p^gamma log(1 - p)    (Lin et al. 2017, eq. 4)

    Args:
        config: which loss.
        labels: [b] 0 or 1.
        logits: [b]
    """
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)
    # No `match`: AutoGraph cannot read it, and says so to the user.
    if isinstance(config, FocalConfig):
        # log(1 - probability of what happened), which neither underflows nor has an infinite gradient
        log_missed = tf.math.log_sigmoid((1.0 - 2.0 * labels) * logits)
        return losses * tf.exp(config.gamma * log_missed)
    if config.positive_weight == 1.0:
        return losses
    return losses * (1.0 + (config.positive_weight - 1.0) * labels)


def log_odds(config: Loss, logits: tf.Tensor) -> tf.Tensor:
    """[b] log-odds of label 1, from logits that a loss has trained; it changes no order.

    With `positive_weight` w the loss is least where the odds are w times the true ones, so log w is taken off. With
    the focal loss the true odds are A(1 - p) / A(p) at its least, with A(v) = (1 - v)^gamma / v - gamma (1 -
    v)^(gamma - 1) log v (Charoenphakdee et al., CVPR 2021).
    """
    if isinstance(config, BinaryCrossEntropyConfig):
        return logits if config.positive_weight == 1.0 else logits - math.log(config.positive_weight)
    if config.gamma == 0.0:
        return logits
    logits = tf.clip_by_value(logits, -SUREST, SUREST)
    return _log_a(config.gamma, -logits) - _log_a(config.gamma, logits)


def _log_a(gamma: float, logits: tf.Tensor) -> tf.Tensor:
    """log A(sigmoid(logits)) = (gamma - 1) log(1 - v) + log((1 - v) / v - gamma log v)."""
    return (gamma - 1.0) * tf.math.log_sigmoid(-logits) + tf.math.log(tf.exp(-logits) + gamma * tf.nn.softplus(-logits))
