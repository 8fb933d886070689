"""From the raw event log to the kept events: rules, canonical values, a digest and an order for every event."""

from __future__ import annotations

from collections.abc import Iterator

import ibis
import ibis.expr.types as ir

from recsys.data.config import DataConfig, Rule
from recsys.data.dataset import label_column
from recsys.data.prepare.columns import canonical, form, number, stored, text
from recsys.data.prepare.layout import Layout
from recsys.data.prepare.times import moment
from recsys.schema.config import MultiValued, SchemaConfig

DIGEST_LENGTH = 12
"""Hexadecimal digits kept of an MD5: 48 bits, and short enough for DuckDB to hold without a pointer."""
TITLE = "title"
ANONYMOUS_LENGTH = 16
"""The same where no user is named: then it alone tells events apart, and 45 million would meet in 48 bits."""
UNIT, MISSING, MEMBER = "\x1f", "\x1e", "\x1d"


def digest(*parts: ir.StringValue, length: int = DIGEST_LENGTH) -> ir.StringValue:
    """The first digits of the MD5 of some texts, equal on every engine."""
    return ibis.literal(UNIT).join([part.fill_null(MISSING) for part in parts]).hexdigest("md5")[:length]


def below(share: float) -> str:
    """The digest that a `share` of all digests is less than."""
    return f"{min(int(share * 16**DIGEST_LENGTH), 16**DIGEST_LENGTH - 1):0{DIGEST_LENGTH}x}"


def labels(rows: ir.Table, data: DataConfig) -> tuple[ir.BooleanValue, ir.BooleanValue]:
    """Which raw events are positive and which negative. With negatives only, the others are positive."""
    negative = ibis.literal(False) if data.negatives is None else _holds(rows, data.negatives)
    if data.positives is not None:
        return _holds(rows, data.positives), negative
    return ~negative, negative


def further_label(rows: ir.Table, rule: Rule) -> ir.FloatingValue:
    """1 where the rule holds, 0 where it does not, null where its column holds nothing."""
    holds = _holds(rows, rule)
    return ibis.cases((holds, 1.0), (~holds, 0.0)).cast("float32")


def _holds(rows: ir.Table, rule: Rule) -> ir.BooleanValue:
    """Null where the column holds nothing."""
    column = rows[rule.column]
    holds = ibis.literal(True)
    if rule.at_least is not None:
        holds &= number(column) >= rule.at_least
    if rule.at_most is not None:
        holds &= number(column) <= rule.at_most
    if rule.one_of is not None:
        if form(column.type()) == "float":
            holds &= number(column).isin([float(value) for value in rule.one_of])
        else:
            holds &= text(column).isin([str(value) for value in rule.one_of])
    return holds


def keep(rows: ir.Table, layout: Layout, data: DataConfig, schema: SchemaConfig) -> ir.Table:
    """The positive and negative events with canonical columns.

    user, item: text (where the log names them); time: int64 (if there is one); label, weight: float32; further labels:
    float32, null for unknown; propensity: float64 (if there is one); the features read from the event log; `values`,
    the digest of all that (but for numbers, further labels among them, which have no portable text: `ranked` lets them
    break ties).
    """
    positive, negative = labels(rows, data)
    columns: dict[str, ir.Value] = {
        **{entity: text(rows[column]) for entity, column in schema.ids.items()},
        "label": ibis.ifelse(positive, 1, 0).cast("float32"),
        "weight": ibis.literal(1.0, "float32")
        if schema.weight is None
        else number(rows[schema.weight]).cast("float32"),
    }
    if schema.propensity is not None:
        columns["propensity"] = number(rows[schema.propensity])
    if schema.timestamp is not None:
        columns["time"] = moment(rows[schema.timestamp], schema.timestamp_unit)
    if layout.title == "events" and schema.title is not None:
        columns[TITLE] = text(rows[schema.title])
    for name, rule in data.labels.items():
        columns[label_column(name)] = further_label(rows, rule)
    for name, feature in layout.events.items():
        columns[stored(name)] = canonical(feature, rows[schema.column(name)])
    kept = rows.filter(positive | negative) if data.positives is not None else rows
    kept = kept.select(**columns)
    return kept.mutate(values=digest(*_parts(kept, layout), length=_length(kept)))


def _parts(kept: ir.Table, layout: Layout) -> Iterator[ir.StringValue]:
    for name in ("user", "item", "time", "label", TITLE):
        if name in kept.columns:
            column = kept[name].cast("int8") if name == "label" else kept[name]
            yield column.cast("string")
    for name, feature in layout.events.items():
        column = kept[stored(name)]
        if isinstance(feature, MultiValued):
            yield column.join(MEMBER).nullif("")  # engines differ in what joining nothing gives
        elif column.type().is_string():
            yield column


def _length(kept: ir.Table) -> int:
    return DIGEST_LENGTH if "user" in kept.columns else ANONYMOUS_LENGTH


def ranked(kept: ir.Table, users: ir.Table, items: ir.Table, seed: int) -> ir.Table:
    """The events in their order within the user, which is the same on every engine.

    Where no user is named, copies of one event are numbered, and the others have position 0.

    users, items: (user, user_index), (item, item_index). Instead of the ids, the result has user_index, item_index:
    int32; position: int64, 0 for the user's first event; digest: text, pseudo-random by `seed`, unlike even for copies
    of one event. Events of one time stand by item text (the order of item_index), then by digest, then by numbers.
    """
    named = kept
    for entity, index in (("user", users), ("item", items)):
        if entity in kept.columns:
            named = named.join(index, entity).drop(entity)
    group = named["user_index" if "user" in kept.columns else "values"]
    keys = [named["values"]]
    if "time" in named.columns:
        keys = [named[column] for column in ("time", "item_index", "values") if column in named.columns]
    numbers = [named[column] for column, dtype in named.schema().items() if dtype.is_floating() and column != "label"]
    numbers += [
        named[column] for column, dtype in named.schema().items() if dtype.is_array() and dtype.value_type.is_floating()
    ]
    order = ibis.window(group_by=group, order_by=[*keys, *numbers])
    peers = ibis.window(group_by=group, order_by=keys)
    placed = named.mutate(
        position=ibis.row_number().over(order).cast("int64"),
        first_copy=ibis.rank().over(peers).cast("int64"),
    )
    copy = (placed.position - placed.first_copy).cast("string")
    own = digest(ibis.literal(str(seed)), placed["values"], copy, length=_length(kept))
    return placed.mutate(digest=own).drop("first_copy", "values")
