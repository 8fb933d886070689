"""What the columns of raw tables look like: types, counts, ranges, what depends on what. One pass, bounded memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import duckdb

from recsys.data.prepare.times import ISO_8601
from recsys.data.source import Role, SourceFiles, as_parquet

Kind = Literal["text", "integer", "float", "boolean", "time", "list", "vector", "other"]
SEPARATORS = ("|", ";", ",")
_INTEGER = r"-?[0-9]+"
_NUMBER = r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*"
_SAMPLED_ENTITIES = 50_000
_MIN_REPEATED = (
    5  # users or items with two values or more, before anything is said of what is constant per user or item
)
_MAX_VARYING = 0.005


@dataclass(frozen=True)
class Column:
    """One column. Text that holds nothing but numbers or ISO 8601 times counts as those (a CSV is text all over)."""

    name: str
    kind: Kind
    stored: str
    """The file's own type."""
    rows: int
    filled: int
    """Rows that are neither null nor empty text."""
    distinct: int
    """Different values, about."""
    low: float | None = None
    high: float | None = None
    mean_length: float = 0.0
    """Of text, in characters."""
    separator: str | None = None
    """Splits text that holds several values."""
    dim: int | None = None
    """Length of a vector, if all have the same."""


class Tables:
    """Raw tables, open for questions."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, roles: tuple[Role, ...]) -> None:
        self._connection = connection
        self.columns: dict[Role, dict[str, Column]] = {role: self._profile(role) for role in roles}

    def constant_per(self, entity: str) -> set[str]:
        """The columns of the event log that have one value per value of column `entity`."""
        others = [name for name in self.columns["events"] if name != entity]
        if not others:
            return set()
        step = max(1, self.columns["events"][entity].distinct // _SAMPLED_ENTITIES)
        of_entity = ", ".join(
            f"count({_value(name)}) AS n{i}, min(hash({_value(name)})) AS lo{i}, max(hash({_value(name)})) AS hi{i}"
            for i, name in enumerate(others)
        )
        of_column = ", ".join(f"count_if(n{i} > 1), count_if(n{i} > 1 AND lo{i} != hi{i})" for i in range(len(others)))
        counts = self._row(
            f"SELECT {of_column} FROM (SELECT {of_entity} FROM events "
            f"WHERE hash({_quoted(entity)}) % {step} = 0 GROUP BY {_quoted(entity)})"
        )
        pairs = zip(others, counts[::2], counts[1::2], strict=True)
        return {name for name, seen, varying in pairs if seen >= _MIN_REPEATED and varying <= _MAX_VARYING * seen}

    def _row(self, query: str) -> tuple[Any, ...]:
        row: tuple[Any, ...] | None = self._connection.execute(query).fetchone()
        assert row is not None
        return row

    def _profile(self, role: Role) -> dict[str, Column]:
        relation = self._connection.table(role)
        types = dict(zip(relation.columns, map(str, relation.types), strict=True))
        rows = self._row(f"SELECT count(*) FROM {role}")[0]
        return {name: self._column(role, name, stored, rows) for name, stored in types.items()}

    def _column(self, role: Role, name: str, stored: str, rows: int) -> Column:
        value = _value(name)
        filled, distinct = self._row(f"SELECT count({value}), approx_count_distinct({value}) FROM {role}")
        # HyperLogLog may overshoot.
        column = Column(name, _kind(stored), stored, rows, filled, min(distinct, filled))
        match column.kind:
            case "text":
                return self._text(role, column)
            case "integer" | "float":
                low, high = self._row(f"SELECT min({value})::DOUBLE, max({value})::DOUBLE FROM {role}")
                return replace(column, low=low, high=high)
            case "vector":
                low, high = self._row(f"SELECT min(len({value})), max(len({value})) FROM {role}")
                return replace(column, dim=low if low == high else None)
        return column

    def _text(self, role: Role, column: Column) -> Column:
        if not column.filled:
            return column
        value = _value(column.name)
        contains = ", ".join(f"count_if(contains({value}, '{mark}'))" for mark in SEPARATORS)
        length, integers, numbers, padded, times, low, high, *marked = self._row(
            f"SELECT avg(length({value})), count_if(regexp_full_match({value}, '{_INTEGER}')), "
            f"count_if(regexp_full_match({value}, '{_NUMBER}')), count_if(regexp_full_match({value}, '0[0-9]+')), "
            f"count(TRY_CAST(regexp_extract({value}, '{ISO_8601}', 1) AS DATE)), "
            f"min(TRY_CAST({value} AS DOUBLE)), max(TRY_CAST({value} AS DOUBLE)), {contains} FROM {role}"
        )
        if integers == column.filled and not padded:
            return replace(column, kind="integer", low=low, high=high)
        if numbers == column.filled and not padded:
            return replace(column, kind="float", low=low, high=high)
        if times == column.filled:
            return replace(column, kind="time")
        column = replace(column, mean_length=length)
        for mark, count in zip(SEPARATORS, marked, strict=True):
            if count > 0.05 * column.filled and (separator := self._separator(role, column, mark, count)):
                return replace(column, separator=separator)
        return column

    def _separator(self, role: Role, column: Column, mark: str, count: int) -> str | None:
        """The separator (with the blank that follows it everywhere), if what it separates looks like values."""
        value = _value(column.name)
        spaced = self._row(f"SELECT count_if(contains({value}, '{mark} ')) FROM {role}")[0] == count
        separator = f"{mark} " if spaced else mark
        members, different, length = self._row(
            f"SELECT count(*), approx_count_distinct(member), avg(length(member)) FROM (SELECT "
            f"unnest(string_split(value, '{separator}')) AS member FROM (SELECT DISTINCT {value} AS value FROM {role}))"
        )
        # Titles and names of people hold commas too, but few of their parts come again.
        recurring = mark != "," or members >= 2 * different
        return separator if recurring and length <= 30 else None


@contextmanager
def opened(source: SourceFiles) -> Iterator[Tables]:
    """The tables of a source, read as `prepare` reads them.

    Raises:
        DataError, SchemaError: as `recsys.data.source.as_parquet`.
    """
    with TemporaryDirectory(prefix="recsys-init-") as name, duckdb.connect() as connection:
        folder = Path(name)
        connection.execute("SET memory_limit = '2GB'")
        connection.execute("SET temp_directory = ?", [str(folder / "spill")])
        connection.execute("SET enable_progress_bar = false")
        roles = []
        for role, paths in source.tables():
            files = [str(path) for path in as_parquet(role, paths, folder)]
            connection.read_parquet(files, hive_partitioning=False).create_view(role)
            roles.append(role)
        yield Tables(connection, tuple(roles))


def _quoted(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""'))


def _value(name: str) -> str:
    """The column with empty text as null."""
    return f"CASE WHEN {_quoted(name)}::VARCHAR != '' THEN {_quoted(name)} END"


def _kind(stored: str) -> Kind:
    is_list = re.fullmatch(r"(.+)\[\d*\]", stored)
    if is_list:
        member = _kind(is_list.group(1))
        return {"float": "vector", "text": "list", "integer": "list"}.get(member, "other")  # type: ignore[return-value]
    if re.fullmatch(r"U?(TINY|SMALL|BIG|HUGE)?(INT|INTEGER)", stored):
        return "integer"
    if stored in ("FLOAT", "DOUBLE") or stored.startswith("DECIMAL"):
        return "float"
    if stored == "DATE" or stored.startswith("TIMESTAMP"):
        return "time"
    return {"VARCHAR": "text", "BOOLEAN": "boolean"}.get(stored, "other")  # type: ignore[return-value]
