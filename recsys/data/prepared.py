"""Opens a prepared folder: the tables in memory, the history windows, the users to evaluate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError

from recsys.data.dataset import (
    MISSING,
    STAGES,
    CategoricalInfo,
    DatasetInfo,
    FingerprintInfo,
    NumericInfo,
    Part,
    SequenceInfo,
    VectorInfo,
)
from recsys.errors import DataError
from recsys.ragged import Ragged
from recsys.schema.config import Role

Features = dict[str, NDArray]
"""Encoded features by name, as a batch holds them."""

_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


@dataclass(frozen=True)
class Events:
    """The positive events of all users, by user and in history order."""

    item_index: NDArray[np.int32]
    stage: NDArray[np.int8]
    time: NDArray[np.int64] | None


@dataclass(frozen=True)
class HeldOut:
    """One query per user with held-out positives: the user at the moment of the first of them.

    Attributes:
        user_index: [Q] ascending.
        query: user, history and context features that the model reads, as in a batch of size Q.
        context: all context features, whether the model reads them or not.
        relevant: Q rows of item indices: the user's held-out positives.
        gain: weight of each of them (1 where the schema names none), parallel to `relevant.values`.
        seen: Q rows of item indices: positives of earlier stages, which are not to be recommended again.
    """

    user_index: NDArray[np.int32]
    query: Features
    context: Features
    relevant: Ragged
    gain: NDArray[np.float32]
    seen: Ragged


class Prepared:
    """A prepared data set on disk.

    Raises:
        DataError: the folder is missing, incomplete or of another format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.info = DatasetInfo.model_validate_json((path / "dataset.json").read_bytes())
        except (OSError, ValidationError) as error:
            raise DataError(
                str(path / "dataset.json"),
                f"cannot be read ({type(error).__name__})",
                "a folder made by `recsys prepare`",
                "delete the folder and prepare again",
            ) from error
        absent = [name for name in ("items.parquet", "users.parquet", "events", "train") if not (path / name).exists()]
        if absent:
            raise DataError(
                str(path),
                f"lacks {', '.join(absent)}",
                "a whole prepared folder",
                "delete the folder and prepare again",
            )

    def names(self, *roles: Role) -> list[str]:
        """Names of the features with one of these roles that the model reads."""
        return [name for name, info in self.info.inputs.items() if info.role in roles]

    def values(self, name: str) -> NDArray:
        """The encoded column of a user or item feature, whether the model reads it or not: row n for index n.

        Raises:
            ValueError: the feature is a history or describes events; those have no value for each user or item.
        """
        info = self.info.features[name]
        if isinstance(info, SequenceInfo) or info.role == "context":
            raise ValueError(f"{name} is no column of the users or the items")
        return dense((self.items if info.role == "item" else self.users)[name], self.info, name)

    @cached_property
    def items(self) -> pa.Table:
        """`items.parquet`; row n is item index n."""
        return pq.read_table(self.path / "items.parquet", memory_map=True)

    @cached_property
    def users(self) -> pa.Table:
        """`users.parquet`; row n is user index n."""
        return pq.read_table(self.path / "users.parquet", memory_map=True)

    def vocabulary(self, name: str) -> NDArray[np.object_]:
        """[V] the values of a feature with a vocabulary, as text, in the order of their ids after missing and OOV."""
        return self._vocab(name)["value"].to_numpy()

    def frequencies(self, name: str) -> NDArray[np.int64]:
        """[rows] training rows that hold each id of a feature with a vocabulary or buckets; 0 where that is not
        counted: missing, OOV and buckets.
        """
        info = self.info.features[name]
        if isinstance(info, NumericInfo):
            return np.zeros(len(info.boundaries) + 2, np.int64)
        assert isinstance(info, CategoricalInfo)
        return np.concatenate([np.zeros(1 + info.oov_rows, np.int64), self._vocab(name)["count"].to_numpy()])

    def _vocab(self, name: str) -> pa.Table:
        return pq.read_table(self.path / "vocab" / f"{name}.parquet")

    @cached_property
    def train_count(self) -> NDArray[np.int64]:
        """[N] positive training events of each item."""
        return self.items["train_count"].to_numpy()

    @cached_property
    def events(self) -> Events:
        """Every user's positive events; `users.event_start` says where a user's begin."""
        columns = ["item_index", "stage", *(["time"] if self.info.has_time else [])]
        table = pq.read_table(self.path / "events", columns=columns)
        return Events(
            item_index=table["item_index"].to_numpy(),
            stage=table["stage"].to_numpy(),
            time=table["time"].to_numpy() if self.info.has_time else None,
        )

    @cached_property
    def event_start(self) -> NDArray[np.int64]:
        """[U + 1] where each user's events begin, and the total."""
        return np.append(self.users["event_start"].to_numpy(), self.info.counts.events)

    @cached_property
    def item_features(self) -> Features:
        """Encoded item features that the model reads, row n for item index n."""
        return {name: self.values(name) for name in self.names("item")}

    @cached_property
    def user_features(self) -> Features:
        """Encoded user features that the model reads, without histories, row n for user index n."""
        return {
            name: self.values(name)
            for name in self.names("user")
            if not isinstance(self.info.features[name], SequenceInfo)
        }

    def query_features(
        self,
        user_index: NDArray[np.int32],
        history_stop: NDArray[np.int64],
        context: Mapping[str, NDArray],
        time: NDArray[np.int64] | None,
    ) -> Features:
        """User, history and context features of `n` queries, each user's history ending before `history_stop`."""
        features = {name: column[user_index] for name, column in self.user_features.items()}
        for name, info in self._sequences.items():
            # A user's newest events before `history_stop`, oldest first, as [n, max_length] slices of one column.
            start = np.maximum(self.event_start[user_index], history_stop - info.max_length)
            inside = np.arange(info.max_length) < (history_stop - start)[:, None]
            features[name] = _windows(self._event_ids[info.of], start, info.max_length) * inside
            if info.age and time is not None:
                age = time[:, None] - _windows(self._event_time, start, info.max_length)
                seconds = age * _SECONDS[self.info.table_schema.timestamp_unit]
                features[f"{name}.age"] = (seconds * inside).astype(np.float32)
        return features | dict(context)

    @cached_property
    def _sequences(self) -> dict[str, SequenceInfo]:
        return {name: info for name, info in self.info.features.items() if isinstance(info, SequenceInfo)}

    @cached_property
    def _event_ids(self) -> Features:
        """The encoded value of each item feature that a history holds, at every event."""
        sources = {info.of for info in self._sequences.values()}
        return {name: self._with_end(self.item_features[name][self.events.item_index]) for name in sources}

    @cached_property
    def _event_time(self) -> NDArray[np.int64]:
        assert self.events.time is not None
        return self._with_end(self.events.time)

    def _with_end(self, column: NDArray) -> NDArray:
        """A column of the events, and as much after it as the longest window may reach beyond its end."""
        longest = max(info.max_length for info in self._sequences.values())
        return np.concatenate([column, np.full(longest, MISSING, column.dtype)])

    def examples(self, part: Part, columns: Sequence[str]) -> pa.Table:
        """These columns of all examples of `part`, in the order of its files (that of `reader.Examples.whole`).

        Raises:
            DataError: the part has no examples at all.
        """
        files = sorted((self.path / part).glob("part-*.parquet"))
        if not files:
            raise DataError(
                f"{self.info.name}: {part}", "no examples", "at least one", "enlarge the share in data.split"
            )
        return pq.read_table(files, columns=list(columns))

    def held_out(self, part: Part) -> HeldOut:
        """The users to evaluate on `part` ("valid" or "test").

        Raises:
            DataError: the part has no examples at all.
        """
        described = [name for name, info in self.info.features.items() if info.role == "context"]
        time = ["time"] if self.info.has_time else []
        own = ["user_index", "item_index", "label", "weight", "history_stop", *time]
        table = self.examples(part, [*own, *described])
        table = table.filter(pa.compute.equal(table["label"], 1.0))
        keys = ("user_index", *time, "history_stop", "item_index")
        table = table.sort_by([(key, "ascending") for key in keys])
        rows = table["user_index"].to_numpy()
        users, first, query = np.unique(rows, return_index=True, return_inverse=True)
        head = table.take(pa.array(first))
        context = {name: dense(head[name], self.info, name) for name in described}
        read = {name: context[name] for name in self.names("context")}
        moment = head["time"].to_numpy() if self.info.has_time else None
        return HeldOut(
            user_index=users,
            query=self.query_features(users, head["history_stop"].to_numpy(), read, moment),
            context=context,
            relevant=Ragged.from_pairs(query, table["item_index"].to_numpy(), len(users)),  # keeps the order of rows
            gain=table["weight"].to_numpy(),
            seen=self.seen_before(part).take(users),
        )

    def seen_before(self, part: Part | None) -> Ragged:
        """Every user's positive items of earlier stages than `part` (of all stages for None); row n is user index n."""
        earlier = np.ones(len(self.events.stage), bool)
        if part is not None:
            earlier = (self.events.stage < STAGES[part]) | (self.events.stage == STAGES["context"])
        offsets = np.concatenate([[0], np.cumsum(earlier)]).astype(np.int64)[self.event_start]
        return Ragged(self.events.item_index[earlier], offsets)


def _windows(column: NDArray, start: NDArray[np.int64], length: int) -> NDArray:
    """[n, length] copies of `column[start : start + length]`: whole slices, many times as fast as single values."""
    return np.lib.stride_tricks.sliding_window_view(column, length)[start]


def dense(column: pa.ChunkedArray, info: DatasetInfo, name: str) -> NDArray:
    """An encoded Parquet column as a batch holds it: [n], [n, L] padded with 0 at the end, or [n, D]."""
    if not pa.types.is_list(column.type) and not pa.types.is_fixed_size_list(column.type):
        return column.to_numpy()
    feature = info.features[name]
    array = column.combine_chunks()
    lengths = pa.compute.list_value_length(array).to_numpy(zero_copy_only=False).astype(np.int64)
    values = array.flatten().to_numpy(zero_copy_only=False)
    if isinstance(feature, VectorInfo):
        return values.reshape(len(lengths), feature.dim)
    assert isinstance(feature, (CategoricalInfo, FingerprintInfo))
    assert feature.max_length is not None
    out = np.full((len(lengths), feature.max_length), MISSING, values.dtype)
    out[np.arange(feature.max_length) < lengths[:, None]] = values
    return out
