"""What a prepared folder tells of the future: histories, splits and copies here; statistics and features beside.

A number measured on such data is too good, and nothing about it looks wrong. So every kind of leak is looked for before
anything is measured. Each is a condition on the rows of a part, or a number counted again. `prepare` makes none of the
first three kinds; they come from its faults, or from folders that something else wrote. Copies come from the raw log,
and features that know the future come from the tables of users and items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.data.dataset import HISTORIES_OF_TRAINING, PARTS, STAGES, Part
from recsys.data.prepared import Prepared
from recsys.errors import DataError, Problem
from recsys.evaluation.leaked_features import feature_leaks
from recsys.evaluation.leaked_statistics import PREPARE_AGAIN, statistic_leaks
from recsys.evaluation.shards import Rows, event_users, logged, shards

NO_TIME = np.iinfo(np.int64).max
"""Later than every time: of users without a later example."""


def find_leaks(prepared: Prepared) -> list[Problem]:
    """Everything in a prepared folder that tells of the future; nothing, if all is well.

    1. a history with an event at or after the example's time, of another user, or (where the split says so) of a part
       that is not for training;
    2. a history with the very event that is to be predicted;
    3. a part with examples that the split puts elsewhere;
    4. a held-out example that is a copy of a training one;
    5. a count, a vocabulary, a mean or a quantile that is not that of the training part alone;
    6. a feature that follows a statistic of the whole log and not that of the part known in training.

    Example files are read a row group at a time; the events, and a few numbers per user and item, are in memory.
    """
    return [*_example_leaks(prepared), *statistic_leaks(prepared), *feature_leaks(prepared)]


def refuse_leaks(prepared: Prepared, leakage: Literal["refuse", "warn"]) -> tuple[str, ...]:
    """What `find_leaks` finds, in words, where the config says warn.

    Raises:
        DataError: it finds anything, and the config says refuse.
    """
    leaks = find_leaks(prepared)
    if leaks and leakage == "refuse":
        raise DataError(leaks)
    return tuple(map(str, leaks))


def _example_leaks(prepared: Prepared) -> Iterator[Problem]:
    log = _Log(prepared)
    # Of an event that does not say whose it is, or of what, nobody can tell a copy from another that is alike.
    copies = _Copies(prepared) if prepared.info.table_schema.has_histories else None
    for part in PARTS:
        checks = [*_history_checks(prepared, log), *_split_checks(prepared, part)]
        if copies is not None and part != "train":
            checks.append(copies.check())
        yield from _count(prepared, part, checks)


@dataclass(frozen=True)
class _Check:
    """A condition on the rows of a part."""

    wrong: Callable[[Rows], NDArray[np.bool_]]
    found: str
    """What wrong examples do: said after their number."""
    expected: str
    cure: str
    columns: tuple[str, ...] = ()
    """What it reads beside the users, items, times and histories."""


def _count(prepared: Prepared, part: Part, checks: Sequence[_Check]) -> Iterator[Problem]:
    """One pass over a part for all conditions: how many examples are wrong, and the first of them."""
    found = dict.fromkeys(checks, 0)
    first: dict[_Check, str] = {}
    columns = [*_own(prepared), "history_stop"]
    columns += [name for check in checks for name in check.columns if name not in columns]
    for rows in shards(prepared, part, columns):
        for check in found:
            wrong = np.flatnonzero(check.wrong(rows))
            found[check] += len(wrong)
            if len(wrong):
                first.setdefault(check, _said(prepared, rows, int(wrong[0])))
    for check, count in found.items():
        if count:
            yield Problem(
                f"{prepared.info.name}: {part}",
                f"{count} of {getattr(prepared.info.counts, part)} examples {check.found} (such as {first[check]})",
                check.expected,
                check.cure,
            )


def _own(prepared: Prepared) -> list[str]:
    """What names an event."""
    named = [f"{entity}_index" for entity in prepared.info.table_schema.ids]
    return [*named, *(["time"] if prepared.info.has_time else [])]


def _said(prepared: Prepared, rows: Rows, row: int) -> str:
    tables = {"user": prepared.users, "item": prepared.items}
    said = [
        f"{entity} {tables[entity][entity][int(rows[f'{entity}_index'][row])].as_py()!r}"
        for entity in prepared.info.table_schema.ids
    ]
    said += [f"time {rows['time'][row]}"] if "time" in rows else []
    return ", ".join(said) or f"with {rows['history_stop'][row]} events"


# Histories


class _Log:
    """The positive events of all users, and what the slice of a history holds of them.

    A history is `events[start:stop]`; all arguments are parallel arrays, of sound slices.
    """

    def __init__(self, prepared: Prepared) -> None:
        self._events = prepared.events
        self._start = prepared.event_start
        self._owner = event_users(prepared)

    def sliced(self, rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where each example's history begins and ends; empty where the slice is not the user's own."""
        start, stop = self._start[rows["user_index"]], rows["history_stop"]
        start = np.clip(start, 0, len(self._owner))
        return start, np.where(self.is_foreign(rows), start, stop)

    def is_foreign(self, rows: Rows) -> NDArray[np.bool_]:
        """Whether the slice reaches beyond the user's own events, which stand side by side."""
        user, start, stop = rows["user_index"], self._start[rows["user_index"]], rows["history_stop"]
        total = len(self._owner)
        outside = (start < 0) | (stop < start) | (stop > total)
        if total == 0:
            return outside
        ends = (np.clip(start, 0, total - 1), np.clip(stop - 1, 0, total - 1))
        return outside | ((stop > start) & ((self._owner[ends[0]] != user) | (self._owner[ends[1]] != user)))

    def holds_late(self, rows: Rows) -> NDArray[np.bool_]:
        """Whether the history holds an event, other than the example's own, at or after the example's time."""
        late, others, _ = self._late(rows)
        late[late] = others
        return late

    def holds_own(self, rows: Rows) -> NDArray[np.bool_]:
        """Whether the history holds the example's own event: the same item at the same time."""
        late, _, own = self._late(rows)
        late[late] = own
        return late

    def holds_untrained(self, rows: Rows) -> NDArray[np.bool_]:
        """Whether the history holds an event that is not of the training part."""
        start, stop = self.sliced(rows)
        return self._untrained[stop] > self._untrained[start]

    def _late(self, rows: Rows) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        """Which histories reach the example's time; of those, which do so by other events, and which by its own."""
        time = self._events.time
        assert time is not None
        start, stop = self.sliced(rows)
        late = stop > start
        late[late] = self._latest[stop[late] - 1] >= rows["time"][late]
        start, stop, now, item = (column[late] for column in (start, stop, rows["time"], rows["item_index"]))
        first = _first_at_least(time, start, stop, now)
        after = _first_at_least(time, first, stop, now + 1)
        # The events of that very moment, one by one: few, as long as times are fine.
        row = np.repeat(np.arange(len(now)), after - first)
        event = np.arange(len(row)) - np.repeat(np.cumsum(after - first) - (after - first), after - first) + first[row]
        own = np.bincount(row[self._events.item_index[event] == item[row]], minlength=len(now))
        # Where an event stands out of order, the places found may be wrong; the latest time is not.
        return late, (self._latest[stop - 1] > now) | (own == 0) | (stop - first > own), own > 0

    @cached_property
    def _latest(self) -> NDArray[np.int64]:
        """At each event, the latest time of the user's events so far."""
        return pd.Series(self._events.time).groupby(self._owner).cummax().to_numpy()

    @cached_property
    def _untrained(self) -> NDArray[np.int64]:
        """[events + 1] how many events before each one are not of the training part."""
        return np.concatenate([[0], np.cumsum(self._events.stage != STAGES["train"])])


