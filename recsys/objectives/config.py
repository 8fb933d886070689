"""Losses and their parameters."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from recsys.config.base import Config, default_tag


class InBatchSoftmaxConfig(Config):
    """Each example's item against the other items of its batch (Yi et al., RecSys 2019)."""

    kind: Literal["in_batch_softmax"] = "in_batch_softmax"
    temperature: PositiveFloat = 0.05
    """Divides the scores, before the correction."""
    log_q: bool = True
    """Subtract the log of each item's share of the training events: popular items are drawn as negatives more often."""


class BinaryCrossEntropyConfig(Config):
    """-log of the probability that the model gave to what happened."""

    kind: Literal["binary_cross_entropy"] = "binary_cross_entropy"
    positive_weight: PositiveFloat = 1.0
    """What an example of label 1 weighs beside one of label 0. The probabilities that are served and measured allow for
    it.
    """


class FocalConfig(Config):
    """Cross-entropy that counts an example the less, the surer the model is of it (Lin et al., ICCV 2017)."""

    kind: Literal["focal"]
    gamma: NonNegativeFloat = 2.0
    """The loss is multiplied by (1 - probability of what happened)^gamma. The probabilities that are served and
    measured allow for it.
    """


PointwiseLossConfig = Annotated[
    BinaryCrossEntropyConfig | FocalConfig, Field(discriminator="kind"), default_tag("kind", "binary_cross_entropy")
]
