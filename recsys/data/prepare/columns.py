"""Raw columns in canonical form, as Ibis expressions that mean the same on DuckDB and Spark."""

from __future__ import annotations

from typing import Literal

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from recsys.schema.config import Categorical, Feature, MultiValued, Numeric, Sequence, Vector

Form = Literal["text", "integer", "boolean", "float", "time", "list", "other"]
NUMBER = r"^\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*$"
"""Numbers in text. The engines' own casts differ in what else they take (`1_000`, `1f`)."""
UNIT = "\x1f"
"""The ASCII unit separator: unlike most separators, it is no regular expression (Spark splits by those)."""


def form(dtype: dt.DataType) -> Form:
    """What sort of column this is, as far as preparation cares."""
    if dtype.is_string():
        return "text"
    if dtype.is_integer():
        return "integer"
    if dtype.is_boolean():
        return "boolean"
    if dtype.is_floating() or dtype.is_decimal():
        return "float"
    if dtype.is_timestamp() or dtype.is_date():
        return "time"
    return "list" if dtype.is_array() else "other"


def text(column: ir.Column) -> ir.StringValue:
    """A categorical value as text; null for missing."""
    match form(column.type()):
        case "text":
            value = column
        case "boolean":
            value = ibis.cases((column, "true"), (~column, "false"))
        case _:
            value = column.cast("string")
    return value.nullif("")


def texts(column: ir.Column, separator: str | None, max_length: int) -> ir.ArrayValue:
    """The members of a multi-valued feature, missing ones dropped; the empty list for missing."""
    members = column if separator is None else column.replace(separator, UNIT).split(UNIT)
    values = members.map(lambda member: text(member)).filter(lambda member: member.notnull())
    return values[:max_length].fill_null(ibis.literal([], type="array<string>"))


def number(column: ir.Column) -> ir.FloatingValue:
    """A float64; null for missing (null, NaN, the empty text)."""
    match form(column.type()):
        case "text":
            value = ibis.cases((column.re_search(NUMBER), column.strip().try_cast("float64")))
        case "boolean":
            value = column.cast("int64").cast("float64")
        case _:
            value = column.cast("float64")
    return ibis.cases((~value.isnan(), value))


def is_unreadable_number(column: ir.Column) -> ir.BooleanValue:
    """Text that is neither a number nor missing."""
    if form(column.type()) != "text":
        return ibis.literal(False)
    is_missing = column.isnull() | column.strip().lower().isin(["", "nan"])
    return ~is_missing & ~column.re_search(NUMBER)


def holds_vector(column: ir.ArrayColumn, dim: int) -> ir.BooleanValue:
    """Whether the list is `dim` finite numbers."""
    values = column.cast("array<float64>")
    wrong = values.filter(lambda x: x.isnull() | x.isnan() | x.isinf()).length() > 0
    return (column.length() == dim) & ~wrong


def canonical(feature: Feature, column: ir.Column) -> ir.Value:
    """The raw value of a feature: text, list of text, float32 or list of float32; null (the empty list) for missing."""
    match feature:
        case Categorical():
            return text(column)
        case MultiValued():
            return texts(column, feature.separator, feature.max_length)
        case Numeric():
            return number(column).cast("float32")
        case Vector():
            return column.cast("array<float32>")
        case Sequence():
            raise TypeError("a sequence has no column of its own")


def stored(name: str) -> str:
    """The column of feature `name` in intermediate tables, clear of the fixed columns' names."""
    return f"feature_{name}"
