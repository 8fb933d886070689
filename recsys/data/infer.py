"""A schema from files that nobody has described: names, types, counts and what is constant per user or item."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Literal

from recsys.data import names
from recsys.data.config import LeaveLastOut, RandomSplit, Rule, Split, TemporalSplit
from recsys.data.profile import Column, Tables, opened
from recsys.data.source import Role as TableRole
from recsys.data.source import SourceFiles, place
from recsys.errors import Problem, SchemaError
from recsys.schema.config import (
    RESERVED,
    Categorical,
    Feature,
    MultiValued,
    Numeric,
    Role,
    SchemaConfig,
    Sequence,
    Vector,
)

FEW = 50
"""Integers with at most this many different values are taken as codes."""
FREE_TEXT = 40
"""Text that is longer on average (characters) is no category."""


@dataclass(frozen=True)
class Inference:
    """A guess that a person should read: `notes` say what was left out, and why."""

    table_schema: SchemaConfig
    split: Split
    positives: Rule | None
    events: int
    """Rows of the event log."""
    notes: tuple[str, ...]


def infer(
    source: SourceFiles, user: str | None = None, item: str | None = None, timestamp: str | None = None
) -> Inference:
    """The schema that fits the files; `user`, `item` and `timestamp` name columns of the event log where a guess fails.

    Raises:
        DataError: a file is missing or unreadable.
        SchemaError: the user or item column can't be told, or a named column isn't there or can't be what it is named.
    """
    with opened(source) as tables:
        return _Inferring(source, tables).infer(user, item, timestamp)


@dataclass
class _Clock:
    column: str
    unit: Literal["s", "ms", "us"]
    is_ordinal: bool = False


@dataclass
class _Inferring:
    source: SourceFiles
    tables: Tables
    notes: dict[str, str] = field(default_factory=dict)
    """By column: the first thing to be said of it."""

    @property
    def events(self) -> dict[str, Column]:
        return self.tables.columns["events"]

    def infer(self, user: str | None, item: str | None, timestamp: str | None) -> Inference:
        user, item = self._ids(user, item)
        clock = self._clock(timestamp, {user, item})
        self._check_tables(user, item)
        used = {user, item} | ({clock.column} if clock else set())
        positives = self._positives(used)
        if positives is not None:
            used.add(positives.column)
        title, features = self._features(user, item, used)
        if clock is not None:
            history = _free_name("history", "user", features)
            features[history] = Sequence(kind="sequence", of=_id_feature(features, item, "item"))
        schema = SchemaConfig(
            user=user,
            item=item,
            timestamp=clock.column if clock else None,
            timestamp_unit=clock.unit if clock else "s",
            title=title,
            features=features,
        )
        events = next(iter(self.events.values())).rows
        notes = [f"{name}: {note}" for name, note in self.notes.items()]
        if clock is None:
            notes.insert(0, "no column tells the time: a random split and no histories (name one: --timestamp COLUMN)")
        return Inference(schema, _split(clock), positives, events, tuple(notes))

    def _ids(self, user: str | None, item: str | None) -> tuple[str, str]:
        """The columns that name user and item: given, or the ones whose names say so most surely."""
        where, seen = place(self.source.events), ", ".join(self.events)
        problems, found = [], {}
        for option, given, entity in (("user", user, names.USER), ("item", item, names.ITEM)):
            sure = {
                name: names.identifies(name, entity)
                for name, column in self.events.items()
                if column.kind in ("text", "integer", "boolean") and column.distinct > 1
            }
            best = max(sure, key=lambda name: sure[name], default="")
            if given is not None:
                problems += self._unfit(given, option, ("text", "integer"))
                found[option] = given
            elif sure.get(best, 0.0) > 0:
                found[option] = best
            else:
                problems.append(
                    Problem(
                        where,
                        f"no column that names the {option} (columns: {seen})",
                        cure=f"name it: --{option} COLUMN; a log that names none needs a YAML by hand, with "
                        f"schema.{option}: null",
                    )
                )
        if not problems and found["user"] == found["item"]:
            problems.append(Problem(where, f"column {found['user']!r} cannot name both the user and the item"))
        if problems:
            raise SchemaError(problems)
        return found["user"], found["item"]

    def _unfit(self, name: str, option: str, kinds: tuple[str, ...]) -> list[Problem]:
        """What is wrong with a column that the caller has named."""
        if name not in self.events:
            return [Problem(f"--{option}", f"no column {name!r}", f"one of {', '.join(self.events)}")]
        column = self.events[name]
        if column.kind not in kinds and not (column.stored == "VARCHAR" and option != "timestamp"):
            wanted = " or ".join(_SAID.get(kind, kind) for kind in kinds)
            return [Problem(f"--{option}", f"column {name!r} is {column.stored}", wanted, "convert the column")]
        if option == "timestamp" and (lacking := _lacking(column)):
            return [Problem(f"--{option}", f"column {name!r}: {lacking}", "a time in every row", "drop these rows")]
        return []

    def _clock(self, given: str | None, ids: set[str]) -> _Clock | None:
        """The event's time, and its unit by the size of its numbers."""
        if given is not None:
            if problems := self._unfit(given, "timestamp", ("integer", "float", "time")):
                raise SchemaError(problems)
            return self._read_clock(self.events[given]) or self._order(given)
        sure = {name: names.clock(name) for name in self.events if name not in ids}
        for name in sorted(sure, key=lambda name: -sure[name]):
            if sure[name] > 0 and (clock := self._read_clock(self.events[name])):
                return clock
        for name, column in self.events.items():
            if name not in ids and column.kind == "integer" and names.says(name, names.ORDINAL):
                return self._order(name)
        return None

    def _order(self, name: str) -> _Clock:
        self.notes[name] = "taken as the order of a user's events; it is no clock"
        return _Clock(name, "s", is_ordinal=True)

    def _read_clock(self, column: Column) -> _Clock | None:
        """The column as the time, or None with a note."""
        reason = _lacking(column)
        if not reason:
            unit = "s" if column.kind == "time" else _unit(column)
            if unit is not None:
                return _Clock(column.name, unit)
            reason = _NO_TIME if column.kind == "text" else _NO_EPOCH
        self.notes[column.name] = f"not taken as the time, {reason}"
        return None

    def _check_tables(self, user: str, item: str) -> None:
        """The items and users tables name their rows as the event log does."""
        pairs: tuple[tuple[TableRole, str], ...] = (("items", item), ("users", user))
        problems = [
            Problem(
                place(getattr(self.source, table)),
                f"no column {key!r} (columns: {', '.join(self.tables.columns[table])})",
                "the column that the event log has",
                "rename the column in one of the files",
            )
            for table, key in pairs
            if table in self.tables.columns and key not in self.tables.columns[table]
        ]
        if problems:
            raise SchemaError(problems)

    def _positives(self, used: set[str]) -> Rule | None:
        """The rule for positive events: a label that is 1, or a rating in the upper quarter of its scale."""
        for name, column in self.events.items():
            if name in used or column.low is None or column.high is None or column.low == column.high:
                continue
            if names.says(name, names.LABEL) and column.low == 0 and column.high == 1:
                return Rule(column=name, at_least=1.0)
            if names.says(name, names.RATING):
                threshold = column.low + 0.75 * (column.high - column.low)
                return Rule(column=name, at_least=float(math.ceil(threshold)) if column.high > 1 else threshold)
        return None

    def _features(self, user: str, item: str, used: set[str]) -> tuple[str | None, dict[str, Feature]]:
        """All features, ids first, and the item's title."""
        features: dict[str, Feature] = {}
        keys: tuple[tuple[Role, str], ...] = (("user", user), ("item", item))
        for role, key in keys:
            name = _free_name(key, role, features)
            features[name] = Categorical(kind="categorical", role=role, column=None if name == key else key)
        title = None
        seen: set[tuple[Role, str]] = set()
        for role, column, rows in self._described(user, item, used):
            if (role, column.name) in seen:
                continue
            seen.add((role, column.name))
            if role == "item" and title is None and column.kind == "text" and names.words(column.name)[-1:] in _TITLES:
                title = column.name
                continue
            feature = self._feature(role, column, rows)
            if feature is not None:
                name = _free_name(column.name, role, features)
                features[name] = feature if name == column.name else feature.model_copy(update={"column": column.name})
        return title, features

    def _described(self, user: str, item: str, used: set[str]) -> list[tuple[Role, Column, int]]:
        """Every other column, with whom it describes and how many of those there are."""
        per_item, per_user = self.tables.constant_per(item), self.tables.constant_per(user)
        found: list[tuple[Role, Column, int]] = []
        for table, role, key in (("users", "user", user), ("items", "item", item)):
            columns = self.tables.columns.get(table, {})  # type: ignore[call-overload]
            found += [(role, column, column.rows) for name, column in columns.items() if name != key]  # type: ignore[misc]
        for name, column in self.events.items():
            if name in used:
                continue
            if name in per_item and column.distinct > 1:
                found.append(("item", column, self.events[item].distinct))
            elif name in per_user and column.distinct > 1:
                found.append(("user", column, self.events[user].distinct))
            elif names.AFTERWARDS.intersection(names.words(name)) or names.says(name, names.RATING | names.LABEL):
                self.notes.setdefault(name, "left out, it looks like a result of the event, unknown beforehand")
            else:
                found.append(("context", column, column.rows))
        return found

    def _feature(self, role: Role, column: Column, rows: int) -> Feature | None:
        """The feature that a column holds, or None with a note."""
        rows = min(rows, column.filled)
        many = column.distinct > max(1_000, 0.1 * rows) if role == "context" else column.distinct > 0.9 * rows > 18
        is_code = bool(names.CODE.intersection(names.words(column.name)))
        reason = ""
        match column.kind:
            case _ if column.distinct < 2 and column.kind not in ("list", "vector"):
                reason = "one value in all rows" if column.filled else "empty"
            case _ if _is_time(column):
                reason = "a date or time"
            case "text" if column.separator is not None:
                return MultiValued(kind="multi_valued", role=role, separator=column.separator)
            case "text" if column.mean_length > FREE_TEXT:
                reason = "long text"
            case "text" | "integer" if many and (column.kind == "text" or is_code):
                reason = "almost every row has a value of its own"
            case "text" | "boolean":
                return Categorical(kind="categorical", role=role)
            case "integer" if is_code or column.distinct <= FEW:
                return Categorical(kind="categorical", role=role)
            case "integer" | "float":
                return Numeric(kind="numeric", role=role)
            case "list":
                return MultiValued(kind="multi_valued", role=role)
            case "vector" if column.dim:
                return Vector(kind="vector", role=role, dim=column.dim)
            case "vector":
                reason = "vectors of unequal length"
            case _:
                reason = f"type {column.stored}"
        self.notes.setdefault(column.name, f"left out, {reason}")
        return None


