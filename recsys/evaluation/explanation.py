"""What a trained ranker looked at: the fields that its interaction heeded, and the events of a history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import expit

from recsys._compat import tf
from recsys.data.dataset import MISSING, CategoricalInfo, FingerprintInfo, Part, SequenceInfo
from recsys.data.prepared import Prepared
from recsys.data.reader import Examples
from recsys.errors import ConfigError, DataError
from recsys.models.base import EmbeddingModel
from recsys.models.ranker import Ranker

CAPTION = (
    "Weights say where a layer looked, not why the score is what it is: "
    "they tell nothing of the vectors that they weigh, and other weights may give the same score."
)
BLOCK = 1_024
"""Examples whose weights are in memory at once."""
MEANED = 100_000
"""Means are taken over so many examples at most: the first, which stand in an order made pseudo-random by digest."""
DIGITS = 6
"""Of a weight in JSON."""
UNKNOWN = "(not in the vocabulary)"

Value = str | float | list[str] | list[float] | None
"""A raw value as a request would carry it."""


@dataclass(frozen=True)
class Looks:
    """What the layers weighed by, for one example or in the mean; None where the model has no such layer."""

    attention: NDArray[np.float64] | None
    """[layers, heads, F, F] of AutoInt: how much each field (row) heeds each field (column); rows sum to 1."""
    gates: NDArray[np.float64] | None
    """[heads, neurons, F] of ARM-Net: how much each neuron heeds each field; they sum to 1 over the fields."""
    history: NDArray[np.float64] | None
    """[T] what each event weighs in the history's vector, the newest first. Of an example, as many as it has; in the
    mean, each place's over the examples whose history reaches so far.
    """

    def heeded(self) -> NDArray[np.float64] | None:
        """[F] the share of attention (or of gates) that falls on each field, over everything that looks."""
        weights = self.gates if self.attention is None else self.attention
        return None if weights is None else weights.reshape(-1, weights.shape[-1]).mean(0)

    def record(self) -> dict[str, Any]:
        """For JSON: lists of the shapes above."""
        found = {"attention": self.attention, "gates": self.gates, "history": self.history}
        return {name: weights.round(DIGITS).tolist() for name, weights in found.items() if weights is not None}


@dataclass(frozen=True)
class Item:
    """An item; None where the log names none."""

    item: str | None
    title: str | None


@dataclass(frozen=True)
class Prediction:
    """One example: who, what, the score, and where the layers looked."""

    user: str | None
    """None where the log names none; likewise the item."""
    item: str | None
    title: str | None
    label: float
    score: float
    """The probability of label 1."""
    values: Mapping[str, Value]
    """Raw values of the fields."""
    events: tuple[Item, ...]
    """The items of the history, the newest first, beside `looks.history`."""
    looks: Looks

    def record(self) -> dict[str, Any]:
        """For JSON."""
        found: dict[str, Any] = {name: getattr(self, name) for name in ("user", "item", "title", "label", "score")}
        found |= {"values": dict(self.values), **self.looks.record()}
        if self.looks.history is not None:
            found["events"] = [{"item": event.item, "title": event.title} for event in self.events]
        return found


@dataclass(frozen=True)
class Explanation:
    """Where a ranker's layers look in the mean, and where they did for some examples."""

    part: Part
    examples: int
    """Over how many examples the means are taken."""
    fields: tuple[str, ...]
    """The names of the F fields, in the schema's order."""
    mean: Looks
    predictions: tuple[Prediction, ...]

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "caption": CAPTION,
            "part": self.part,
            "examples": self.examples,
            "fields": list(self.fields),
            "mean": self.mean.record(),
            "predictions": [each.record() for each in self.predictions],
        }