def _first_at_least(
    column: NDArray[np.int64], low: NDArray[np.int64], high: NDArray[np.int64], least: NDArray[np.int64]
) -> NDArray[np.int64]:
    """In each slice `column[low:high]`, which rises, the place of the first value that is not below `least`."""
    low, high = low.copy(), high.copy()
    while np.any(low < high):
        middle = (low + high) // 2
        right = (low < high) & (column[np.minimum(middle, len(column) - 1)] < least)
        low, high = np.where(right, middle + 1, low), np.where(right | (low == high), high, middle)
    return low


def _history_checks(prepared: Prepared, log: _Log) -> Iterator[_Check]:
    if not prepared.info.table_schema.has_histories:
        yield _Check(
            lambda rows: rows["history_stop"] != 0,
            "have a history, although the log does not name both users and items",
            "empty histories",
            PREPARE_AGAIN,
        )
        return
    yield _Check(
        log.is_foreign,
        "have a history that reaches beyond the user's own events",
        "events[event_start:history_stop] within the user's events",
        PREPARE_AGAIN,
    )
    if not prepared.info.has_time:
        yield _Check(
            lambda rows: ~log.is_foreign(rows) & (rows["history_stop"] > log.sliced(rows)[0]),
            "have a history, although without times nothing is known to be earlier",
            "empty histories",
            PREPARE_AGAIN,
        )
        return
    yield _Check(
        log.holds_late,
        "have a history with an event at or after their own time",
        "events strictly earlier in time",
        PREPARE_AGAIN,
    )
    yield _Check(
        log.holds_own,
        "have a history with the very event that is to be predicted",
        "events strictly earlier in time",
        PREPARE_AGAIN,
    )
    if prepared.info.split in HISTORIES_OF_TRAINING:
        yield _Check(
            log.holds_untrained,
            f"have a history with a held-out event, after a {prepared.info.split} split",
            "events of the training part",
            PREPARE_AGAIN,
        )


