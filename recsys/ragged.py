"""Rows of unequal length, as one array of values and the offsets where rows begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Ragged:
    """`R` rows: row r is `values[offsets[r]:offsets[r + 1]]`.

    >>> r = Ragged.from_lists([[3, 1], [], [2]])
    >>> r[0].tolist(), len(r), r.lengths.tolist()
    ([3, 1], 3, [2, 0, 1])
    """

    values: NDArray[np.integer]
    offsets: NDArray[np.int64]

    def __post_init__(self) -> None:
        if (
            self.offsets.ndim != 1
            or len(self.offsets) == 0
            or self.offsets[0] != 0
            or self.offsets[-1] != len(self.values)
            or np.any(np.diff(self.offsets) < 0)
        ):
            raise ValueError(f"offsets must rise from 0 to {len(self.values)}, the number of values")

    @classmethod
    def from_lists(cls, rows: Sequence[ArrayLike]) -> Ragged:
        """From one sequence of integers per row."""
        arrays = [np.asarray(row, dtype=np.int64) for row in rows]
        offsets = np.concatenate([[0], np.cumsum([len(a) for a in arrays], dtype=np.int64)]).astype(np.int64)
        return cls(np.concatenate(arrays) if arrays else np.empty(0, np.int64), offsets)

    @classmethod
    def from_pairs(cls, rows: NDArray[np.integer], values: NDArray[np.integer], count: int) -> Ragged:
        """From parallel arrays of row numbers (any order) and values; `count` is the number of rows."""
        if len(rows) and not 0 <= rows.min() <= rows.max() < count:
            raise ValueError(f"row numbers must lie in 0..{count - 1}, not in {rows.min()}..{rows.max()}")
        order = np.argsort(rows, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=count))]).astype(np.int64)
        return cls(values[order], offsets)

    @classmethod
    def from_slices(cls, values: NDArray[np.integer], start: NDArray[np.int64], stop: NDArray[np.int64]) -> Ragged:
        """Row r is `values[start[r]:stop[r]]`; the slices may overlap.

        >>> Ragged.from_slices(np.array([5, 6, 7]), np.array([1, 0, 2]), np.array([3, 0, 3])).values.tolist()
        [6, 7, 7]
        """
        lengths = stop - start
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return cls(values[np.repeat(start - offsets[:-1], lengths) + np.arange(offsets[-1])], offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> NDArray[np.integer]:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[R] length of each row."""
        return np.diff(self.offsets)

    @property
    def row_of_value(self) -> NDArray[np.int64]:
        """[number of values] the row that each value stands in."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def slice(self, start: int, stop: int) -> Ragged:
        """Rows start..stop."""
        low, high = self.offsets[start], self.offsets[stop]
        return Ragged(self.values[low:high], self.offsets[start : stop + 1] - low)

    def take(self, rows: NDArray[np.integer]) -> Ragged:
        """The given rows, in the given order."""
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        places = np.repeat(self.offsets[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Ragged(self.values[places], offsets)

    def contains(self, table: NDArray[np.integer]) -> NDArray[np.bool_]:
        """[R, K] whether row r holds `table[r, k]`; negative entries of the table mean nothing.

        >>> Ragged.from_lists([[3, 1], []]).contains(np.array([[1, 2], [3, -1]])).tolist()
        [[True, False], [False, False]]
        """
        if table.ndim != 2 or len(table) != len(self):
            raise ValueError(f"a table of {len(self)} rows is needed, not one of shape {table.shape}")
        stride = _stride(self.values, table)
        keys = table.astype(np.int64) + np.arange(len(self))[:, None] * stride
        return _found(np.sort(self._keys(stride)), keys)[1] & (table >= 0)

    def difference(self, other: Ragged) -> Ragged:
        """Rows as sets: the distinct values of each row that the same row of `other` lacks, ascending.

        >>> r = Ragged.from_lists([[3, 1, 3], [2]]).difference(Ragged.from_lists([[1], [3]]))
        >>> r[0].tolist(), r[1].tolist()
        ([3], [2])
        """
        if len(other) != len(self):
            raise ValueError(f"{len(self)} rows cannot lose the values of {len(other)} rows")
        stride = _stride(self.values, other.values)
        own = np.sort(self._keys(stride))
        left = np.concatenate([own[:1] >= 0, own[1:] > own[:-1]])
        at, lost = _found(own[left], other._keys(stride))
        left[np.flatnonzero(left)[at[lost]]] = False
        rows, values = np.divmod(own[left], stride)
        return Ragged.from_pairs(rows, values, len(self))

    def _keys(self, stride: int) -> NDArray[np.int64]:
        """One number for each (row, value), so that rows are compared all at once."""
        if len(self.values) and self.values.min() < 0:
            raise ValueError(f"values must not be negative, as {self.values.min()} is")
        return self.row_of_value * stride + self.values.astype(np.int64)


def _found(rising: NDArray[np.int64], keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where each key would stand in `rising`, and whether it does: NumPy's set functions sort or hash the keys too."""
    at = np.searchsorted(rising, keys)
    there = at < len(rising)
    there[there] = rising[at[there]] == keys[there]
    return at, there


def _stride(*arrays: NDArray[np.integer]) -> int:
    """More than any value."""
    return 1 + max((int(a.max()) for a in arrays if a.size), default=0)