def explain_model(
    model: EmbeddingModel,
    prepared: Prepared,
    part: Part = "test",
    *,
    examples: int = 5,
    user: str | None = None,
    item: str | None = None,
) -> Explanation:
    """Where the layers look in the mean over a part, and for some of its examples.

    Args:
        model: trained.
        prepared: the data it was trained on.
        part: whose examples.
        examples: how many of them are told one by one: the first of those that are asked for.
        user: only this user's.
        item: only those on this item.

    Raises:
        ConfigError: the model has no layer that weighs fields or events.
        DataError: there is no such example.
    """
    if not isinstance(model, Ranker) or not model.weighs:
        raise ConfigError(
            "model",
            "no layer of it weighs fields or events, so there is nothing to show",
            "a ranker with interaction: autoint or arm_net, or with a sequence layer",
            "recsys inspect shows what became of any model's tables",
        )
    rows = _find(prepared, part, examples, user, item)
    mean, count = _mean(model, Examples(prepared, part, batch_size=1, seed=None))
    return Explanation(part, count, model.field_names, mean, _predictions(model, prepared, part, rows))


def _find(prepared: Prepared, part: Part, count: int, user: str | None, item: str | None) -> NDArray[np.int64]:
    """The first rows of a part that are asked for."""
    asked = {what: name for what, name in (("user", user), ("item", item)) if name is not None}
    named = prepared.info.table_schema.ids
    index = prepared.examples(part, ["label", *(f"{what}_index" for what in asked if what in named)])
    chosen = np.full(len(index), all(what in named for what in asked))
    for what, name in asked.items():
        if what in named:
            table = prepared.users if what == "user" else prepared.items
            chosen &= np.isin(index[f"{what}_index"].to_numpy(), np.flatnonzero(table[what].to_numpy() == name))
    if not chosen.any():
        found = "no example of " + (" on ".join(f"{what} {name!r}" for what, name in asked.items()) or "anybody")
        raise DataError(f"{prepared.info.name}: {part}", found, "at least one", "ask for another, or for another part")
    return np.flatnonzero(chosen)[:count]


def _mean(model: Ranker, reader: Examples) -> tuple[Looks, int]:
    """Over the first examples, and over how many."""
    looks = tf.function(model.looks, autograph=False, reduce_retracing=True)
    sums, seen, reached = dict[str, NDArray[np.float64]](), 0, np.zeros(1)
    for batch in reader.whole(BLOCK):
        found = {name: weights.numpy() for name, weights in looks(batch).items()}
        if "history" in found:
            found["history"], lengths = _newest_first(model, found["history"], batch)
            reached = reached + (np.arange(found["history"].shape[1]) < lengths[:, None]).sum(0)
        for name, weights in found.items():
            sums[name] = sums.get(name, 0.0) + weights.sum(0, dtype=np.float64)
        seen += len(batch["label"])
        if seen >= MEANED:
            break
    counts = {name: np.maximum(reached, 1) if name == "history" else seen for name in sums}
    return _looks({name: total / counts[name] for name, total in sums.items()}), seen


def _predictions(model: Ranker, prepared: Prepared, part: Part, rows: NDArray[np.int64]) -> tuple[Prediction, ...]:
    """The examples of these rows, one by one."""
    batch = Examples(prepared, part, batch_size=1, seed=None).take(rows)
    scores = np.asarray(expit(model.score(batch).numpy().astype(np.float64)))
    weights = {name: each.numpy().astype(np.float64) for name, each in model.looks(batch).items()}
    events: list[tuple[Item, ...]] = [()] * len(rows)
    lengths = np.zeros(len(rows), np.int64)
    if "history" in weights:
        weights["history"], lengths = _newest_first(model, weights["history"], batch)
        windows = _windows(prepared, part, rows, batch, model.history_names[0])
        newest = [items[::-1][:length] for items, length in zip(windows, lengths, strict=True)]
        events = [tuple(_described(prepared.items, items)) for items in newest]
    users, items = _users(prepared, batch), _items(prepared, batch)
    values = _values(prepared, part, rows, batch, model.field_names)
    found = []
    for n, (user, item) in enumerate(zip(users, items, strict=True)):
        own = {name: each[n, : lengths[n]] if name == "history" else each[n] for name, each in weights.items()}
        told = {name: column[n] for name, column in values.items()}
        label, score = float(batch["label"][n]), float(scores[n])
        found.append(Prediction(user, item.item, item.title, label, score, told, events[n], _looks(own)))
    return tuple(found)


