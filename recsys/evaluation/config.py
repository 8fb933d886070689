"""What is measured, and which of it decides when to stop."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from recsys.config.base import Config, Many

METRICS = ("recall", "precision", "hit_rate", "ndcg", "mrr", "map")
"""Ranking metrics of each user, at every cut-off."""


class EvaluationConfig(Config):
    """Full-catalogue ranking: every item is a candidate but for those that the user has already had."""

    ks: Annotated[Many[PositiveInt], Field(min_length=1)] = (10, 50, 100)
    """Cut-offs, rising."""
    monitor: str = "ndcg@10"
    """The validation metric that early stopping and the choice of the best checkpoint look at, as METRIC@K."""
    users_per_block: PositiveInt = 4_096
    """Users ranked at once: bounds the memory."""

    @field_validator("ks")
    @classmethod
    def _rising(cls, ks: tuple[int, ...]) -> tuple[int, ...]:
        if list(ks) != sorted(set(ks)):
            raise ValueError(f"cut-offs must rise, as {sorted(set(ks))} do")
        return ks

    @model_validator(mode="after")
    def _monitors_what_it_measures(self) -> Self:
        known = [f"{metric}@{k}" for metric in METRICS for k in self.ks]
        if self.monitor not in known:
            raise ValueError(f"monitor is {self.monitor!r}; with these ks it can be {', '.join(known)}")
        return self
