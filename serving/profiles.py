"""Who asks: raw features, history and seen items, from the bundle and from the request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.bundle.bundle import Bundle
from recsys.bundle.columns import PER_SECOND
from recsys.bundle.manifest import SequenceField
from recsys.bundle.requests import text_of
from recsys.bundle.users import RAW
from recsys.errors import RequestError
from serving.messages import Id
from serving.shelf import Shelf

_NONE = np.empty(0, np.int64)


@dataclass(frozen=True)
class Profile:
    """Who asks, as the models read it."""

    user: str | None
    features: Mapping[str, Any]
    """Raw user and context features by name, histories included."""
    seen: NDArray[np.integer]
    """Item indices that the user has met."""


class Profiles:
    """Makes profiles of the users that a bundle knows, and of raw features."""

    def __init__(self, bundle: Bundle) -> None:
        """Raises `BundleError` for users that cannot be read."""
        self._users, self._manifest = bundle.users, bundle.manifest

    def of(self, user: Id | None, given: Mapping[str, Any] | None, time: int | None, shelf: Shelf) -> Profile:
        """The profile of a known user, of given raw features, or of both: what is given stands in for what is known.

        Raises:
            UnknownUserError: the bundle does not know the user.
            RequestError: the id is none, or `time` lies before the user's newest event.
        """
        given = given or {}
        if user is None:
            return Profile(None, given, _NONE)
        name = text_of(user, "user")
        row = self._users.row(name)
        return Profile(name, {**self._known(row, given, time, shelf), **given}, self._users.seen(row))

    def names(self, prefix: str, count: int) -> list[str]:
        """The first known users whose ids begin so."""
        return self._users.names(count, prefix)

    def history(self, user: Id) -> NDArray[np.int32]:
        """Item indices of a known user's positive events, the newest first.

        Raises:
            UnknownUserError: the bundle does not know the user.
        """
        return self._users.history(self._users.row(text_of(user, "user")))[::-1]

    def _known(self, row: int, given: Mapping[str, Any], time: int | None, shelf: Shelf) -> dict[str, Any]:
        """What the bundle knows of a user, as raw features; not a history where one is given."""
        features = self._users.features(row)
        for name, field in self._manifest.request.items():
            if not isinstance(field, SequenceField) or name in given:
                continue
            newest = self._users.history(row)[-field.max_length :]
            features[name] = shelf.items[f"{RAW}{field.of}"].take(newest).to_pylist()
            if field.age:
                features[f"{name}.age"] = self._ages(row, time)[-field.max_length :].tolist()
        return features

    def _ages(self, row: int, now: int | None) -> NDArray[np.float64]:
        """[length of the history] seconds from each event to `now`, or else to the user's newest event."""
        times, unit = self._users.history_time(row), self._manifest.timestamp_unit
        assert times is not None  # the bundle and its manifest allow no ages without time
        assert unit is not None
        if len(times) == 0:
            return np.empty(0)
        newest = int(times.max())
        if now is not None and now < newest:
            raise RequestError(
                "time",
                f"{now}, before the user's newest event",
                f"{newest} or later, in {unit}",
                "leave it out, or send the history as features",
            )
        return ((newest if now is None else now) - times) / PER_SECOND[unit]