def _users(prepared: Prepared, batch: Mapping[str, Any]) -> list[str | None]:
    index = batch.get("user_index")
    return [None] * len(batch["label"]) if index is None else prepared.users["user"].take(pa.array(index)).to_pylist()


def _items(prepared: Prepared, batch: Mapping[str, Any]) -> list[Item]:
    index = batch.get("item_index")
    return [Item(None, None)] * len(batch["label"]) if index is None else _described(prepared.items, index)


def _looks(weights: Mapping[str, NDArray[np.float64]]) -> Looks:
    return Looks(weights.get("attention"), weights.get("gates"), weights.get("history"))


def _newest_first(
    model: Ranker, weights: NDArray[np.float64], batch: Mapping[str, Any]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Weights [B, T], which come oldest first and padded at the end, the other way round; and how many each row has."""
    length = weights.shape[1]
    lengths = np.minimum(_lengths(batch["query"][model.history_names[0]]), length)
    place = lengths[:, None] - 1 - np.arange(length)
    return np.where(place >= 0, np.take_along_axis(weights, np.maximum(place, 0), 1), 0.0), lengths


def _lengths(ids: Any) -> NDArray[np.int64]:
    """[B] of padded rows."""
    there = np.asarray(ids) != MISSING
    return np.where(there, 1 + np.arange(there.shape[1]), 0).max(1, initial=0)


def _windows(
    prepared: Prepared, part: Part, rows: NDArray[np.int64], batch: Mapping[str, Any], name: str
) -> list[NDArray[np.int32]]:
    """The items of each row's history `name`, oldest first."""
    info = prepared.info.features[name]
    assert isinstance(info, SequenceInfo)
    stops = prepared.examples(part, ["history_stop"])["history_stop"].to_numpy()[rows]
    starts = np.maximum(prepared.event_start[batch["user_index"]], stops - info.max_length)
    ends = starts + _lengths(batch["query"][name])
    return [prepared.events.item_index[start:end] for start, end in zip(starts, ends, strict=True)]


def _described(table: pa.Table, rows: NDArray[np.int32]) -> list[Item]:
    items = table.take(pa.array(rows))
    titles = items["title"].to_pylist() if "title" in items.column_names else [None] * len(items)
    return [Item(item, title) for item, title in zip(items["item"].to_pylist(), titles, strict=True)]


def _values(
    prepared: Prepared, part: Part, rows: NDArray[np.int64], batch: Mapping[str, Any], names: tuple[str, ...]
) -> dict[str, list[Value]]:
    """Raw values of the rows, by feature; of a history that is pooled, those of its events, oldest first."""

    def values(name: str) -> list[Value]:
        info = prepared.info.features[name]
        if isinstance(info, SequenceInfo):
            raw = prepared.items[f"raw.{info.of}"]
            return [raw.take(pa.array(items)).to_pylist() for items in _windows(prepared, part, rows, batch, name)]
        if info.role == "context":
            return _decoded(prepared, name, prepared.examples(part, [name])[name].take(pa.array(rows)))
        table = prepared.items if info.role == "item" else prepared.users
        return table[f"raw.{name}"].take(pa.array(batch[f"{info.role}_index"])).to_pylist()

    return {name: values(name) for name in names}


def _decoded(prepared: Prepared, name: str, column: pa.ChunkedArray) -> list[Value]:
    """What a context feature's ids stand for; of fingerprints, which cannot be read back, their numbers."""
    info = prepared.info.features[name]
    if isinstance(info, CategoricalInfo):
        texts = [None, *[UNKNOWN] * info.oov_rows, *prepared.vocabulary(name)]
    elif isinstance(info, FingerprintInfo):
        texts = None
    else:
        return [None if value != value else value for value in column.to_pylist()]

    def read(value: Any) -> Any:
        if isinstance(value, list):
            return [read(each) for each in value]
        return (f"#{value}" if value != MISSING else None) if texts is None else texts[value]

    return [read(value) for value in column.to_pylist()]
