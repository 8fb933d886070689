"""What was tried, what came of it, and which of it keeps the promise."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

import numpy as np
from pydantic import AwareDatetime, Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from scipy import stats

from recsys.config.base import Config, Many
from recsys.errors import SearchError
from recsys.search.config import CONTROLS

EQUAL = 1.01
"""Plans that fit a budget differ by some bytes: a control that is so much larger than a search is still of its size."""
FULL = "full"
"""The method that changes nothing."""


class Trained(Config):
    """One training of a trial."""

    seed: NonNegativeInt
    valid: dict[str, float]
    """Metrics of the validation part, of the rows as they are served: what chooses."""
    test: dict[str, float]
    """Those of the test part: what is reported."""
    seconds: NonNegativeFloat


class Trial(Config):
    """A way to make the tables smaller, and what it cost in quality."""

    name: str
    method: str
    """A kind of `search.methods`, or `full`."""
    budget: PositiveInt | None = None
    """Bytes that it was to keep to."""
    bytes: PositiveInt
    """Of the searched tables as a bundle holds them, indices included."""
    plan: str | None = None
    """The plan's folder, relative to the search's; None for what is no plan."""
    trained: Many[Trained] = ()
    """By seed."""

    def mean(self, metric: str, part: Literal["valid", "test"] = "valid") -> float:
        """Over the seeds."""
        return float(np.mean(self.values(metric, part)))

    def values(self, metric: str, part: Literal["valid", "test"] = "valid") -> list[float]:
        """By seed."""
        return [getattr(each, part)[metric] for each in self.trained]

    def margin(self, metric: str, part: Literal["valid", "test"] = "test") -> float | None:
        """Half the 95% interval around the mean over seeds (Student's t); None for one seed."""
        values = self.values(metric, part)
        if len(values) < 2:
            return None
        return float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))


class Promise(Config):
    """What the plan that is looked for has to keep: one of the two."""

    budget: PositiveInt | None = None
    """Bytes at most."""
    max_loss: NonNegativeFloat | None = None
    """Of the monitored metric against the full model, at most."""


class Verdict(Config):
    """A search against the best control of about its size."""

    search: str
    control: str
    difference: float
    """Of the monitored metric on the test part, paired by seed: the search minus the control."""
    margin: float | None
    """Half the 95% interval; None for one seed."""

    @property
    def beats(self) -> bool:
        """Whether the search is better, beyond doubt where there are seeds to tell."""
        return self.difference > (self.margin or 0.0)


class SearchRecord(Config):
    """`search.json`."""

    format: Literal[1] = 1
    name: str
    created: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    config_digest: str
    data_digest: str
    monitor: str
    promise: Promise
    full_bytes: PositiveInt
    trials: Many[Trial]
    front: Many[str]
    """Names of the trials that none beats in bytes and validation quality, from the smallest on."""
    verdicts: Many[Verdict]
    unreachable: dict[str, str] = Field(default_factory=dict)
    """Trials that cannot be had, and why."""
    training_seconds: NonNegativeFloat
    """Of one training of the full model: the unit of the costs."""
    cost: dict[str, NonNegativeFloat]
    """By method, what its search and its trainings took, in trainings of the full model."""
    chosen: str | None = None
    """The trial that keeps the promise best; None if none does."""

    @property
    def beside(self) -> list[str]:
        """What is told beside the monitored metric: a ranker's logloss, the first recall of a two_tower."""
        measured = self.trials[0].trained[0].test
        names = [name for name in measured if name == "logloss" or name.startswith("recall@")]
        return [name for name in names[:1] if name != self.monitor]


def front(trials: Sequence[Trial], metric: str) -> list[Trial]:
    """Those that no other beats in bytes and validation quality, from the smallest on."""
    found, best = list[Trial](), -np.inf
    for trial in sorted(trials, key=lambda each: (each.bytes, -each.mean(metric))):
        if trial.mean(metric) > best:
            best = trial.mean(metric)
            found.append(trial)
    return found


def choose(trials: Sequence[Trial], metric: str, promise: Promise) -> Trial:
    """The best plan within the budget, or the smallest within the loss; by validation alone.

    Raises:
        SearchError: no plan keeps the promise; it says what comes nearest.
    """
    plans = [trial for trial in trials if trial.plan is not None]
    (full,) = (trial.mean(metric) for trial in trials if trial.method == FULL)
    if promise.budget is not None:
        fitting = [trial for trial in plans if trial.bytes <= promise.budget]
        if fitting:
            return max(fitting, key=lambda each: (each.mean(metric), -each.bytes))
        nearest = min((trial.bytes for trial in plans), default=0)
        raise SearchError("--budget", f"{promise.budget:,} bytes", f"{nearest:,}, the smallest plan found", "raise it")
    assert promise.max_loss is not None
    keeping = [trial for trial in plans if full - trial.mean(metric) <= promise.max_loss]
    if keeping:
        return min(keeping, key=lambda each: (each.bytes, -each.mean(metric)))
    nearest_loss = min((full - trial.mean(metric) for trial in plans), default=full)
    found = f"every plan loses at least {nearest_loss:.5f} of {metric}"
    raise SearchError("--max-loss", found, f"{promise.max_loss:g}", "allow more, or larger search.sizes")


def verdicts(trials: Sequence[Trial], metric: str) -> list[Verdict]:
    """Each search's trials against the control that validated best, of those no more than 1% larger than they are."""
    found = []
    controls = [trial for trial in trials if trial.method in CONTROLS]
    for trial in trials:
        rivals = [each for each in controls if each.bytes <= EQUAL * trial.bytes]
        if trial.method in CONTROLS or trial.method == FULL or not rivals:
            continue
        rival = max(rivals, key=lambda each: each.mean(metric))
        paired = np.subtract(trial.values(metric, "test"), rival.values(metric, "test"))
        margin = None
        if len(paired) > 1:
            margin = float(stats.t.ppf(0.975, len(paired) - 1) * np.std(paired, ddof=1) / np.sqrt(len(paired)))
        found.append(Verdict(search=trial.name, control=rival.name, difference=float(paired.mean()), margin=margin))
    return found
