"""What a store of users is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import time_ns
from typing import Any, Literal, Protocol

from recsys.errors import RecsysError

Unit = Literal["s", "ms", "us"]
_NANOSECONDS: dict[Unit | None, int] = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, None: 1_000}
LATEST = 2**53
"""Times lie below it, and above its negative: stores keep them as float64 too."""


class StoreError(RecsysError):
    """The store cannot be reached, or does not answer in time."""


@dataclass(frozen=True)
class StoredUser:
    """What a store knows of a user.

    Attributes:
        features: raw user features by name, as a request carries them; histories are not among them.
        history: item ids of the positive events, oldest first; those of one time by id in code point order, as
            `prepare` has them.
        times: of these events, in the bundle's `timestamp_unit`.
        seen: item ids that the user has met, in no order that counts. Those appended are among them.
    """

    features: Mapping[str, Any] = field(default_factory=dict)
    history: tuple[str, ...] = ()
    times: tuple[int, ...] = ()
    seen: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoadState:
    """The users of which bundle a store has been given, and how many of them: so that a load can go on."""

    users: str
    """SHA-256 of the bundle's `users.parquet`."""
    timestamp_unit: Unit | None
    """Of its times."""
    rows: int
    """So many of its rows are in the store."""


class FeatureStore(Protocol):
    """Users by id, for any number of threads and processes. All methods raise `StoreError` where the store cannot do
    what it is asked for; nothing half done stays.

    An event is (user, item, time): the same event given again changes nothing, so that a caller may try again.
    """

    def get(self, user: str) -> StoredUser | None:
        """What is known of a user; None for one who has never been put or appended to."""

    def append(self, user: str, item: str, time: int) -> None:
        """A positive event; events may come late, and stand by their time all the same. The next `get` sees it.

        Raises:
            ValueError: the time is out of range.
        """

    def put(self, users: Mapping[str, StoredUser]) -> None:
        """Many users. Their features replace what is stored; their events and seen items come to those stored, of
        which the newest are kept.
        """

    def load_state(self) -> LoadState | None:
        """What has been loaded; None for nothing."""

    def set_load_state(self, state: LoadState) -> None:
        """Note what has been loaded."""

    def healthy(self) -> bool:
        """Whether it answers; never raises."""

    def close(self) -> None:
        """End all connections."""


def now(unit: Unit | None) -> int:
    """The present, as times of a store in this unit; microseconds where the data have no time, which is after all that
    is loaded from them (`load`).
    """
    return time_ns() // _NANOSECONDS[unit]


def checked(time: int) -> int:
    """A time that every store can keep, or `ValueError`."""
    if not -LATEST < time < LATEST:
        raise ValueError(f"time {time} is out of range")
    return time


def seen_of(user: StoredUser) -> dict[str, int]:
    """When each seen item was met last; those of no event before all others."""
    met = dict.fromkeys(user.seen, 1 - LATEST)
    return met | dict(zip(user.history, user.times, strict=True))  # rising, so the last time stays


def as_text(features: Mapping[str, Any]) -> str:
    """Raw features as JSON."""
    return json.dumps(features, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