def _unit(column: Column) -> Literal["s", "ms", "us"] | None:
    """The unit in which a column's numbers are times between 1973 and 5138, if there is one."""
    units: tuple[tuple[Literal["s", "ms", "us"], float, float], ...] = (
        ("s", 1e8, 1e11),
        ("ms", 1e11, 1e14),
        ("us", 1e14, 1e17),
    )
    if column.low is None or column.high is None:
        return None
    return next((unit for unit, low, high in units if low <= column.low <= column.high < high), None)


def _is_time(column: Column) -> bool:
    """Whether a column tells a time, by its name or by numbers that lie close together, far from 0."""
    if column.kind not in ("integer", "float"):
        return column.kind == "time" or (column.kind == "text" and names.clock(column.name) > 0)
    is_close = column.low is not None and column.high is not None and column.high < 2 * column.low
    return _unit(column) is not None and (is_close or names.clock(column.name) > 0)


def _lacking(column: Column) -> str:
    """How many rows have no value; empty if all have one."""
    match column.rows - column.filled:
        case 0:
            return ""
        case 1:
            return "1 row lacks it"
        case lacking:
            return f"{lacking} rows lack it"


_SAID = {"time": "time (text: ISO 8601, such as 2024-01-31T10:00:00Z)"}
_NO_EPOCH = "its numbers are no seconds, ms or us since 1970"
_NO_TIME = "its text is not ISO 8601 in every row (such as 2024-01-31T10:00:00Z)"
_TITLES = tuple([word] for word in names.TITLE)


def _split(clock: _Clock | None) -> Split:
    if clock is None:
        return RandomSplit(kind="random")
    return LeaveLastOut(kind="leave_last_out") if clock.is_ordinal else TemporalSplit(kind="temporal")


def _free_name(column: str, role: Role, taken: dict[str, Feature]) -> str:
    """The column's name, made one that a feature may have (ASCII) and neither another nor the prepared table has."""
    name = re.sub(r"[^A-Za-z0-9_]+", "_", column.partition(":")[0]).strip("_") or "feature"
    name = f"{role}_{name}" if name in RESERVED[role] | set(taken) or not name[0].isalpha() else name
    while name in taken:
        name += "_"
    return name


def _id_feature(features: dict[str, Feature], column: str, role: Role) -> str:
    for name, feature in features.items():
        if isinstance(feature, Categorical) and feature.role == role and column == (feature.column or name):
            return name
    raise KeyError(column)
