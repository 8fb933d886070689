"""Which table each feature is read from, and whether its column can hold it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from recsys.data.config import DataConfig, Rule
from recsys.data.prepare.columns import Form, form
from recsys.data.source import Role, place
from recsys.errors import Problem, SchemaError
from recsys.schema.config import Categorical, Entity, Feature, MultiValued, Numeric, SchemaConfig, Sequence, Vector
from recsys.schema.config import Role as FeatureRole

CATEGORIES: tuple[Form, ...] = ("text", "integer", "boolean")
TABLES: dict[Entity, Role] = {"user": "users", "item": "items"}
"""Whom each table describes."""
NUMBERS: tuple[Form, ...] = ("integer", "float", "boolean", "text")


@dataclass(frozen=True)
class Table:
    """One raw table: where it comes from, and its columns."""

    paths: tuple[Path, ...]
    rows: ir.Table

    def at(self, column: str) -> str:
        """How an error names a column of this table."""
        return f"{place(self.paths)}: column {column!r}"


@dataclass(frozen=True)
class Layout:
    """The features by the table they are read from; `ids` are those whose value is the user's or item's id itself."""

    events: dict[str, Feature]
    items: dict[str, Feature]
    users: dict[str, Feature]
    ids: dict[str, Feature]
    title: Role | None
    """The table that holds the title."""

    def of(self, table: Role) -> dict[str, Feature]:
        """The features read from `table`."""
        return {"events": self.events, "items": self.items, "users": self.users}[table]


def lay_out(tables: Mapping[Role, Table], data: DataConfig, schema: SchemaConfig) -> Layout:
    """Find every column.

    Raises:
        SchemaError: columns are missing or cannot hold what the schema says; all problems at once.
    """
    layout = Layout({}, {}, {}, {}, None if schema.title is None else _home(tables, "item", schema.title))
    for name, feature in schema.features.items():
        if isinstance(feature, Sequence):
            continue
        column = schema.column(name)
        if isinstance(feature, Categorical) and feature.role != "context" and column == schema.ids[feature.role]:
            layout.ids[name] = feature
        else:
            layout.of(_home(tables, feature.role, column))[name] = feature
    problems = [*_config_problems(data, schema), *_column_problems(tables, layout, data, schema)]
    problems += _label_problems(tables["events"], layout, data, schema)
    if problems:
        raise SchemaError(problems)
    return layout


def _home(tables: Mapping[Role, Table], role: FeatureRole, column: str) -> Role:
    """The users or items table where it has the column, else the event log."""
    own = None if role == "context" else TABLES[role]
    return own if own is not None and own in tables and column in tables[own].rows.columns else "events"


def _config_problems(data: DataConfig, schema: SchemaConfig) -> Iterator[Problem]:
    for key, what, columns in data.lacks(schema):
        cure = "choose kind: random" if key == ("split", "kind") else "remove it"
        yield Problem(f"data.{'.'.join(key)}", f"{what}, for which {columns} is null", columns, f"name it, or {cure}")
    if schema.propensity is not None and data.sampled_negatives is not None:
        yield Problem(
            "data.sampled_negatives", "drawn, but schema.propensity says how probable what was logged was",
            "logged negatives, or no propensity", "remove schema.propensity, or use data.negatives",
        )  # fmt: skip


def _label_problems(events: Table, layout: Layout, data: DataConfig, schema: SchemaConfig) -> Iterator[Problem]:
    deciding = {rule.column for rule in data.rules.values()}
    for name, feature in layout.events.items():
        if feature.input and schema.column(name) in deciding:
            yield Problem(
                events.at(schema.column(name)), f"decides a label and is feature {name!r}, which the model reads",
                "features that are known before the event", f"remove {name!r}, or give it `input: false`",
            )  # fmt: skip


def _column_problems(
    tables: Mapping[Role, Table], layout: Layout, data: DataConfig, schema: SchemaConfig
) -> Iterator[Problem]:
    events = tables["events"]
    for column in schema.ids.values():
        yield from _problems(events, column, "an id", CATEGORIES)
    if schema.timestamp is not None:
        yield from _problems(events, schema.timestamp, "a time", ("integer", "float", "text", "time"))
    if schema.weight is not None:
        yield from _problems(events, schema.weight, "a weight", NUMBERS)
    if schema.propensity is not None:
        yield from _problems(events, schema.propensity, "a propensity", NUMBERS)
    if layout.title is not None and schema.title is not None:
        yield from _problems(tables[layout.title], schema.title, "a title", CATEGORIES)
    for entity, role in TABLES.items():
        if role in tables and entity not in schema.ids:
            yield Problem(
                f"data.source.{role}", f"a table of {role}, but schema.{entity} is null", "the column of their ids",
                f"name it in schema.{entity}, or leave the table out",
            )  # fmt: skip
        elif role in tables:
            yield from _problems(tables[role], schema.ids[entity], "an id", CATEGORIES)
    for key, rule in data.rules.items():
        yield from _rule_problems(events, f"data.{key}", rule)
    for role, table in tables.items():
        for name, feature in layout.of(role).items():
            yield from _feature_problems(table, schema.column(name), name, feature)


def _rule_problems(events: Table, where: str, rule: Rule) -> Iterator[Problem]:
    forms = CATEGORIES if rule.at_least is None and rule.at_most is None else NUMBERS
    problems = list(_problems(events, rule.column, where, (*forms, "float")))
    yield from problems
    if not problems and form(events.rows[rule.column].type()) == "float":
        for value in rule.one_of or ():
            if isinstance(value, str):
                yield Problem(
                    f"{where}.one_of", f"the text {value!r}, but column {rule.column!r} holds numbers", "numbers",
                    "write the value without quotes",
                )  # fmt: skip


def _feature_problems(table: Table, column: str, name: str, feature: Feature) -> Iterator[Problem]:
    what = f"{feature.kind} feature {name!r}"
    match feature:
        case Categorical():
            yield from _problems(table, column, what, CATEGORIES)
        case Numeric():
            yield from _problems(table, column, what, NUMBERS)
        case MultiValued():
            yield from _problems(table, column, what, ("list",) if feature.separator is None else ("text",), CATEGORIES)
        case Vector():
            yield from _problems(table, column, what, ("list",), ("integer", "float"))


def _problems(
    table: Table, column: str, what: str, allowed: tuple[Form, ...], members: tuple[Form, ...] = ()
) -> Iterator[Problem]:
    columns = table.rows.columns
    if column not in columns:
        near = difflib.get_close_matches(column, columns, n=1)
        guess = f"did you mean {near[0]!r}?" if near else "name another column in the schema"
        yield Problem(table.at(column), f"not there, needed for {what}", f"one of {', '.join(columns)}", guess)
        return
    dtype = table.rows[column].type()
    found = form(dtype)
    if found not in allowed:
        yield Problem(
            table.at(column), f"holds {_said(dtype)}, needed for {what}", " or ".join(allowed), _cure(found, allowed)
        )
    elif found == "list" and form(dtype.value_type) not in members:
        yield Problem(
            table.at(column), f"holds lists of {dtype.value_type}, needed for {what}",
            f"lists of {' or '.join(members)}", "convert the members",
        )  # fmt: skip


def _said(dtype: dt.DataType) -> str:
    return {"float": f"floating-point numbers ({dtype})", "list": f"lists ({dtype})"}.get(form(dtype), str(dtype))


def _cure(found: Form, allowed: tuple[Form, ...]) -> str:
    if found == "float":
        return "cast the column to integers or text (floats are no categories)"
    if found == "list":
        return "use kind: multi_valued (texts) or vector (numbers)"
    if allowed == ("list",):
        return "give `separator` to split text, or use kind: categorical or numeric for single values"
    if allowed == ("text",):
        return "leave `separator` out for list columns, or use kind: categorical"
    return "convert the column"
