"""Features that know the future: numbers of users and items that are statistics of the whole log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from recsys.data.dataset import PARTS, STAGES, NumericInfo, Suspicion, label_column
from recsys.data.prepared import Prepared
from recsys.errors import Problem
from recsys.evaluation.shards import Rows, event_users, logged

Entity = Literal["user", "item"]
NEVER = np.iinfo(np.int64).min
KNOWN = (STAGES["train"], STAGES["context"])
FOLLOWS = 0.95
"""Least |Spearman| of a feature with the statistic that it is said to be."""
AGREES = 0.98
"""Least share of telling pairs in which the feature sides with the whole log."""
PAIRS = 200_000
"""Pairs of users or items that are looked at."""
ENOUGH = 10
"""Least number of users or items in telling pairs: with fewer, nothing is said."""


def feature_leaks(prepared: Prepared) -> Iterator[Problem]:
    """Numeric features of users and items that the model reads, and that are a statistic of the whole log.

    A count of the whole log and one of the training part are correlated so strongly that a correlation alone tells
    nothing: what tells are the pairs of items that the two put in different order, or that only the whole log puts in
    an order. A feature that is (a monotone function of) the whole log's statistic sides with it in all those pairs; one
    of the training part, in none; a price or a year in about half. Popularity that was measured elsewhere sides with
    the whole log somewhat more often than not, for it is a better guess of future counts than chance. So a feature is
    named if |Spearman| with the whole log's statistic is at least `FOLLOWS` and it decides at least `AGREES` of those
    pairs in the whole log's favour. Neither scale, sign, rounding nor a logarithm matters; a constant is never named.

    What was known in training is the training part and the `context` events, which stand in histories. Not recognised
    are times of users or items of which nothing was known. The first event's time is not looked at, because honest
    dates of birth or publication are nearly that.

    Statistics of the raw log, with the events that the rules dropped, `prepare` has looked for; what it suspects is
    named here and not looked at again.
    """
    suspected = {suspicion.feature: suspicion for suspicion in prepared.info.suspicions}
    for entity in ("user", "item"):
        read = prepared.names(entity)
        yield from (_raw_leak(prepared, entity, suspected[name]) for name in read if name in suspected)
        numeric = [name for name in read if isinstance(prepared.info.features[name], NumericInfo)]
        numeric = [name for name in numeric if name not in suspected]
        if numeric:
            statistics = list(_statistics(prepared, entity))
            for name in numeric:
                yield from _feature_leak(prepared, entity, name, statistics)


@dataclass(frozen=True)
class _Statistic:
    """A number of each user or item; NaN where there is none."""

    name: str
    whole: NDArray[np.float64]
    """Of the whole log."""
    known: NDArray[np.float64]
    """Of what was known in training."""
    follows: float = FOLLOWS

    def agreement(self, feature: NDArray[np.float64]) -> float:
        """In which share of the telling pairs the feature sides with the whole log; 0 if it does not follow it."""
        there = ~(np.isnan(feature) | np.isnan(self.whole) | np.isnan(self.known))
        feature, whole, known = feature[there], self.whole[there], self.known[there]
        changed = np.flatnonzero(whole != known)
        correlation = _spearman(feature, whole)
        if len(changed) < ENOUGH or abs(correlation) < self.follows:
            return 0.0
        rng = np.random.default_rng(0)
        one, other = rng.choice(changed, PAIRS), rng.integers(0, len(whole), PAIRS)
        by_whole, by_known, by_feature = (np.sign(x[one] - x[other]) for x in (whole, known, feature))
        telling = (by_whole != 0) & (by_known != by_whole) & (by_feature != 0)
        if len(np.unique(one[telling])) < ENOUGH:
            return 0.0
        return float(np.mean((by_feature == by_whole * np.sign(correlation))[telling]))


def _spearman(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Spearman's correlation, ties at their mean rank; 0 if either is constant."""
    ranks = rankdata(x) - (len(x) + 1) / 2, rankdata(y) - (len(y) + 1) / 2
    size = float(np.sqrt(np.sum(ranks[0] ** 2) * np.sum(ranks[1] ** 2)))
    return float(ranks[0] @ ranks[1]) / size if size else 0.0


def _raw_leak(prepared: Prepared, entity: Entity, suspicion: Suspicion) -> Problem:
    return _leak(
        prepared,
        entity,
        suspicion.feature,
        f"it is the {suspicion.statistic} of each {entity} in the whole raw log, dropped and held-out events included: "
        f"so for {suspicion.share:.1%} of the {suspicion.compared} {entity}s where those held out change that number",
    )


def _leak(prepared: Prepared, entity: Entity, name: str, found: str) -> Problem:
    return Problem(
        f"{prepared.info.name}: {entity} feature {name!r}",
        found,
        "what was known before the held-out events",
        "compute it from the training part, or leave it out (input: false keeps it for slices)",
    )


def _feature_leak(prepared: Prepared, entity: Entity, name: str, statistics: list[_Statistic]) -> Iterator[Problem]:
    values = prepared.values(name).astype(np.float64)
    agreements = [statistic.agreement(values) for statistic in statistics]
    most = int(np.argmax(agreements))
    if agreements[most] >= AGREES:
        yield _leak(
            prepared,
            entity,
            name,
            f"it is, or nearly is, the {statistics[most].name} of each {entity} in the whole log: where that and the "
            f"training part rank two {entity}s differently, it sides with the whole log in {agreements[most]:.1%}",
        )


