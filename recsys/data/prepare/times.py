"""An event's time as a whole number: from numbers, from dates and times, from ISO 8601 text."""

from __future__ import annotations

from typing import Literal

import ibis
import ibis.expr.types as ir

from recsys.data.prepare.columns import form, number

ISO_8601 = (
    r"^ *([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[T ]([01][0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9])(?:[.,]([0-9]+))?)?"
    r"(?: ?(?:Z|UTC|([+-](?:[01][0-9]|2[0-3]))(?::?([0-5][0-9]))?))?)? *\z"
)
"""A date, perhaps with a time of day, perhaps with an offset. Whether the month has that day, the calendar must say.

Groups: the date, hours, minutes, seconds, the digits of a fraction, the offset's signed hours and its minutes."""
PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000}


def moment(column: ir.Column, unit: Literal["s", "ms", "us"]) -> ir.IntegerValue:
    """An event's time as int64 in `unit` since 1970; finer parts are cut off, a time without an offset is UTC."""
    match form(column.type()):
        case "time":
            at = column.cast("timestamp") if column.type().is_date() else column
            fraction = at.cast("string").re_extract(r"[.]([0-9]+)", 1)  # Ibis cannot ask Spark for it
            return _in_unit(at.truncate("s").epoch_seconds().cast("int64"), fraction, unit)
        case "text":
            numbers = number(column).floor().cast("int64")
            return ibis.coalesce(_in_unit(_iso_seconds(column), column.re_extract(ISO_8601, 5), unit), numbers)
        case "integer":
            return column.cast("int64")
        case _:
            return number(column).floor().cast("int64")


def is_iso_time(column: ir.StringColumn) -> ir.BooleanValue:
    """Text that is a date or time by ISO 8601, and one that the calendar has."""
    return _iso_date(column).notnull()


def _in_unit(seconds: ir.IntegerValue, fraction: ir.StringValue, unit: Literal["s", "ms", "us"]) -> ir.IntegerValue:
    """Full seconds, and the digits of what is over (if there are any)."""
    microseconds = (fraction.fill_null("") + "000000")[:6].cast("int64")
    return seconds * PER_SECOND[unit] + (microseconds // (1_000_000 // PER_SECOND[unit])).cast("int64")


def _iso_seconds(column: ir.StringColumn) -> ir.IntegerValue:
    """Full seconds since 1970; null for other text. In integers, since the engines' casts heed their time zones."""

    def part(group: int) -> ir.IntegerValue:
        return column.re_extract(ISO_8601, group).nullif("").cast("int64").fill_null(0)

    days = _iso_date(column).delta(ibis.date(1970, 1, 1), unit="day").cast("int64")
    east = ibis.ifelse(column.re_extract(ISO_8601, 6).startswith("-"), -1, 1)  # the number -00 has no sign
    offset = part(6) * 3_600 + east * part(7) * 60
    return days * 86_400 + part(2) * 3_600 + part(3) * 60 + part(4) - offset


def _iso_date(column: ir.StringColumn) -> ir.DateValue:
    return column.re_extract(ISO_8601, 1).nullif("").try_cast("date")
