"""Numbers about columns, computed so that neither the engine, its threads nor the order of rows can change a bit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.data.dataset import NumericInfo
from recsys.data.numbers import transformed
from recsys.errors import DataError
from recsys.schema.config import Numeric

Stream = Callable[[], Iterable[pa.RecordBatch]]
"""Opens a stream of (value: a number, count: integer) batches, by rising value."""
ROUNDING = 1e-12
"""A relative deviation below this is rounding: the column is constant."""


def values_at(batches: Iterable[pa.RecordBatch], ranks: Sequence[int]) -> list[float]:
    """The values at these ranks (rising, from 0) among all rows of a stream of (value, count), sorted by value."""
    found: list[float] = []
    seen = 0
    for values, counts in _arrays(batches):
        ends = seen + np.cumsum(counts)
        inside = [rank for rank in ranks[len(found) :] if rank < ends[-1]]
        found += values[np.searchsorted(ends, inside, side="right")].tolist()
        seen = int(ends[-1])
    return found


def describe(name: str, feature: Numeric, stream: Stream) -> NumericInfo:
    """Mean, population standard deviation and quantiles of a numeric feature over the training rows.

    Sums are exact (`math.fsum`), so they do not depend on the order of rows.

    Raises:
        DataError: no training row holds a value.
    """
    total = sum(int(counts.sum()) for _, counts in _arrays(stream()))
    if total == 0:
        raise DataError(
            f"numeric feature {name!r}", "no training row holds a value", "at least one", "leave the feature out"
        )

    def numbers() -> Iterator[tuple[NDArray, NDArray[np.int64]]]:
        return ((transformed(values, feature.transform), counts) for values, counts in _arrays(stream()))

    mean = _sum(x * counts for x, counts in numbers()) / total
    variance = _sum((x - mean) ** 2 * counts for x, counts in numbers()) / total
    std = math.sqrt(variance)
    boundaries: Sequence[float] = ()
    if feature.transform == "bucketize":
        ranks = [total * bucket // feature.bucket_count for bucket in range(1, feature.bucket_count)]
        boundaries = sorted(set(values_at(stream(), ranks)))
    elif feature.transform == "log_squared_buckets":
        boundaries = frequent(numbers(), feature.bucket_rows)
    return NumericInfo(
        role=feature.role,
        input=feature.input,
        transform=feature.transform,
        mean=mean,
        std=std if std > ROUNDING * max(abs(mean), 1.0) else 1.0,
        boundaries=tuple(boundaries),
    )


def frequent(pieces: Iterable[tuple[NDArray, NDArray[np.int64]]], least: int) -> list[float]:
    """The numbers that stand in at least `least` rows, rising, from pieces of (number, rows) in any order."""
    rows = Counter[float]()
    for x, counts in pieces:
        found, place = np.unique(x, return_inverse=True)
        rows.update(dict(zip(found.tolist(), np.bincount(place, counts).tolist(), strict=True)))
    return sorted(number for number, count in rows.items() if count >= least)


def _arrays(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[NDArray, NDArray[np.int64]]]:
    for batch in batches:
        if batch.num_rows:
            values = batch.column(0).to_numpy(zero_copy_only=False)
            wide = values.astype(np.float64) if values.dtype.kind == "f" else values
            yield wide, batch.column(1).to_numpy(zero_copy_only=False).astype(np.int64)


def _sum(terms: Iterable[NDArray[np.float64]]) -> float:
    return math.fsum(chain.from_iterable(part.tolist() for part in terms))
