"""Losses and their parameters."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat

from recsys.config.base import Config


class InBatchSoftmaxConfig(Config):
    """Each example's item against the other items of its batch (Yi et al., RecSys 2019)."""

    kind: Literal["in_batch_softmax"] = "in_batch_softmax"
    temperature: PositiveFloat = 0.05
    """Divides the scores, before the correction."""
    log_q: bool = True
    """Subtract the log of each item's share of the training events: popular items are drawn as negatives more often."""