def _statistics(prepared: Prepared, entity: Entity) -> Iterator[_Statistic]:
    """The statistics that people put into their tables; those that are alike for all are left out."""
    examples, trained, whole, known = (_Tally(prepared, entity) for _ in range(4))
    labels = {name: label_column(name) for name in prepared.info.labels}
    time = ["time"] if prepared.info.has_time else []
    columns = [f"{entity}_index", "label", "weight", *time, *labels.values()]
    for part in PARTS:
        for rows in logged(prepared, part, columns):
            others = _take(rows, (rows["label"] == 0) | (not prepared.info.table_schema.has_histories))
            examples.add(rows)
            whole.add(others)
            if part == "train":
                trained.add(rows)
                known.add(others)
    yield _Statistic("share of positive events", examples.mean(examples.positives), trained.mean(trained.positives))
    yield _Statistic("mean weight", examples.mean(examples.weight), trained.mean(trained.weight))
    for name, column in labels.items():
        yield _Statistic(f"share of events with label {name!r}", examples.share(column), trained.share(column))
    positives = _positives(prepared, entity)
    whole.add(positives)
    known.add(_take(positives, np.isin(prepared.events.stage, KNOWN)))
    there = whole.events > 0
    counts = np.where(there, whole.events, np.nan), known.events.astype(np.float64)
    yield _Statistic("number of events", *counts)
    yield _Statistic(
        "number of positive events", np.where(there, whole.positives, np.nan), known.positives.astype(np.float64)
    )
    yield _Statistic("number of distinct partners", *_partners(prepared, entity))
    if prepared.info.has_time:
        yield _Statistic("time of the last event", whole.last_time(), known.last_time())
    # A count over the last weeks of training foretells the held-out count, so nothing short of that itself is named.
    yield _Statistic("number of held-out events", counts[0] - counts[1], counts[1], follows=0.999)


class _Tally:
    """Sums over events, for each user or item."""

    def __init__(self, prepared: Prepared, entity: Entity) -> None:
        self._index = f"{entity}_index"
        size = {"user": prepared.info.counts.users, "item": prepared.info.counts.items}[entity]
        self.events = np.zeros(size, np.int64)
        self.positives = np.zeros(size, np.int64)
        self.weight = np.zeros(size)
        self._last = np.full(size, NEVER)
        labels = [label_column(name) for name in prepared.info.labels]
        self._known = {column: np.zeros((2, size)) for column in labels}
        """Events with a further label of 1, and those of which it is known."""

    def add(self, rows: Rows) -> None:
        """More events."""
        index, size = rows[self._index], len(self.events)
        self.events += np.bincount(index, minlength=size)
        self.positives += np.bincount(index[rows["label"] > 0], minlength=size)
        self.weight += np.bincount(index, rows["weight"], minlength=size)
        if "time" in rows:
            np.maximum.at(self._last, index, rows["time"])

        for column, (ones, known) in self._known.items():
            labels = rows.get(column, np.full(len(index), np.nan))
            ones += np.bincount(index[labels == 1], minlength=size)
            known += np.bincount(index[~np.isnan(labels)], minlength=size)

    def share(self, column: str) -> NDArray[np.float64]:
        """Of label 1 among the events whose further label is known; NaN without such events."""
        ones, known = self._known[column]
        return np.divide(ones, known, out=np.full(len(known), np.nan), where=known > 0)

    def mean(self, total: NDArray) -> NDArray[np.float64]:
        """`total` by event; NaN without events."""
        return np.divide(total, self.events, out=np.full(len(total), np.nan), where=self.events > 0)

    def last_time(self) -> NDArray[np.float64]:
        """NaN without events."""
        return np.where(self.events > 0, self._last, np.nan)


def _positives(prepared: Prepared, entity: Entity) -> Rows:
    """The positive events, examples or not; what they weigh is not said. None, where there are no histories."""
    index = event_users(prepared) if entity == "user" else prepared.events.item_index
    rows: Rows = {f"{entity}_index": index}
    rows["label"] = rows["weight"] = np.ones(len(index), np.float32)
    if prepared.events.time is not None:
        rows["time"] = prepared.events.time
    return rows


def _take(rows: Rows, chosen: NDArray[np.bool_]) -> Rows:
    return {name: column[chosen] for name, column in rows.items()}


def _partners(prepared: Prepared, entity: Entity) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distinct items of each user's positive events, or users of each item's: in the whole log, and known."""
    items = prepared.info.counts.items
    pairs = event_users(prepared).astype(np.int64) * items + prepared.events.item_index
    was_known = np.isin(prepared.events.stage, KNOWN)

    def count(pairs: NDArray[np.int64]) -> NDArray[np.float64]:
        pairs = np.sort(pairs)  # np.unique of so many integers hashes them, in a multiple of the time and memory
        user, item = np.divmod(pairs[np.diff(pairs, prepend=-1) > 0], items)
        index, size = (user, prepared.info.counts.users) if entity == "user" else (item, items)
        return np.bincount(index, minlength=size).astype(np.float64)

    whole = count(pairs)
    return np.where(whole > 0, whole, np.nan), count(pairs[was_known])
