"""The users that a bundle knows: their raw features, history and seen items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.errors import BundleError, RequestError
from recsys.ragged import Ragged

RAW = "raw."
"""Prefix of the columns that hold raw feature values."""


class UnknownUserError(RequestError):
    """The bundle does not know the user."""


class Texts:
    """Row numbers of texts: a binary search on the column itself, or on its order where it does not rise (8 bytes a
    text).
    """

    def __init__(self, column: pa.ChunkedArray, place: str) -> None:
        """Args: `column` of text; `place` names it in errors. Raises `BundleError` where one is null or comes twice."""
        texts = column.cast(pa.large_string()).combine_chunks()
        self._order: NDArray[np.int64] | None = None
        if not _rises(texts):
            self._order = pc.sort_indices(texts).to_numpy().astype(np.int64)
            texts = texts.take(pa.array(self._order))
        if texts.null_count or not _rises(texts):
            raise BundleError(place, "holds a value twice, or none", "text, each one once", "export the run again")
        self._texts = texts

    def find(self, text: str) -> int | None:
        """The row that holds `text`, or None."""
        low = self._place(text)
        if low == len(self._texts) or self._texts[low].as_py() != text:
            return None
        return low if self._order is None else int(self._order[low])

    def find_all(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """[n] the rows that hold these texts, -1 for those that none holds: one search for all of them."""
        if not len(self._texts):
            return np.full(len(texts), -1)
        wanted, last = pa.array(texts, pa.large_string()), len(self._texts) - 1
        low, high = np.zeros(len(texts), np.int64), np.full(len(texts), last + 1)
        while (low < high).any():
            middle = (low + high) // 2
            below = _told(pc.less(self._at(np.minimum(middle, last)), wanted)) & (low < high)
            low, high = np.where(below, middle + 1, low), np.where(below, high, np.minimum(middle, high))
        places = np.minimum(low, last)
        rows = places if self._order is None else self._order[places]
        return np.where(_told(pc.equal(self._at(places), wanted)), rows, -1)

    def starting(self, prefix: str, count: int) -> list[str]:
        """The first texts that begin so, in code point order: `count` of them at most."""
        first = self._place(prefix)
        return [text for text in self._texts[first : first + count].to_pylist() if text.startswith(prefix)]

    def _at(self, places: NDArray[np.int64]) -> pa.Array:
        return self._texts.take(pa.array(places))

    def _place(self, text: str) -> int:
        """Of the first that is not below `text`, in code point order."""
        low, high = 0, len(self._texts)
        while low < high:
            middle = (low + high) // 2
            if self._texts[middle].as_py() < text:
                low = middle + 1
            else:
                high = middle
        return low


def _told(answers: pa.Array) -> NDArray[np.bool_]:
    return answers.to_numpy(zero_copy_only=False)


def _rises(texts: pa.Array) -> bool:
    """Whether each text is above the one before."""
    return bool(pc.all(pc.less(texts[:-1], texts[1:]), min_count=0).as_py())


class Users:
    """`users.parquet` in memory (Arrow: per user the id and some 24 bytes, per event 16, and the raw features)."""

    def __init__(self, table: pa.Table, place: str) -> None:
        """Args: `table` in contiguous columns; `place` names the file in errors. Raises `BundleError`."""
        self.table = table
        """A row for each user, with the columns that the bundle needs."""
        self._whole: dict[str, Ragged] = {}
        self._rows = Texts(table["user"], f"{place}: column user")

    def __len__(self) -> int:
        return self.table.num_rows

    def row(self, user: str) -> int:
        """The row of a user.

        Raises:
            UnknownUserError: the bundle has none of this name.
        """
        row = self.find(user)
        if row is None:
            raise UnknownUserError(
                "user", f"no user {user!r} in the bundle", f"one of its {len(self)} users", "send `features` instead"
            )
        return row

    def find(self, user: str) -> int | None:
        """Likewise, or None."""
        return self._rows.find(user)

    def names(self, count: int, prefix: str = "") -> list[str]:
        """The first `count` users, or of those whose ids begin so, to try things with."""
        return self._rows.starting(prefix, count)

    def features(self, row: int) -> dict[str, Any]:
        """The user's raw features by name, null for missing."""
        return {
            name.removeprefix(RAW): self.table[name][row].as_py()
            for name in self.table.column_names
            if name.startswith(RAW)
        }

    def history(self, row: int) -> NDArray[np.int32]:
        """Item indices, oldest first."""
        return self._list("history", row, np.int32)

    def history_time(self, row: int) -> NDArray[np.int64] | None:
        """Times of the history's events, in the manifest's `timestamp_unit`; None where the data have no time."""
        return self._list("history_time", row, np.int64) if "history_time" in self.table.column_names else None

    def newest(self, column: str, rows: NDArray[np.integer], length: int) -> Ragged:
        """The last `length` values of a column of lists (`history`, `history_time`) of these users, oldest first."""
        lists = self._lists(column)
        stop = lists.offsets[1:][rows]
        return Ragged.from_slices(lists.values, np.maximum(lists.offsets[:-1][rows], stop - length), stop)

    def all_seen(self, rows: NDArray[np.integer]) -> Ragged:
        """As `seen`, of these users."""
        return self._lists("seen").take(rows)

    def _lists(self, column: str) -> Ragged:
        """A column whole: views of what Arrow holds, made on first use."""
        if column not in self._whole:
            array = self.table[column].cast(pa.large_list(self.table.schema.field(column).type.value_type))
            lists = array.combine_chunks()
            offsets = lists.offsets.to_numpy()
            first, last = int(offsets[0]), int(offsets[-1])
            values = lists.values.to_numpy(zero_copy_only=False)[first:last]
            self._whole[column] = Ragged(values, offsets - first)
        return self._whole[column]

    def item_counts(self, size: int) -> NDArray[np.int64]:
        """[size] how often each item stands in the histories."""
        return np.bincount(self._lists("history").values, minlength=size)

    def seen(self, row: int) -> NDArray[np.int32]:
        """Item indices that the user has met, in no order that counts."""
        return self._list("seen", row, np.int32)

    def _list(self, column: str, row: int, dtype: type[Any]) -> NDArray[Any]:
        values = self.table[column][row].values
        return np.empty(0, dtype) if values is None else values.to_numpy(zero_copy_only=False).astype(dtype)
