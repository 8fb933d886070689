"""Who asks: raw features, history and seen items, from the online store, the bundle and the request."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.bundle.bundle import Bundle
from recsys.bundle.columns import PER_SECOND
from recsys.bundle.manifest import SequenceField
from recsys.bundle.requests import RequestEncoder, text_of
from recsys.bundle.users import RAW, UnknownUserError
from recsys.errors import RequestError
from serving.features import FeatureStore, StoredUser, StoreError
from serving.messages import Id
from serving.pipeline.shelf import Rows, Shelf, no_rows
from serving.pipeline.stages import Budget, LateError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Profile:
    """Who asks, as the models read it."""

    user: str | None
    features: Mapping[str, Any]
    """Raw user and context features by name, histories included."""
    seen: Rows = field(default_factory=no_rows)
    """Item indices that the user has met."""
    history: Rows = field(default_factory=no_rows)
    """Item indices of the events that the histories in `features` are of, oldest first; none where those are given."""
    known: bool = True
    """False: nothing is known of whom a model could recommend to."""
    late: bool = False
    """Whether the online store did not answer in time, so that it is the bundle's user."""


@dataclass(frozen=True)
class _Known:
    """A user, as the store or the bundle has it."""

    features: Mapping[str, Any]
    history: Rows
    times: NDArray[np.int64] | None
    """Of the history's events; None where the data have no time."""
    seen: Rows


class Profiles:
    """Makes profiles of users by id, and of raw features.

    Args:
        bundle: whose users are known, and whose features are asked for.
        store: the online store; where it knows a user, its history stands in place of the bundle's, and its features
            come before those.
        budget: for one look into the store.
    """

    def __init__(self, bundle: Bundle, store: FeatureStore | None = None, budget: Budget | None = None) -> None:
        """Raises `BundleError` for users that cannot be read."""
        self._users, self._manifest = bundle.users, bundle.manifest
        self._store, self._budget = store, budget or Budget("features", 1_000, 1)
        own = {name: each for name, each in bundle.manifest.request.items() if each.role == "user"}
        self._sequences = {name for name, each in own.items() if isinstance(each, SequenceField)}
        self._stored = RequestEncoder({name: each for name, each in own.items() if name not in self._sequences})

    def of(self, user: Id | None, given: Mapping[str, Any] | None, time: int | None, shelf: Shelf) -> Profile:
        """The profile of a user, of given raw features, or of both: what is given stands in for what is known.

        Raises:
            RequestError: the id is none, or `time` lies before the user's newest event.
        """
        given = given or {}
        if user is None:
            return Profile(None, given)
        name = text_of(user, "user")
        known, late = self._known(name, shelf)
        if known is None:
            return Profile(name, given, known=bool(given), late=late)
        features = {**known.features, **self._histories(known, given, time, shelf), **given}
        history = no_rows() if self._sequences & given.keys() else known.history
        return Profile(name, features, known.seen, history, late=late)

    def names(self, prefix: str, count: int) -> list[str]:
        """The first users of the bundle whose ids begin so."""
        return self._users.names(count, prefix)

    def history(self, user: Id, shelf: Shelf) -> Rows:
        """Item indices of a user's positive events, the newest first.

        Raises:
            UnknownUserError: neither the store nor the bundle knows the user.
        """
        name = text_of(user, "user")
        known, _ = self._known(name, shelf)
        if known is None:
            raise self.unknown(name)
        return known.history[::-1]

    def unknown(self, user: str) -> UnknownUserError:
        """The error of whoever cannot do without a user."""
        expected = f"one of the {len(self._users)} users of the bundle, or of the online store"
        return UnknownUserError("user", f"no user {user!r}", expected, "send `features` instead")

    def _known(self, user: str, shelf: Shelf) -> tuple[_Known | None, bool]:
        """What is known of a user, if anything, and whether the store was late."""
        bundled, row = None, self._users.find(user)
        if row is not None:
            times = self._users.history_time(row)
            bundled = _Known(self._users.features(row), self._users.history(row), times, self._users.seen(row))
        try:
            stored = self._looked_up(user)
        except (StoreError, LateError):
            return bundled, True
        return (bundled if stored is None else self._overlaid(stored, bundled, shelf)), False

    def _looked_up(self, user: str) -> StoredUser | None:
        store = self._store
        if store is None:
            return None
        found = self._budget.spent_on(lambda: store.get(user))
        if found is not None:
            features = {name: value for name, value in found.features.items() if name in self._stored.inputs}
            try:
                self._stored.check([features], user)
            except RequestError as error:
                _log.warning("the online store's features of a user do not fit the bundle: %s", error)
                raise StoreError("store", str(error)) from error
            found = replace(found, features=features)
        return found

    def _overlaid(self, stored: StoredUser, bundled: _Known | None, shelf: Shelf) -> _Known:
        """Events of items that the catalogue does not have are left out: nothing is known of them."""
        found = shelf.rows.find_all([*stored.history, *stored.seen])
        rows, seen = np.split(found, [len(stored.history)])
        there, seen = rows >= 0, seen[seen >= 0]
        if bundled is None:
            features: Mapping[str, Any] = stored.features
        else:
            features, seen = {**bundled.features, **stored.features}, np.union1d(seen, bundled.seen)
        times = np.array(stored.times, np.int64)[there]
        return _Known(features, rows[there], times, seen)

    def _histories(self, known: _Known, given: Mapping[str, Any], time: int | None, shelf: Shelf) -> dict[str, Any]:
        """Raw sequences and their ages; not those that are given."""
        found: dict[str, Any] = {}
        for name, each in self._manifest.request.items():
            if not isinstance(each, SequenceField) or name in given:
                continue
            newest = known.history[-each.max_length :]
            found[name] = shelf.items[f"{RAW}{each.of}"].take(newest).to_pylist()
            if each.age:
                found[f"{name}.age"] = self._ages(known, time)[-each.max_length :].tolist()
        return found

    def _ages(self, known: _Known, now: int | None) -> NDArray[np.float64]:
        """[length of the history] seconds from each event to `now`, or else to the user's newest event."""
        times, unit = known.times, self._manifest.timestamp_unit
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
