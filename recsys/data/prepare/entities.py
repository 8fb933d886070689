"""The users and the items: their indices, features and counts. One Arrow table each, in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.data.dataset import FeatureInfo, VectorInfo
from recsys.data.prepare.columns import canonical, stored, text
from recsys.data.prepare.engine import Runner
from recsys.data.prepare.events import TITLE
from recsys.data.prepare.layout import Layout, Table
from recsys.data.prepare.splits import TRAIN
from recsys.data.prepare.statistics import describe
from recsys.data.prepare.vocabulary import count_values, make_encoder, offsets
from recsys.schema.config import Categorical, Entity, Feature, MultiValued, Numeric, SchemaConfig, Vector


@dataclass(frozen=True)
class Encoded:
    """The features of all users, or of all items."""

    columns: dict[str, pa.Array]
    """raw.FEATURE and FEATURE, by name."""
    infos: dict[str, FeatureInfo]
    vocabularies: dict[str, pa.Table]


class Entities:
    """All users or all items: those of the kept events, and those of their own table. Index n is row n of `ids`.

    A log that names none has none.
    """

    def __init__(
        self, runner: Runner, entity: Entity, kept: ir.Table, table: Table | None, layout: Layout, schema: SchemaConfig
    ) -> None:
        self._runner = runner
        self._entity = entity
        self._table = table
        self._schema = schema
        self._layout = layout
        self.ids: pa.StringArray = self._found(kept) if entity in schema.ids else pa.array([], pa.string())
        """[N] in code point order."""
        index = pa.table({entity: self.ids, self._index: pa.array(np.arange(len(self)), pa.int32())})
        self.index: ir.Table = runner.put(self._index, index)
        """(user or item: text, user_index or item_index: int32)"""

    def _found(self, kept: ir.Table) -> pa.StringArray:
        ids = kept.select(id=kept[self._entity])
        if self._table is not None:
            ids = ids.union(self._table.rows.select(id=self._id()))
        found = self._runner.fetch(ids.distinct())["id"].combine_chunks().cast(pa.string())
        return found.take(pc.sort_indices(found))

    def _id(self) -> ir.StringValue:
        """Of each row of their own table."""
        assert self._table is not None
        return text(self._table.rows[self._schema.ids[self._entity]])

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def _index(self) -> str:
        return f"{self._entity}_index"

    def count(self, events: ir.Table, **conditions: ir.BooleanValue) -> dict[str, NDArray[np.int64]]:
        """[N] for each condition: the number of events that meet it, by entity."""
        if self._entity not in self._schema.ids:
            return {name: np.zeros(0, np.int64) for name in conditions}
        sums = {name: ibis.ifelse(condition, 1, 0).cast("int64").sum() for name, condition in conditions.items()}
        found = self._runner.fetch(events.group_by(self._index).aggregate(**sums))
        counts = {name: np.zeros(len(self), np.int64) for name in conditions}
        for name, count in counts.items():
            count[found[self._index].to_numpy()] = found[name].to_numpy()
        return counts

    def encode(self, events: ir.Table, train_rows: NDArray[np.int64]) -> Encoded:
        """Read and encode every feature; `train_rows` [N]: the number of training examples that each one stands in."""
        encoded = Encoded({}, {}, {})
        raw = self._raw(events)
        if self._entity == "item" and TITLE in raw:
            encoded.columns[TITLE] = raw[TITLE]
        for name, feature in self._schema.of_role(self._entity).items():
            if name in raw:
                self._encode(encoded, name, feature, raw[name], train_rows)
        return encoded

    def _encode(
        self, encoded: Encoded, name: str, feature: Feature, values: pa.Array, train_rows: NDArray[np.int64]
    ) -> None:
        match feature:
            case Categorical() | MultiValued():
                encoder = make_encoder(feature, count_values(values, train_rows))
                ids = encoder.encode(values) if isinstance(feature, Categorical) else encoder.encode_lists(values)
                encoded.infos[name] = encoder.info
                if encoder.vocabulary is not None:
                    encoded.vocabularies[name] = encoder.vocabulary
                raw = values if isinstance(feature, Categorical) else _null_where_empty(values)
                encoded.columns.update({f"raw.{name}": raw, name: ids})
            case Numeric():
                valid = pc.and_(pc.is_valid(values), pa.array(train_rows > 0))
                held = pa.record_batch([values.filter(valid), pa.array(train_rows).filter(valid)], ["value", "count"])
                held = held.sort_by("value")
                encoded.infos[name] = describe(name, feature, lambda: [held])
                encoded.columns.update({f"raw.{name}": values, name: pc.fill_null(values, float("nan"))})
            case Vector():
                encoded.infos[name] = VectorInfo(role=feature.role, input=feature.input, dim=feature.dim)
                encoded.columns.update({f"raw.{name}": values, name: fixed(values, feature.dim)})

    def _raw(self, events: ir.Table) -> dict[str, pa.Array]:
        """[N] canonical raw values by feature, and the title; null for missing."""
        own = self._schema.of_role(self._entity)
        raw = {name: self.ids for name in self._layout.ids if name in own}
        raw |= self._from_table(own)
        raw |= self._from_events(events, own)
        return raw

    def _from_table(self, own: Mapping[str, Feature]) -> dict[str, pa.Array]:
        if self._table is None:
            return {}
        role: Literal["users", "items"] = "users" if self._entity == "user" else "items"
        rows = self._table.rows
        columns = {
            stored(name): canonical(feature, rows[self._schema.column(name)])
            for name, feature in self._layout.of(role).items()
        }
        if role == "items" and self._layout.title == "items" and self._schema.title is not None:
            columns[TITLE] = text(rows[self._schema.title])
        if not columns:
            return {}
        table = self._runner.fetch(rows.select(id=self._id(), **columns))
        places = pc.index_in(self.ids, value_set=table["id"].combine_chunks().cast(pa.string()))
        return self._aligned(table, places, own)

    def _from_events(self, events: ir.Table, own: Mapping[str, Feature]) -> dict[str, pa.Array]:
        columns = [stored(name) for name in self._layout.events if name in own]
        if self._entity == "item" and self._layout.title == "events":
            columns.append(TITLE)
        if not columns:
            return {}
        table = self._runner.fetch(self._telling(events).select(self._index, *columns))
        places = pc.index_in(pa.array(np.arange(len(self)), pa.int32()), value_set=table[self._index].combine_chunks())
        return self._aligned(table, places, own)

    def _telling(self, events: ir.Table) -> ir.Table:
        """One event for each entity: its latest training event, else its earliest event."""
        in_train = events.stage == TRAIN
        times = [ibis.ifelse(in_train, -events.time, events.time)] if "time" in events.columns else []
        order = [ibis.ifelse(in_train, 0, 1), *times, events.digest, events.user_index, events.position]
        place = ibis.row_number().over(ibis.window(group_by=events[self._index], order_by=order))
        return events.mutate(place=place).filter(lambda t: t.place == 0)

    def _aligned(self, table: pa.Table, places: pa.Array, own: Mapping[str, Feature]) -> dict[str, pa.Array]:
        columns = {name: stored(name) for name in own if stored(name) in table.column_names}
        if TITLE in table.column_names:
            columns[TITLE] = TITLE
        return {name: plain(table[column].combine_chunks()).take(places) for name, column in columns.items()}


def plain(array: pa.Array) -> pa.Array:
    """The same values in one Arrow type, whatever the engine's: string, float32, or lists of these."""
    kind = array.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        member = pa.string() if pa.types.is_string(kind.value_type) else kind.value_type
        return array.cast(pa.list_(member))
    return array.cast(pa.string()) if pa.types.is_large_string(kind) else array


def fixed(vectors: pa.ListArray, dim: int) -> pa.FixedSizeListArray:
    """[N] lists of `dim` floats -> [N, dim] float32; null becomes zeros."""
    values = np.zeros((len(vectors), dim), np.float32)
    valid = pc.is_valid(vectors).to_numpy(zero_copy_only=False)
    values[valid] = pc.list_flatten(vectors).to_numpy(zero_copy_only=False).reshape(-1, dim)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), dim)


def _null_where_empty(lists: pa.ListArray) -> pa.ListArray:
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return pa.ListArray.from_arrays(offsets(lengths), pc.list_flatten(lists), mask=pa.array(lengths == 0))
