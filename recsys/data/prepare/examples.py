"""The examples of each part: context features encoded, in pseudo-random order."""

from __future__ import annotations

from collections.abc import Iterator

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.data.dataset import MISSING, STAGES, FeatureInfo, Part, VectorInfo, label_column
from recsys.data.prepare.columns import stored
from recsys.data.prepare.engine import Runner
from recsys.data.prepare.entities import fixed, plain
from recsys.data.prepare.negatives import KEY, NegativeSampler
from recsys.data.prepare.splits import TRAIN
from recsys.data.prepare.statistics import describe
from recsys.data.prepare.vocabulary import Encoder, Values, least_count, make_encoder
from recsys.data.prepare.write import BASE
from recsys.schema.config import Categorical, Feature, MultiValued, Numeric, SchemaConfig, Vector


class Examples:
    """The events as examples. Vocabularies and statistics come from the training ones."""

    def __init__(self, runner: Runner, events: ir.Table, schema: SchemaConfig) -> None:
        self._runner = runner
        self._events = events
        self._features: dict[str, Feature] = schema.of_role("context")
        self._encoders: dict[str, Encoder] = {}
        self.infos: dict[str, FeatureInfo] = {}
        """Of the context features."""
        for name, feature in self._features.items():
            self.infos[name] = self._learn(name, feature)
        self._ids = {
            name: runner.put(f"ids_{name}", encoder.table)
            for name, encoder in self._encoders.items()
            if isinstance(self._features[name], Categorical)
        }

    @property
    def vocabularies(self) -> dict[str, pa.Table]:
        """Of the context features that have one."""
        return {name: e.vocabulary for name, e in self._encoders.items() if e.vocabulary is not None}

    def _learn(self, name: str, feature: Feature) -> FeatureInfo:
        match feature:
            case Categorical() | MultiValued():
                self._encoders[name] = make_encoder(feature, self._values(name, feature))
                return self._encoders[name].info
            case Numeric():
                held = self._events.filter((self._events.stage == TRAIN) & self._events[stored(name)].notnull())
                counts = held.group_by(value=held[stored(name)]).aggregate(count=lambda t: t.count()).order_by("value")
                return describe(name, feature, lambda: self._runner.batches(counts))
            case Vector():
                return VectorInfo(role=feature.role, input=feature.input, dim=feature.dim)
            case _:
                raise TypeError(f"{feature.kind} features do not describe events")

    def _values(self, name: str, feature: Categorical | MultiValued) -> Values:
        column = self._events[stored(name)]
        value = column.unique().unnest() if isinstance(feature, MultiValued) else column
        rows = self._events.select(value=value, train=ibis.ifelse(self._events.stage == TRAIN, 1, 0).cast("int64"))
        counts = rows.filter(rows.value.notnull()).group_by("value").aggregate(count=lambda t: t.train.sum())
        found = self._runner.fetch(counts.filter(counts["count"] >= least_count(feature))).sort_by("value")
        return Values(plain(found["value"].combine_chunks()), found["count"].to_numpy().astype(np.int64))

    def batches(self, part: Part, users: ir.Table, sampler: NegativeSampler | None) -> Iterator[pa.RecordBatch]:
        """The examples of a part by digest, or mixed with sampled negatives; `users`: (user_index, event_start)."""
        rows = self._events.filter(self._events.stage == STAGES[part])
        named = "user_index" in rows.columns
        if named:
            rows = rows.join(users, "user_index")
        rows = rows.mutate(history_stop=rows.event_start + rows.before if named else rows.before)
        for name, ids in self._ids.items():
            codes = ids.select(**{f"value_{name}": ids.value, f"id_{name}": ids.id})
            rows = rows.left_join(codes, rows[stored(name)] == codes[f"value_{name}"])
        columns = [name for name in BASE if name in rows.columns and name != "stage"]
        columns += [name for name in rows.columns if name.startswith(label_column(""))]
        features = {name: self._column(rows, name) for name in self._features}
        owner = [rows.user_index] if named else []
        ordered = rows.order_by([rows.digest, *owner, rows.position])
        if sampler is None:
            return self._runner.batches(ordered.select(*columns, **features))
        return sampler.mixed(self._runner.batches(ordered.select(*columns, **features, **{KEY: ordered.digest})))

    def _column(self, rows: ir.Table, name: str) -> ir.Value:
        if name not in self._ids:
            return rows[stored(name)]
        other = ibis.ifelse(rows[stored(name)].notnull(), self._encoders[name].other, MISSING)
        return rows[f"id_{name}"].fill_null(other).cast(rows[f"id_{name}"].type())

    def finish(self, name: str, column: pa.Array) -> pa.Array:
        """A column of a batch as it is written."""
        match self._features.get(name):
            case None if name in BASE:
                return column.cast(BASE[name])
            case None:
                return pc.fill_null(column.cast(pa.float32()), float("nan"))  # a further label
            case MultiValued():
                return self._encoders[name].encode_lists(plain(column))
            case Numeric():
                return pc.fill_null(column.cast(pa.float32()), float("nan"))
            case Vector(dim=dim):
                return fixed(plain(column), dim)
            case _:
                return column
