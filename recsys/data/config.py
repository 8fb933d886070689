"""Where events come from, which of them count, how they are split, and how they are prepared."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from recsys.config.base import Config, Many, Misfit, default_tag, misfits
from recsys.data.long_histories_config import LongHistoriesConfig
from recsys.data.simulator_config import SimulatorConfig
from recsys.schema.config import SchemaConfig

MAIN_LABEL = "label"
"""The label that ranks: what `positives` and `negatives` say."""
Share = Annotated[float, Field(gt=0.0, lt=1.0)]
SHARE_DIGITS = 12
"""Sums of shares are rounded to so many decimals: 0.1 + 0.2 is 0.3."""


class FilesSource(Config):
    """Your own files: Parquet or CSV/TSV, a path or a glob, relative to the YAML."""

    kind: Literal["files"]
    events: str
    """The event log."""
    items: str | None = None
    """One row per item, with the schema's item column."""
    users: str | None = None
    """One row per user, with the schema's user column."""


class PublicSource(Config):
    """A public data set by name (`recsys data list`): from RECSYS_DATA, the cache, or the publisher."""

    kind: Literal["public"]
    name: str


class SimulatedSource(SimulatorConfig):
    """Events from the simulator, whose ground truth is known."""

    kind: Literal["simulated"]


class SimulatedHistoriesSource(LongHistoriesConfig):
    """Long histories in which search and representation need different geometries; their ground truth is known."""

    kind: Literal["simulated_histories"]


class ServedSource(Config):
    """What a server has shown, and what came of it (docs/how-to/learn-from-serving.md has the columns).

    `data.positives: {column: label, at_least: 1}` and `data.negatives: {column: label, at_most: 0}` go with it.
    """

    kind: Literal["served"]
    folder: str
    """The server's log, relative to the YAML."""
    items: str | None = None
    """One row per item, with the schema's item column."""
    users: str | None = None
    """One row per user, with the schema's user column."""
    label: str = "click"
    """The feedback that makes column `label` 1: an item that was shown without it is 0."""
    further_labels: Many[str] = ()
    """Feedback that becomes columns of its own name, for `data.labels`."""
    settle: NonNegativeFloat = 0.0
    """Seconds in which feedback may still come: newer answers, counted back from the newest, are left out."""
    anonymous: bool = False
    """Keep answers that name no user, for rankers of logs without users."""


Source = Annotated[
    FilesSource | PublicSource | SimulatedSource | SimulatedHistoriesSource | ServedSource, Field(discriminator="kind")
]


class Rule(Config):
    """A condition on one column of the event log; all the bounds given must hold."""

    column: str
    at_least: float | None = None
    at_most: float | None = None
    one_of: Many[str | int] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.at_least is None and self.at_most is None and self.one_of is None:
            raise ValueError("a rule needs at_least, at_most or one_of")
        return self


class SampledNegatives(Config):
    """Negatives drawn at random, for logs that say only what was chosen.

    Each example of each part gets its own: items that the user has in no positive event of any part, distinct, with the
    user, time, history, weight and context features of the example. They are no events: no vocabulary, count or
    statistic knows them. That held-out positives are never drawn is the published protocols' way, and knows the future.
    """

    per_positive: PositiveInt = 1
    """How many each positive example gets."""
    distribution: Literal["uniform", "popularity"] = "uniform"
    """Each item of the catalogue alike, or in proportion to its positive training events (never those without)."""


class _Shares(Config):
    valid: Share = 0.1
    """Share that validates."""
    test: Share = 0.1
    """Share that tests."""

    @property
    def held_out(self) -> float:
        """Share that does not train."""
        return self.valid + self.test

    @model_validator(mode="after")
    def _leave_something(self) -> Self:
        if round(self.held_out, SHARE_DIGITS) >= 1:
            raise ValueError(f"valid and test are {self.held_out:g} together, which leaves nothing to train on")
        return self


class TemporalSplit(_Shares):
    """One moment for all users: the last `valid + test` share of the events, cut by time; equal times stay together.

    Shares are of all events, those held back included, so that windows that end at different moments are of one size.
    """

    kind: Literal["temporal"]
    held_back: Share | None = None
    """Share of the newest events, which come after the test part. They are left out of everything: neither the
    catalogue nor any statistic knows them.
    """
    train: Share | None = None
    """Share of the events before the validation that trains: the newest of them. Older ones stand in histories and
    count as seen, for they were known, but they are no examples and enter no vocabulary, count or statistic.
    """

    @model_validator(mode="after")
    def _leave_something_before(self) -> Self:
        if self.held_back is not None and round(self.held_out + self.held_back, SHARE_DIGITS) >= 1:
            total = self.held_out + self.held_back
            raise ValueError(f"valid, test and held_back are {total:g} together, which leaves nothing to train on")
        return self


class LeaveLastOut(Config):
    """Each user's last event tests, the one before validates; users with fewer than 3 events only train.

    Ties in time are broken by the item's text, then by the event's digest: arbitrary, but the same everywhere.
    """

    kind: Literal["leave_last_out"]


