"""What was tried, and what came of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import AwareDatetime, Field, JsonValue, NonNegativeFloat, NonNegativeInt

from recsys.config.base import Config, Many


class TrialRecord(Config):
    """One training."""

    number: NonNegativeInt
    values: dict[str, JsonValue]
    """By parameter."""
    state: Literal["complete", "pruned", "failed"]
    """`pruned`: ended early; `failed`: the values do not fit together, or the loss was not finite."""
    quality: float | None
    """The best epoch's validation metric."""
    epochs: NonNegativeInt = 0
    seconds: NonNegativeFloat = 0.0
    """Of the training, over all restarts."""
    error: str = ""
    """Why it failed."""


class TuningRecord(Config):
    """`tuning.json`."""

    format: Literal[1] = 1
    name: str
    created: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    config_digest: str
    """Of the experiment as it stands."""
    data_digest: str
    monitor: str
    """The metric of the validation part that is raised."""
    trials: Many[TrialRecord]
    """Number 0 is the experiment as it stands."""
    best: NonNegativeInt
    """The trial of highest quality."""
    importance: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    """By parameter, the largest first; they sum to 1 (PED-ANOVA, Watanabe et al., IJCAI 2023). None from few trials."""
    changed: dict[str, JsonValue] = Field(default_factory=dict)
    """What the best trial has that the experiment has not, by key."""
