"""What a backtest found: `backtest.json` of its folder."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import AwareDatetime, Field, NonNegativeInt

from recsys.config.base import Config, Many
from recsys.evaluation.comparison import Difference
from recsys.evaluation.record import Metrics, Ranges

BACKTEST = "backtest.json"


class WindowRecord(Config):
    """One window."""

    name: str
    """Of its run directory."""
    first: int
    """Time of the first event of the test part, in `timestamp_unit`."""
    last: int
    """Time of its last event."""
    users: NonNegativeInt
    """Users who were evaluated."""
    metrics: dict[str, Metrics]
    """`model`, `popularity`, ... -> metric -> value."""
    warnings: Many[str] = ()
    """What makes the numbers doubtful."""


class BacktestRecord(Config):
    """`backtest.json`."""

    format: Literal[1] = 1
    name: str
    created: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    """ISO 8601, in UTC."""
    config_digest: str
    """Of the experiment whose windows these are."""
    data_digest: str
    """Of the windows' prepared data."""
    warm_start: bool
    """Whether each window started with the weights of the one before."""
    monitor: str
    timestamp_unit: Literal["s", "ms", "us"]
    windows: Many[WindowRecord]
    """Oldest first."""
    ranges: dict[str, Ranges]
    """`model`, `popularity`, ... -> metrics over all windows; a user counts once for each window they are in."""
    differences: Many[Difference]
    """The model against its baselines, over all windows."""