class RandomSplit(_Shares):
    """Each event by itself, by a digest of its values and the seed; a history then holds training events only."""

    kind: Literal["random"]


class ByUserSplit(_Shares):
    """Whole users are held out; of each, the latest `targets` share of events is to be predicted from the earlier."""

    kind: Literal["by_user"]
    targets: Share = 0.2


class ColdUsersSplit(_Shares):
    """Whole users are held out, as in by_user, and all their events are to be predicted, the first without history."""

    kind: Literal["cold_users"]


class ColdItemsSplit(_Shares):
    """Whole items are held out, by a digest of the item and the seed: training has no event on them.

    A history then holds training events only, so a held-out item stands in none. The shares are of the items.
    """

    kind: Literal["cold_items"]


Split = Annotated[
    TemporalSplit | LeaveLastOut | RandomSplit | ByUserSplit | ColdUsersSplit | ColdItemsSplit,
    Field(discriminator="kind"),
]


SchemaColumn = Literal["user", "item", "timestamp"]
_NEEDED: dict[str, tuple[SchemaColumn, ...]] = {
    "temporal": ("timestamp",),
    "leave_last_out": ("user", "timestamp"),
    "by_user": ("user",),
    "cold_users": ("user",),
    "cold_items": ("item",),
    "random": (),
}
"""The columns of the schema without which a kind of split means nothing."""


class DuckDBEngine(Config):
    """In process, on this machine's cores; spills to disk past its memory limit."""

    kind: Literal["duckdb"] = "duckdb"
    memory_limit_gib: PositiveFloat = 3.0
    """DuckDB's own limit; the process needs about 1 GiB beside it."""


class SparkEngine(Config):
    """A Spark cluster, or `local[N]` (needs the extra `recsys[spark]` and a Java runtime)."""

    kind: Literal["spark"]
    master: str = "local[2]"


Engine = Annotated[DuckDBEngine | SparkEngine, Field(discriminator="kind"), default_tag("kind", "duckdb")]


class DataConfig(Config):
    """From raw events to prepared shards."""

    source: Source
    positives: Rule | None = None
    """Which events count as positive; all by default."""
    negatives: Rule | None = None
    """Which events count as negative: a ranker needs them, a two_tower trains on the positives alone. Events that are
    neither are dropped, before the split."""
    labels: dict[str, Rule] = Field(default_factory=dict)
    """Further labels of the positive and negative events, for a ranker's `heads`: 1 where the rule holds, else 0, and
    unknown where its column holds nothing."""
    sampled_negatives: SampledNegatives | None = None
    """Negatives drawn at random, where no events are negative."""
    min_history: NonNegativeInt = 0
    """Least number of events in an example's history. Positive events with fewer stay known (they stand in histories,
    vocabularies of users and items, and counts) but are no examples; negative ones are dropped."""
    split: Split = TemporalSplit(kind="temporal")
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of random splits, of sampled negatives and of the order of the training shards."""
    engine: Engine = DuckDBEngine()
    rows_per_group: PositiveInt = 65_536
    """Rows in a Parquet row group: the unit that the reader shuffles."""

    @property
    def rules(self) -> dict[str, Rule]:
        """Every rule, by the key that holds it."""
        own = {"positives": self.positives, "negatives": self.negatives}
        named = {f"labels.{name}": rule for name, rule in self.labels.items()}
        return {key: rule for key, rule in own.items() if rule is not None} | named

    @model_validator(mode="after")
    def _labels_have_names(self) -> Self:
        found = list[Misfit]()
        for name in self.labels:
            if name == MAIN_LABEL:
                found.append((("labels", name), "so the label that positives and negatives make is called; rename it"))
            elif not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
                text = f"label name {name!r} must be a letter, then letters, digits and underscores; rename it"
                found.append((("labels", name), text))
        if found:
            raise misfits(found)
        return self

    def lacks(self, schema: SchemaConfig) -> Iterator[tuple[tuple[str, ...], str, str]]:
        """(key, what it is, what it needs) for all that the schema names no columns for."""
        asked: dict[tuple[str, ...], tuple[str, tuple[SchemaColumn, ...]]] = {
            ("split", "kind"): (self.split.kind, _NEEDED[self.split.kind])
        }
        if self.min_history:
            asked["min_history",] = ("a history", ("user", "item", "timestamp"))
        if self.sampled_negatives is not None:
            asked["sampled_negatives",] = ("drawing negatives", ("user", "item"))
        for key, (what, columns) in asked.items():
            lacking = [f"schema.{column}" for column in columns if getattr(schema, column) is None]
            if lacking:
                yield key, what, " and ".join(lacking)

    @model_validator(mode="after")
    def _negatives_are_of_one_sort(self) -> Self:
        if self.sampled_negatives is None:
            return self
        if self.negatives is not None:
            text = "data.negatives says already which events are negative; remove one of the two"
            raise misfits([(("sampled_negatives",), text)])
        if isinstance(self.split, ColdItemsSplit):
            text = "cold_items holds items out, and drawn negatives would train on them; choose another kind of split"
            raise misfits([(("sampled_negatives",), text)])
        return self
