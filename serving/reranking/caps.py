"""Bounds on how many items of a list share a value of a column."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.bundle.filters import DELETED
from recsys.bundle.users import RAW
from recsys.errors import ConfigError, Problem
from recsys.ragged import Ragged
from serving.reranking.config import Cap

Codes = NDArray[np.int64]


class Caps:
    """The values by which the items of a catalogue are capped. A code is a pair of a cap and a value of its column."""

    def __init__(self, codes: Ragged, most: Codes) -> None:
        """Of each item's codes, and how many items of a list may have each code."""
        self._codes = codes
        self.most = most

    @classmethod
    def of(cls, caps: Sequence[Cap], items: pa.Table) -> Caps:
        """Bound to the columns of `items.parquet`.

        Raises:
            ConfigError: with one problem for each column that is not there, or has no values to count.
        """
        columns = {name.removeprefix(RAW): name for name in items.column_names if name != DELETED}
        problems = [problem for number, cap in enumerate(caps) for problem in _problems(number, cap, columns, items)]
        if problems:
            raise ConfigError(problems)
        rows, codes, most, first = [np.empty(0, np.int64)], [np.empty(0, np.int64)], list[int](), 0
        for cap in caps:
            row, code = _pairs(items[columns[cap.column]])
            rows.append(row)
            codes.append(code + first)
            values = int(code.max(initial=-1)) + 1
            most += [cap.most] * values
            first += values
        pairs = Ragged.from_pairs(np.concatenate(rows), np.concatenate(codes), len(items))
        return cls(pairs, np.array(most, np.int64))

    def room(self, items: NDArray[np.integer]) -> Codes:
        """[codes] how many more items of each code a list of these may have; below 0 where it has too many."""
        return self.most - np.bincount(self._codes.take(items).values, minlength=len(self.most))

    def counted(self, items: NDArray[np.integer]) -> Counted:
        """Candidates, to be taken one by one."""
        return Counted(self._codes.take(items))

    def together(self, items: NDArray[np.integer], room: Codes) -> NDArray[np.bool_]:
        """[C] a set of these candidates, best first, any part of which the `room` suffices for.

        In it is who finds room for each of its values even if all the better candidates with that value are taken.
        """
        codes = self._codes.take(items)
        order = np.argsort(codes.values, kind="stable")
        _, starts = np.unique(codes.values[order], return_index=True)
        better = np.empty(len(order), np.int64)
        better[order] = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
        fits = np.ones(len(items), np.bool_)
        fits[codes.row_of_value[better >= room[codes.values]]] = False
        return fits


class Counted:
    """C candidates and the codes that they have."""

    def __init__(self, codes: Ragged) -> None:
        self._codes = codes
        self._rows = codes.row_of_value

    def full(self, room: Codes) -> NDArray[np.bool_]:
        """[C] whether a candidate has a code that there is no room for."""
        full = np.zeros(len(self._codes), np.bool_)
        full[self._rows[room[self._codes.values] <= 0]] = True
        return full

    def __getitem__(self, candidate: int) -> NDArray[np.integer]:
        return self._codes[candidate]


def _problems(number: int, cap: Cap, columns: dict[str, str], items: pa.Table) -> list[Problem]:
    place, name = f"rules.caps.{number}.column", cap.column
    if name not in columns:
        close = difflib.get_close_matches(name, columns, n=1)
        cure = f"did you mean {close[0]}?" if close else "leave the cap out"
        return [Problem(place, f"the items have no column {name!r}", f"one of {', '.join(sorted(columns))}", cure)]
    kind = items.schema.field(columns[name]).type
    if pa.types.is_floating(kind) or pa.types.is_fixed_size_list(kind):
        return [Problem(place, f"{name!r} holds {kind}", "a column of categories", "cap another column")]
    return []


def _pairs(column: pa.ChunkedArray) -> tuple[Codes, Codes]:
    """Item and code of each value that an item has; a value that it has twice counts once."""
    whole = column.combine_chunks()
    if pa.types.is_list(whole.type) or pa.types.is_large_list(whole.type):
        rows, values = pc.list_parent_indices(whole).to_numpy(), pc.list_flatten(whole)
    else:
        rows, values = np.arange(len(whole)), whole
    encoded = pc.dictionary_encode(values)
    there = encoded.indices.is_valid().to_numpy(zero_copy_only=False)
    codes = encoded.indices.drop_null().to_numpy().astype(np.int64)
    count = len(encoded.dictionary) or 1
    distinct = np.unique(rows[there].astype(np.int64) * count + codes)
    return distinct // count, distinct % count
