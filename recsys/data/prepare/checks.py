"""What may be wrong in the rows: every check is a condition, counted for all of them in one pass over a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import ibis
import ibis.expr.types as ir

from recsys.data.config import DataConfig, Rule
from recsys.data.prepare.columns import form, holds_vector, is_unreadable_number, number, text
from recsys.data.prepare.engine import Runner
from recsys.data.prepare.events import labels
from recsys.data.prepare.layout import Layout, Table
from recsys.data.prepare.times import is_iso_time
from recsys.data.source import Role
from recsys.errors import DataError, Problem
from recsys.schema.config import Feature, Numeric, SchemaConfig, Vector

FLOAT32_MAX = 3.4028234663852886e38
TIMES = "epoch numbers, or ISO 8601 dates and times such as 2024-01-31T10:00:00Z"
EXAMPLE_LENGTH = 40
RAREST = 1e-30
"""Nothing that was logged was chosen with less probability; estimates divide by it."""


@dataclass(frozen=True)
class _Check:
    column: str
    wrong: ir.BooleanValue
    """True in the rows that are wrong."""
    found: str
    """What they hold: said after their number."""
    cure: str


def check_rows(
    runner: Runner, tables: Mapping[Role, Table], layout: Layout, data: DataConfig, schema: SchemaConfig
) -> None:
    """Look through every table.

    Raises:
        DataError: rows that cannot be used; all problems of all tables at once.
    """
    problems: list[Problem] = []
    for role, table in tables.items():
        checks = list(_event_checks(table, data, schema) if role == "events" else _entity_checks(role, table, schema))
        for name, feature in layout.of(role).items():
            checks.extend(_feature_checks(table, schema.column(name), feature))
        problems.extend(_count(runner, table, checks))
        if role != "events":
            problems.extend(_duplicates(runner, table, _id_column(role, schema)))
        elif schema.timestamp is not None and form(table.rows[schema.timestamp].type()) == "text":
            problems.extend(_time_texts(runner, table, schema.timestamp))
    if problems:
        raise DataError(problems)


def _count(runner: Runner, table: Table, checks: list[_Check]) -> Iterator[Problem]:
    totals = {
        f"check_{number}": check.wrong.fill_null(False).cast("int64").sum() for number, check in enumerate(checks)
    }
    counts = runner.fetch(table.rows.aggregate(**totals)).to_pylist()[0]
    for check, count in zip(checks, counts.values(), strict=True):
        if count:
            yield Problem(table.at(check.column), f"{_rows(count)} {check.found}", cure=check.cure)


def _duplicates(runner: Runner, table: Table, column: str) -> Iterator[Problem]:
    ids = table.rows.select(id=text(table.rows[column]))
    copies = ids.filter(ids.id.notnull()).group_by("id").aggregate(copies=lambda t: t.count())
    repeated = runner.fetch(
        copies.filter(copies.copies > 1).aggregate(count=lambda t: t.count(), first=lambda t: t.id.min())
    )
    count, first = (repeated[name][0].as_py() for name in ("count", "first"))
    if count:
        ids_stand = "1 id stands" if count == 1 else f"{count} ids stand"
        yield Problem(
            table.at(column), f"{ids_stand} in more than one row (such as {first!r})", "one row per id",
            "keep one row of each",
        )  # fmt: skip


def _time_texts(runner: Runner, table: Table, name: str) -> Iterator[Problem]:
    """Times in text are numbers in every row, or ISO 8601 in every row."""
    column = table.rows[name]
    is_iso = is_iso_time(column)
    sorts = {"numbers": number(column).notnull(), "iso": is_iso, "others": is_unreadable_number(column) & ~is_iso}
    counts = {sort: wanted.fill_null(False).cast("int64").sum() for sort, wanted in sorts.items()}
    examples = {f"{sort}_example": ibis.cases((wanted, column)).min() for sort, wanted in sorts.items()}
    found = runner.fetch(table.rows.aggregate(**counts, **examples)).to_pylist()[0]

    def such(sort: str) -> str:
        return f"(such as {found[f'{sort}_example'][:EXAMPLE_LENGTH]!r})"

    if found["others"]:
        yield Problem(
            table.at(name), f"{_rows(found['others'])} text that is no time {such('others')}", TIMES,
            "convert these texts, or drop these rows",
        )  # fmt: skip
    if found["numbers"] and found["iso"]:
        yield Problem(
            table.at(name),
            f"{_rows(found['numbers'])} a number {such('numbers')} and {found['iso']} ISO 8601 text {such('iso')}",
            "the same in all rows", "convert one sort to the other",
        )  # fmt: skip


def _rows(count: int) -> str:
    return "1 row holds" if count == 1 else f"{count} rows hold"


def _id_column(role: Role, schema: SchemaConfig) -> str:
    return schema.ids["item" if role == "items" else "user"]


def _missing_id(table: Table, column: str) -> _Check:
    return _Check(column, text(table.rows[column]).isnull(), 'a missing id (null or "")', "drop these rows")


def _entity_checks(role: Role, table: Table, schema: SchemaConfig) -> Iterator[_Check]:
    yield _missing_id(table, _id_column(role, schema))


def _event_checks(table: Table, data: DataConfig, schema: SchemaConfig) -> Iterator[_Check]:
    rows = table.rows
    for id_column in schema.ids.values():
        yield _missing_id(table, id_column)
    if schema.timestamp is not None:
        column = rows[schema.timestamp]
        if form(column.type()) != "time":
            yield _size_check(schema.timestamp, column, TIMES)
        absent = column.isnull() if form(column.type()) == "time" else number(column).isnull()
        yield _Check(
            schema.timestamp, absent & ~is_unreadable_number(column), "no time (null or NaN)",
            "drop these rows, or leave schema.timestamp out (no histories; data.split.kind: random, by_user, "
            "cold_users or cold_items)",
        )  # fmt: skip
    if schema.weight is not None:
        column = rows[schema.weight]
        yield from _number_checks(schema.weight, column, "numbers")
        yield _Check(
            schema.weight, number(column).isnull() & ~is_unreadable_number(column), "no weight (null or NaN)",
            "fill them (1 is the neutral weight), or drop these rows",
        )  # fmt: skip
        yield _Check(schema.weight, number(column) < 0, "a negative weight", "use weights of at least 0")
    if schema.propensity is not None:
        yield from _propensity_checks(schema.propensity, rows[schema.propensity])
    yield from _rule_checks(table, data)


def _propensity_checks(name: str, column: ir.Column) -> Iterator[_Check]:
    cure = "log the probability with which the item was chosen, or drop these rows"
    if form(column.type()) == "text":
        yield _Check(name, is_unreadable_number(column), "text that is no number", "write numbers in (0, 1]")
    absent = number(column).isnull() & ~is_unreadable_number(column)
    yield _Check(name, absent, "no propensity (null or NaN)", cure)
    yield _Check(
        name, (number(column) < RAREST) | (number(column) > 1), f"a propensity outside (0, 1], or below {RAREST}", cure
    )


def _rule_checks(table: Table, data: DataConfig) -> Iterator[_Check]:
    for further in data.labels.values():
        if _is_numeric(further, table.rows[further.column]):
            yield from _number_checks(
                further.column, table.rows[further.column], "numbers (none: the label is unknown)"
            )
    for rule in (data.positives, data.negatives):
        if rule is None:
            continue
        column = table.rows[rule.column]
        if _is_numeric(rule, column):
            yield from _number_checks(rule.column, column, "numbers")
            absent = number(column).isnull() & ~is_unreadable_number(column)
        else:
            absent = text(column).isnull()
        yield _Check(
            rule.column, absent, "no value (null, NaN or \"\"), so the rule on it cannot be decided",
            "drop these rows, or fill the column",
        )  # fmt: skip
    if data.positives is not None and data.negatives is not None:
        positive, negative = labels(table.rows, data)
        yield _Check(
            data.negatives.column, positive & negative, "events that are both positive and negative",
            "make data.positives and data.negatives exclude each other",
        )  # fmt: skip


def _is_numeric(rule: Rule, column: ir.Column) -> bool:
    return rule.at_least is not None or rule.at_most is not None or form(column.type()) == "float"


def _feature_checks(table: Table, name: str, feature: Feature) -> Iterator[_Check]:
    column = table.rows[name]
    if isinstance(feature, Numeric):
        yield from _number_checks(name, column, 'numbers (null, NaN and "" mean missing)')
    elif isinstance(feature, Vector):
        yield _Check(
            name, column.notnull() & ~holds_vector(column, feature.dim),
            f"a vector that is not {feature.dim} finite numbers", f"mend these vectors, or set dim (now {feature.dim})",
        )  # fmt: skip


def _number_checks(name: str, column: ir.Column, wanted: str) -> Iterator[_Check]:
    if form(column.type()) == "time":
        return
    if form(column.type()) == "text":
        yield _Check(name, is_unreadable_number(column), "text that is no number", f"write {wanted}")
    yield _size_check(name, column, wanted)


def _size_check(name: str, column: ir.Column, wanted: str) -> _Check:
    wrong = number(column).abs() > FLOAT32_MAX
    return _Check(name, wrong, "a number that is infinite or beyond float32", f"write {wanted}")