# Splits


class _Later:
    """What the later parts hold: of each user and item whether it is there, and the first time."""

    def __init__(self, prepared: Prepared, parts: tuple[Part, ...]) -> None:
        self.names = " and ".join(parts)
        self.users = np.zeros(prepared.info.counts.users, bool)
        self.items = np.zeros(prepared.info.counts.items, bool)
        self.first_of_user = np.full(prepared.info.counts.users, NO_TIME)
        self.first = int(NO_TIME)
        for rows in (rows for part in parts for rows in shards(prepared, part, _own(prepared))):
            for entity, there in (("user", self.users), ("item", self.items)):
                if entity in prepared.info.table_schema.ids:
                    there[rows[f"{entity}_index"]] = True
            if prepared.info.has_time:
                self.first = min(self.first, int(rows["time"].min()))
            if prepared.info.has_time and "user_index" in rows:
                np.minimum.at(self.first_of_user, rows["user_index"], rows["time"])


def _split_checks(prepared: Prepared, part: Part) -> Iterator[_Check]:
    later = _Later(prepared, PARTS[PARTS.index(part) + 1 :])
    match prepared.info.split:
        case "temporal":
            yield _Check(
                lambda rows: rows["time"] >= later.first,
                f"are not earlier than the first example of {later.names}, at {later.first}",
                "one moment that parts them",
                PREPARE_AGAIN,
            )
        case "leave_last_out":
            # Ties are broken by item text and digest; an example of the same moment may stand on either side.
            yield _Check(
                lambda rows: rows["time"] > later.first_of_user[rows["user_index"]],
                f"are later than the same user's example in {later.names}",
                "each user's last events held out",
                PREPARE_AGAIN,
            )
        case "by_user" | "cold_users":
            yield _Check(
                lambda rows: later.users[rows["user_index"]],
                f"are of users who are held out in {later.names}",
                "users in one part only",
                PREPARE_AGAIN,
            )
        case "cold_items":
            yield _Check(
                lambda rows: later.items[rows["item_index"]],
                f"are of items that are held out in {later.names}",
                "items in one part only",
                PREPARE_AGAIN,
            )


# Copies


class _Copies:
    """Held-out examples that stand in training, too: compared by user, item and time, or for want of times by all that
    the model could tell them apart by.

    Sampled negatives may meet by chance, and tell nothing.

    Rows are compared by digests of 64 bits: 20 million and 2 million rows meet by chance in one data set of 400,000.
    """

    def __init__(self, prepared: Prepared) -> None:
        self._has_time = prepared.info.has_time
        self._with_negatives = prepared.info.sampled_negatives is None
        context = [name for name, info in prepared.info.features.items() if info.role == "context"]
        self._key = [*_own(prepared), *([] if self._has_time else context)]
        held_out = (rows for part in PARTS[1:] for rows in logged(prepared, part, self._key))
        self._held_out = pd.Index(np.concatenate([_digests(rows, self._key) for rows in held_out])).unique()
        self._trained = np.zeros(len(self._held_out), bool)
        for rows in logged(prepared, "train", self._key):
            place = self._held_out.get_indexer(_digests(rows, self._key))
            self._trained[place[place >= 0]] = True

    def check(self) -> _Check:
        """Of the examples of a held-out part."""
        context = [] if self._has_time else self._key[2:]
        same = "user, item and time" if self._has_time else ", ".join(["user", "item", *context])
        telling = "" if self._has_time else ", or give the model what tells them apart (times, context features)"
        return _Check(
            self._are_trained,
            f"are copies of training examples, of the same {same}",
            "every event once",
            f"drop the copies from the event log{telling}",
            ("label", *context),
        )

    def _are_trained(self, rows: Rows) -> NDArray[np.bool_]:
        place = self._held_out.get_indexer(_digests(rows, self._key))
        events = (rows["label"] > 0) | self._with_negatives
        return events & (place >= 0) & self._trained[place]


def _digests(rows: Rows, key: list[str]) -> NDArray[np.uint64]:
    """One number for each row of these columns."""
    columns = {f"{name} {at}": column for name in key for at, column in enumerate(np.atleast_2d(rows[name].T))}
    return np.asarray(pd.util.hash_pandas_object(pd.DataFrame(columns), index=False), np.uint64)
