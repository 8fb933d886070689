"""Statistics that know the future: what `prepare` says that it counted in the training part, counted again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from recsys.data.dataset import STAGES, CategoricalInfo, NumericInfo
from recsys.data.numbers import transformed
from recsys.data.prepared import Prepared
from recsys.errors import Problem
from recsys.evaluation.shards import event_users, logged
from recsys.schema.config import Categorical, MultiValued, Numeric, VocabularyEncoding

TOLERANCE = 1e-6
"""Of a mean or a deviation, relative to the column's size: sums in another order differ by far less."""
CONSTANT = 1e-12
"""A relative deviation below this is rounding, and `prepare` writes 1."""
PREPARE_AGAIN = "delete the folder and prepare again"


def statistic_leaks(prepared: Prepared) -> Iterator[Problem]:
    """Counts, vocabularies, means, deviations and quantiles that are not those of the training part alone."""
    counted = _Training(prepared)
    place = prepared.info.name
    train_count = prepared.train_count
    wrong = np.flatnonzero(train_count != counted.positives)
    if len(wrong):
        item = prepared.items["item"][int(wrong[0])].as_py()
        yield Problem(
            f"{place}: items.parquet: column 'train_count'",
            f"{_such(wrong, train_count)} (such as item {item!r}: {train_count[wrong[0]]})",
            f"the positive training events, which are {counted.positives[wrong[0]]} there",
            PREPARE_AGAIN,
        )
    for name, ids in counted.ids.items():
        yield from _vocabulary_leaks(prepared, name, ids)
    for name, numbers in counted.numbers.items():
        for found, expected in numbers.differences():
            yield Problem(f"{place}: feature {name!r}", found, f"{expected}, as in the training part", PREPARE_AGAIN)


def _vocabulary_leaks(prepared: Prepared, name: str, counted: NDArray[np.int64]) -> Iterator[Problem]:
    stored = prepared.frequencies(name)
    first = len(stored) - len(prepared.vocabulary(name))
    wrong = first + np.flatnonzero((stored != counted)[first:] | (counted[first:] < _min_count(prepared, name)))
    if len(wrong):
        value = prepared.vocabulary(name)[wrong[0] - first]
        yield Problem(
            f"{prepared.info.name}: vocab/{name}.parquet",
            f"{_such(wrong, stored[first:])} (such as {value!r}: {stored[wrong[0]]})",
            f"training rows that hold the value, which are {counted[wrong[0]]} there",
            PREPARE_AGAIN,
        )


def _such(wrong: NDArray[np.int64], of: NDArray) -> str:
    return f"{len(wrong)} of {len(of)} counts are not those of the training part"


def _min_count(prepared: Prepared, name: str) -> int:
    feature = prepared.info.table_schema.features[name]
    assert isinstance(feature, Categorical | MultiValued)
    assert isinstance(feature.encoding, VocabularyEncoding)
    return feature.encoding.min_count


def _number(prepared: Prepared, name: str) -> Numeric:
    feature = prepared.info.table_schema.features[name]
    assert isinstance(feature, Numeric)
    return feature


class _Training:
    """What `prepare` learns from the training part, counted again.

    A user's or item's value counts as often as there are training events, positive or negative, of the user or item; a
    context value once for each of them that is an example. Positive events stand in `events/`, examples or not.
    """

    def __init__(self, prepared: Prepared) -> None:
        features = prepared.info.features
        self.ids = {name: np.zeros(i.rows, np.int64) for name, i in features.items() if isinstance(i, CategoricalInfo)}
        """By feature: how many training rows hold each id."""
        self.numbers = {
            name: _Numbers(info, _number(prepared, name))
            for name, info in features.items()
            if isinstance(info, NumericInfo)
        }
        trained = prepared.events.stage == STAGES["train"]
        events = {"item": prepared.events.item_index[trained], "user": event_users(prepared)[trained]}
        sizes = {"item": prepared.info.counts.items, "user": prepared.info.counts.users}
        rows = {entity: np.bincount(index, minlength=sizes[entity]) for entity, index in events.items()}
        self.positives = rows["item"].copy()
        """[N] of each item."""
        of_context = [name for name in (*self.ids, *self.numbers) if features[name].role == "context"]
        schema = prepared.info.table_schema
        named = {entity: f"{entity}_index" for entity in schema.ids}
        for batch in logged(prepared, "train", [*named.values(), "label", *of_context]):
            # Without histories `events/` is empty, and every event is an example.
            counted = (batch["label"] == 0) | (not schema.has_histories)
            for entity, column in named.items():
                rows[entity] += np.bincount(batch[column][counted], minlength=len(rows[entity]))
            if "item" in named and not schema.has_histories:
                liked = batch["item_index"][batch["label"] > 0]
                self.positives += np.bincount(liked, minlength=len(self.positives))
            for name in of_context:
                self._add(name, batch[name], np.ones(len(batch["label"]), np.int64))
        for name in (*self.ids, *self.numbers):
            if features[name].role != "context":
                self._add(name, prepared.values(name), rows[features[name].role])

    def _add(self, name: str, values: NDArray, rows: NDArray[np.int64]) -> None:
        if name in self.numbers:
            self.numbers[name].add(values, rows)
        else:
            self.ids[name] += _held(values, rows, len(self.ids[name]))


