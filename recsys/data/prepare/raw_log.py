"""Features that know the future: numbers of users and items that equal a statistic of the whole raw log.

The prepared folder does not hold the events that the rules drop, so what counts them can be told here alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.data.config import DataConfig
from recsys.data.dataset import NumericInfo, Suspicion
from recsys.data.prepare.columns import number, text
from recsys.data.prepare.engine import Runner
from recsys.data.prepare.entities import Encoded, Entities
from recsys.data.prepare.events import further_label, labels
from recsys.data.prepare.splits import Moments
from recsys.data.prepare.times import moment
from recsys.schema.config import Entity, SchemaConfig

EQUAL = 0.95
"""Least share of the compared users or items whose feature equals the statistic."""
ENOUGH = 20
"""Least number of users or items that are compared."""
ALIKE = 0.8
"""Greatest share of them with one and the same value: a constant can equal no more than these."""
DECIMALS = (0, 1, 2, 3, 4)
SLACK = 1e-6
"""Relative error of a mean in float32, and the distance from a tie at which rounding may go either way."""


def ids_of(column: Callable[[Entity], ir.Value], schema: SchemaConfig) -> dict[str, ir.Value]:
    """user and item, from these columns; one and the same text where the log names none."""
    entities: tuple[Entity, ...] = ("user", "item")
    return {entity: column(entity) if entity in schema.ids else ibis.literal("") for entity in entities}


class RawLog:
    """What the raw log says of each user and item: all of it, and those of its events that were known in training.

    After a temporal split the events before validation's first moment were known. The other splits give dropped events
    no part; they count as known, as does all else but the held-out events. So more counts as known than was.
    """

    def __init__(
        self,
        runner: Runner,
        rows: ir.Table,
        data: DataConfig,
        schema: SchemaConfig,
        moments: Moments | None,
        held_out: ir.Table,
    ) -> None:
        """rows: the raw log; moments: of a temporal split; held_out: user and item (text) and time (if there is one) of
        the events that validate and test.
        """
        self._runner = runner
        self._moments = moments
        self._held_out = held_out
        positive, negative = labels(rows, data)
        rules = [rule.column for rule in data.rules.values()]
        averaged = dict.fromkeys([*rules, *([] if schema.weight is None else [schema.weight])])
        values = [number(rows[name]) for name in averaged] + [ibis.ifelse(positive, 1.0, 0.0)]
        values += [further_label(rows, rule) for rule in data.labels.values()]
        self._means = [*(f"mean of column {name!r}" for name in averaged), "share of positive events"]
        self._means += [f"share of events with label {name!r}" for name in data.labels]
        self._time = [] if schema.timestamp is None else ["time"]
        self._rows = rows.select(
            **ids_of(lambda entity: text(rows[schema.ids[entity]]), schema),
            kept=ibis.ifelse(positive | negative, 1, 0).cast("int64"),
            **{name: moment(rows[schema.timestamp], schema.timestamp_unit) for name in self._time},
            **{f"value_{n}": value.cast("float64") for n, value in enumerate(values)},
        )

    def suspicions(self, entity: Entity, entities: Entities, encoded: Encoded) -> Iterator[Suspicion]:
        """Numeric features that the model reads and that equal a statistic of the whole raw log.

        Compared are the users (items) with known and unknown events, for whom the statistic of the whole log, as the
        feature would hold it, is not that of the known events. There a feature that was computed from what was known
        equals the whole log's count, last time or number of partners never, for these only grow; its mean by accident.
        Any number equals a low count now and then, which `EQUAL` of `ENOUGH` do not if they take several values.
        """
        numeric = [name for name, info in encoded.infos.items() if isinstance(info, NumericInfo) and info.input]
        if not numeric:
            return
        table = self._runner.fetch(self._by(entity))
        place = pc.index_in(table[entity].combine_chunks().cast(pa.string()), value_set=entities.ids)
        table, rows = table.filter(pc.is_valid(place)), place.drop_null().to_numpy()
        statistics = list(self._statistics(entity, table))
        for name in numeric:
            feature = encoded.columns[name].to_numpy(zero_copy_only=False)
            found = [statistic.compare(feature[rows], _decimals(feature)) for statistic in statistics]
            most = int(np.argmax([share for share, _ in found]))
            share, compared = found[most]
            if share >= EQUAL:
                yield Suspicion(feature=name, statistic=statistics[most].name, share=share, compared=compared)

    def _statistics(self, entity: Entity, table: pa.Table) -> Iterator[_Statistic]:
        def column(name: str) -> NDArray[np.float64]:
            return table[name].to_numpy().astype(np.float64)

        partner = {"user": "items", "item": "users"}[entity]
        yield _Statistic("number of events", column("events"), column("known"))
        yield _Statistic(f"number of distinct {partner}", column("partners"), column("known_partners"))
        for n, name in enumerate(self._means):
            whole, known = column(f"total_{n}") / column("events"), column(f"known_total_{n}") / column("known")
            yield _Statistic(name, whole, known, is_mean=True)
        if self._time:
            yield _Statistic("time of the last event", column("last"), column("known_last"))

    def _by(self, entity: Entity) -> ir.Table:
        """The sums for each user or item of whom some events were known and some were not."""
        pairs = self._pairs
        sums = {name: pairs[name].sum() for name in pairs.columns if name not in ("user", "item", "last", "known_last")}
        known_partners = ibis.ifelse(pairs.known > 0, 1, 0).cast("int64").sum()
        lasts = {name: pairs[name].max() for name in ("last", "known_last") if self._time}
        table = pairs.group_by(entity).aggregate(
            **sums, **lasts, partners=lambda t: t.count(), known_partners=known_partners
        )
        return table.filter((table.known > 0) & (table.known < table.events))

    @cached_property
    def _pairs(self) -> ir.Table:
        """The sums for each user and item."""
        groups = self._groups_by_part() if self._moments is None else self._groups_by_time(self._moments)
        lasts = {}
        if self._time:
            lasts = {"last": groups.time.max(), "known_last": ibis.cases((groups.known > 0, groups.time)).max()}
        names = [name for name in groups.columns if name not in ("user", "item", "time")]
        pairs = groups.group_by("user", "item").aggregate(**{name: groups[name].sum() for name in names}, **lasts)
        return self._runner.store("raw_pairs", pairs)

    def _groups_by_time(self, moments: Moments) -> ir.Table:
        """user, item, time; events and known: their numbers; total_N and known_total_N: sums of what is averaged."""
        rows = self._rows
        known = ibis.ifelse(rows.time < moments.valid, 1, 0).cast("int64")
        totals = {f"total_{n}": rows[f"value_{n}"] for n in range(len(self._means))}
        known_totals = {f"known_{name}": value * known for name, value in totals.items()}
        return rows.select(
            "user", "item", "time", events=ibis.literal(1, "int64"), known=known, **totals, **known_totals
        )

    def _groups_by_part(self) -> ir.Table:
        """The same, of all events of one user, item and time: held-out events have their equal share of the sums."""
        key, rows = ["user", "item", *self._time], self._rows
        values = {f"total_{n}": rows[f"value_{n}"] for n in range(len(self._means))}
        totals = {name: value.sum() for name, value in values.items()}
        kept_totals = {f"kept_{name}": (value * rows.kept).sum() for name, value in values.items()}
        groups = rows.group_by(key).aggregate(events=lambda t: t.count(), kept=rows.kept.sum(), **totals, **kept_totals)
        held = self._held_out.group_by(key).aggregate(held=lambda t: t.count())
        joined = groups.left_join(held, key)
        held_out = joined.held.fill_null(0)
        share = held_out / ibis.greatest(joined.kept, 1)
        return joined.select(
            *key, "events", *totals, known=joined.events - held_out,
            **{f"known_{name}": joined[name] - joined[f"kept_{name}"] * share for name in totals},
        )  # fmt: skip


@dataclass(frozen=True)
class _Statistic:
    """A number of each user or item of whom some events were known and some were not."""

    name: str
    whole: NDArray[np.float64]
    """Of the whole log."""
    known: NDArray[np.float64]
    """Of the events known in training."""
    is_mean: bool = False

    def compare(self, feature: NDArray[np.float32], decimals: int | None) -> tuple[float, int]:
        """Of how many users or items the feature equals the statistic, among how many; (0, 0) if they tell nothing."""
        (low, high), (known_low, known_high) = self._range(self.whole, decimals), self._range(self.known, decimals)
        telling = ~np.isnan(feature) & ((low > known_high) | (known_low > high))
        feature, low, high = feature[telling], low[telling], high[telling]
        if len(feature) < ENOUGH or np.unique(feature, return_counts=True)[1].max() > ALIKE * len(feature):
            return 0.0, 0
        return float(np.mean((low <= feature) & (feature <= high))), len(feature)

    def _range(self, values: NDArray[np.float64], decimals: int | None) -> tuple[NDArray, NDArray]:
        """The least and the greatest float32 that a feature holds which is the statistic, rounded to `decimals`."""
        if not self.is_mean:
            exact = values.astype(np.float32)
            return exact, exact
        low = high = values
        if decimals is not None:
            scale = 10.0**decimals
            low = np.ceil(values * scale - 0.5 - SLACK) / scale
            high = np.floor(values * scale + 0.5 + SLACK) / scale
        return low - SLACK * np.abs(low), high + SLACK * np.abs(high)


def _decimals(feature: NDArray[np.float32]) -> int | None:
    """To how many decimals a feature is rounded; None if it is not."""
    values = feature[np.isfinite(feature)].astype(np.float64)
    for decimals in DECIMALS:
        if np.allclose(np.round(values, decimals), values, rtol=SLACK, atol=0):
            return decimals
    return None
