"""How answers and feedback are kept."""

from __future__ import annotations

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from recsys.config.base import Config


class LogConfig(Config):
    """The log of answers and feedback."""

    folder: str
    """Where it is written; it may be shared by all servers of a fleet."""
    rows: PositiveInt = 10_000
    """A file has at most so many."""
    seconds: PositiveFloat = 60.0
    """A row is in a file after so long, at most; a crash loses what is not in one yet."""
    waiting: PositiveInt = 10_000
    """Rows that wait to be written, at most. Those that find no place are dropped, and counted."""
    patience: NonNegativeFloat = 0.0
    """Seconds that an answer waits for a place before it is dropped from the log."""