def _held(ids: NDArray, rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """[count] how many rows hold each id; `ids` [n] or [n, L], of which each row counts an id once."""
    ordered = np.sort(ids.reshape(len(ids), -1), axis=1)
    once = np.ones(ordered.shape, bool)
    once[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    weights = np.broadcast_to(rows[:, None], ordered.shape)[once]
    return np.bincount(ordered[once], weights=weights, minlength=count).astype(np.int64)


class _Numbers:
    """Mean, deviation and quantiles of a numeric feature, from values that come in any number of pieces."""

    def __init__(self, info: NumericInfo, feature: Numeric) -> None:
        self._info = info
        self._feature = feature
        self._total = 0
        self._sums = np.zeros(2)
        """Of (x - m) and of its square, for m the mean to be checked, so that large numbers cancel."""
        self._bounds = np.array(info.boundaries)
        self._below = np.zeros(len(info.boundaries), np.int64)
        self._upto = np.zeros(len(info.boundaries), np.int64)
        self._rows = Counter[float]()
        """Of each whole number, for `log_squared_buckets`."""

    def add(self, values: NDArray, rows: NDArray[np.int64]) -> None:
        """Values, NaN for missing, and how many training rows hold each."""
        known = ~np.isnan(values) & (rows > 0)
        x, rows = values[known].astype(np.float64), rows[known]
        x = transformed(x, self._info.transform)
        off = x - self._info.mean
        self._total += int(rows.sum())
        self._sums += (off @ rows, off**2 @ rows)
        if self._info.transform == "log_squared_buckets":
            found, place = np.unique(x, return_inverse=True)
            self._rows.update(dict(zip(found.tolist(), np.bincount(place, rows).tolist(), strict=True)))
        below, upto = np.searchsorted(self._bounds, x, "right"), np.searchsorted(self._bounds, x, "left")
        for count, place in ((self._below, below), (self._upto, upto)):
            count += np.bincount(place, weights=rows, minlength=len(count) + 1).cumsum()[:-1].astype(np.int64)

    def differences(self) -> Iterator[tuple[str, str]]:
        """What the prepared data say, and what the training part says."""
        if self._total == 0:
            return
        shift, square = self._sums / self._total
        mean, std = self._info.mean + shift, np.sqrt(max(square - shift**2, 0.0))
        std = std if std > CONSTANT * max(abs(mean), 1.0) else 1.0
        size = TOLERANCE * (abs(mean) + std)
        if abs(shift) > size:
            yield f"its mean is {self._info.mean:.6g}", f"{mean:.6g}"
        if abs(std - self._info.std) > size:
            yield f"its standard deviation is {self._info.std:.6g}", f"{std:.6g}"
        if self._info.transform == "bucketize" and not self._are_quantiles():
            yield f"its {len(self._bounds)} bucket boundaries are no quantiles", "equally filled buckets"
        if self._info.transform == "log_squared_buckets":
            least = self._feature.bucket_rows
            frequent = sorted(number for number, rows in self._rows.items() if rows >= least)
            if frequent != self._bounds.tolist():
                expected = f"the {len(frequent)} whole numbers with {least} rows or more"
                yield f"its {len(self._bounds)} buckets are other numbers", expected

    def _are_quantiles(self) -> bool:
        """Whether every quantile is a boundary, and every boundary a quantile.

        The value of rank r is the boundary with at most r values below it and more than r up to it.
        """
        ranks = self._total * np.arange(1, self._feature.bucket_count) // self._feature.bucket_count
        boundary = np.searchsorted(self._upto, ranks, side="right")
        if boundary.max(initial=-1) >= len(self._bounds):
            return False
        return bool(np.all(self._below[boundary] <= ranks)) and len(np.unique(boundary)) == len(self._bounds)
