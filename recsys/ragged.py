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
        ):
            raise ValueError(f"offsets must run from 0 to {len(self.values)}, the number of values")

    @classmethod
    def from_lists(cls, rows: Sequence[ArrayLike]) -> Ragged:
        """From one sequence of integers per row."""
        arrays = [np.asarray(row, dtype=np.int64) for row in rows]
        offsets = np.concatenate([[0], np.cumsum([len(a) for a in arrays], dtype=np.int64)]).astype(np.int64)
        return cls(np.concatenate(arrays) if arrays else np.empty(0, np.int64), offsets)

    @classmethod
    def from_pairs(cls, rows: NDArray[np.integer], values: NDArray[np.integer], count: int) -> Ragged:
        """From parallel arrays of row numbers (any order) and values; `count` is the number of rows."""
        order = np.argsort(rows, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=count))]).astype(np.int64)
        return cls(values[order], offsets)

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
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return Ragged(self.values[np.repeat(self.offsets[rows], lengths) + within], offsets)
