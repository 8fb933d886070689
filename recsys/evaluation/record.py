"""The run record: everything that was measured, and everything needed to measure it again. `metrics.json` of a run."""

from __future__ import annotations

import os
import platform
import resource
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import AwareDatetime, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from recsys._versions import installed
from recsys.config.base import Config, Many
from recsys.errors import DataError, Problem
from recsys.evaluation.comparison import Difference
from recsys.evaluation.off_policy import OffPolicyRecord
from recsys.files import write_text
from recsys.metrics import Calibration

DISTRIBUTIONS = (
    "recsys",
    "tensorflow",
    "tf-keras",
    "tensorflow-recommenders",
    "scann",
    "numpy",
    "pyarrow",
    "duckdb",
    "ibis-framework",
)
Metrics = dict[str, float]


class Environment(Config):
    """The machine and the libraries of a run."""

    python: str
    platform: str
    cores: PositiveInt
    """Cores that the process may use."""
    memory_gib: PositiveFloat
    versions: dict[str, str]
    """Of each distribution that is installed."""

    @classmethod
    def here(cls) -> Self:
        """This process's environment; imports none of the libraries."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return cls(
            python=platform.python_version(),
            platform=platform.platform(),
            cores=len(os.sched_getaffinity(0)),
            memory_gib=round(memory / 2**30, 2),
            versions={name: version for name in DISTRIBUTIONS if (version := installed(name))},
        )


def peak_memory_mib() -> float:
    """The most memory that this process has held so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in KiB


class Cost(Config):
    """What a run took."""

    seconds: dict[str, NonNegativeFloat]
    """Wall-clock by stage: prepare, train, evaluate."""
    peak_memory_mib: NonNegativeFloat
    """Peak resident memory of the process."""


class Range(Config):
    """A metric and where its true value may lie: its 95% interval over users."""

    value: float
    low: float
    high: float
    users: NonNegativeInt
    """How many count."""


Ranges = dict[str, Range]
"""Metric -> its range."""


class SliceRecord(Config):
    """One slice."""

    by: str
    """What was sliced by: `item_frequency`, `user_activity`, `returning`, or a feature."""
    name: str
    """Which slice."""
    users: NonNegativeInt
    """Users with anything in it."""
    small: bool
    """Whether they are fewer than `evaluation.small_slice`."""
    metrics: dict[str, Ranges]
    """`model` and each baseline."""


class CalibrationRecord(Config):
    """A calibration curve: bins of predictions, rising."""

    predicted: Many[float]
    """Weighted mean prediction of each bin."""
    observed: Many[float]
    """Weighted share of label 1."""
    weight: Many[float]

    @classmethod
    def of(cls, curve: Calibration) -> Self:
        """Of a computed curve."""
        predicted, observed, weight = (each.tolist() for each in (curve.predicted, curve.observed, curve.weight))
        return cls(predicted=tuple(predicted), observed=tuple(observed), weight=tuple(weight))


class RunRecord(Config):
    """`metrics.json`."""

    format: Literal[1] = 1
    name: str
    created: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    """ISO 8601, in UTC."""
    config_digest: str
    data_digest: str
    seed: NonNegativeInt
    environment: Environment
    metrics: dict[str, Metrics]
    """`model`, `popularity`, ... -> metric -> value."""
    counts: dict[str, NonNegativeInt]
    """Users evaluated, users left out, items, training examples, parameters, bytes, ..."""
    cost: Cost
    warnings: Many[str] = ()
    """What makes the numbers doubtful."""
    ranges: dict[str, Ranges] = Field(default_factory=dict)
    """`model`, `popularity`, ... -> metrics that are means over users."""
    slices: Many[SliceRecord] = ()
    differences: Many[Difference] = ()
    """The model against each baseline and the champion."""
    calibration: CalibrationRecord | None = None
    """Of a ranker."""
    history: Many[Metrics] = ()
    """The logs of each epoch: `loss`, a ranker's `auc` and `logloss` in training, `val_*` of validations."""
    off_policy: dict[str, OffPolicyRecord] = Field(default_factory=dict)
    """Where the log tells propensities: what the model, and popularity, would have earned."""

    def write(self, path: Path) -> None:
        """Write to `path`, whole or not at all."""
        write_text(path, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """The record at `path`.

        Raises:
            DataError: there is none, or it does not hold what a record holds; one problem for each field.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise DataError(
                str(path), f"cannot be read ({error.strerror})", "a run record", "evaluate the run"
            ) from error
        except ValidationError as error:
            raise DataError(
                Problem(
                    f"{path}: {'.'.join(map(str, each['loc'])) or 'file'}", each["msg"], cure="evaluate the run again"
                )
                for each in error.errors()
            ) from error
