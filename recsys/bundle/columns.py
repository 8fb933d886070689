"""From a bundle's tables to the arrays that a tower's or ranker's signature takes, column by column: what
`RequestEncoder` makes of requests one by one, without a Python object for each row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.bundle.manifest import (
    CategoricalField,
    MultiValuedField,
    NumericField,
    RawField,
    SequenceField,
    VectorField,
)
from recsys.bundle.requests import Arrays
from recsys.bundle.users import RAW, Users
from recsys.ragged import Ragged

PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000}
"""By `timestamp_unit`."""


def arrays_of(table: pa.Table, fields: Mapping[str, RawField], rows: NDArray[np.integer]) -> Arrays:
    """As `RequestEncoder.encode` for the raw features of `rows` [B] of a table with columns `raw.FEATURE`."""
    taken = table.select([f"{RAW}{name}" for name in fields]).take(pa.array(rows, pa.int64()))
    return {name: _array(field, taken[f"{RAW}{name}"].combine_chunks()) for name, field in fields.items()}


def missing(fields: Mapping[str, RawField], count: int) -> Arrays:
    """As `RequestEncoder.encode` for `count` requests that say nothing of these features."""
    arrays: Arrays = {}
    for name, field in fields.items():
        match field:
            case CategoricalField():
                arrays[name] = np.full(count, "", object)
            case NumericField():
                arrays[name] = np.full(count, np.nan, np.float32)
            case VectorField():
                arrays[name] = np.zeros((count, field.dim), np.float32)
            case MultiValuedField():
                arrays[name] = np.full((count, 1), "", object)
            case SequenceField():
                arrays[name] = np.full((count, 1), "", object)
                if field.age:
                    arrays[f"{name}.age"] = np.zeros((count, 1), np.float32)
    return arrays


def known_queries(
    users: Users, items: pa.Table, fields: Mapping[str, RawField], rows: NDArray[np.integer], unit: str | None
) -> Arrays:
    """As `RequestEncoder.encode` for the known users `rows` [B], each at the time of the newest event, without context.

    Args:
        users: of the bundle.
        items: the bundle's, for what histories hold.
        fields: of user and context features.
        rows: rows of `users`.
        unit: of their times; None where there are none.
    """
    own = {name: each for name, each in fields.items() if each.role == "user" and not isinstance(each, SequenceField)}
    arrays = missing(fields, len(rows)) | arrays_of(users.table, own, rows)
    for name, field in fields.items():
        if not isinstance(field, SequenceField):
            continue
        newest = users.newest("history", rows, field.max_length)
        values = items[f"{RAW}{field.of}"].take(pa.array(newest.values))
        arrays[name] = _padded(newest, _texts(values), "", object)
        if field.age and unit is not None:
            times = users.newest("history_time", rows, field.max_length)
            # Not the last one: events of one time may stand in any order.
            latest = np.full(len(rows), np.iinfo(np.int64).min)
            np.maximum.at(latest, times.row_of_value, times.values)
            ages = (latest[times.row_of_value] - times.values) / PER_SECOND[unit]
            arrays[f"{name}.age"] = _padded(times, ages, 0.0, np.float32)
    return arrays


def stacked(parts: Sequence[Arrays]) -> Arrays:
    """Encoded requests (or items) of the same features, one after the other, padded to one width."""
    return {name: _stack([part[name] for part in parts]) for name in parts[0]}


def _stack(arrays: list[NDArray[Any]]) -> NDArray[Any]:
    width = max(array.shape[-1] for array in arrays)
    fill = "" if arrays[0].dtype == object else 0.0
    wide = [
        array
        if array.ndim == 1 or array.shape[1] == width
        else np.pad(array, ((0, 0), (0, width - array.shape[1])), constant_values=fill)
        for array in arrays
    ]
    return np.concatenate(wide)


def _array(field: RawField, column: pa.Array) -> NDArray[Any]:
    match field:
        case CategoricalField():
            return _texts(column)
        case NumericField():
            return column.cast(pa.float32()).fill_null(np.nan).to_numpy(zero_copy_only=False)
        case VectorField():
            # A vector may be missing; its place among the values of a list column is then empty.
            found = np.zeros((len(column), field.dim), np.float32)
            known = pc.is_valid(column).to_numpy(zero_copy_only=False)
            found[known] = pc.list_flatten(column).to_numpy(zero_copy_only=False).reshape(-1, field.dim)
            return found
        case MultiValuedField() | SequenceField():
            rows = pc.list_parent_indices(column).to_numpy()
            values = _texts(pc.list_flatten(column))
            said = values != ""
            first = _first(rows[said], values[said], len(column), field.max_length)
            return _padded(*first, "", object)


def _first(rows: NDArray[np.integer], values: NDArray[Any], count: int, length: int) -> tuple[Ragged, NDArray[Any]]:
    """The first `length` values of each row, as places in the array beside them."""
    lengths = np.bincount(rows, minlength=count)
    start = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    places = Ragged.from_slices(np.arange(len(values)), start, start + np.minimum(lengths, length))
    return places, values[places.values]


def _padded(rows: Ragged, values: NDArray[Any], fill: object, dtype: type) -> NDArray[Any]:
    """[B, L] the `values` of all `rows`, one after the other; L is the longest row's length, and at least 1."""
    padded: NDArray[Any] = np.full((len(rows), max(1, int(rows.lengths.max(initial=0)))), fill, dtype=dtype)
    row = rows.row_of_value
    padded[row, np.arange(len(values)) - rows.offsets[row]] = values
    return padded


def _texts(column: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    """[n] objects, "" for null."""
    filled = column.cast(pa.large_string()).fill_null("")
    whole = filled.combine_chunks() if isinstance(filled, pa.ChunkedArray) else filled
    return whole.to_numpy(zero_copy_only=False)
