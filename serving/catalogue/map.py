"""The map of a catalogue: its items as points, with a colour for what they are."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.bundle.bundle import Bundle
from recsys.bundle.users import RAW
from serving.catalogue.messages import Legend, LegendColumn, LegendValue
from serving.catalogue.projection import Projection

POINTS = 50_000
"""More than these are not drawn: half of them are the most popular items, the others a random sample of the rest."""
COLOURS = 10
"""Values that have a colour of their own."""
WORTH = 0.2
"""The share of points that these must have for a column to be worth a colour: ids and the like are not."""


@dataclass(frozen=True)
class Colouring:
    """The colours of the points by one item feature."""

    column: LegendColumn
    codes: NDArray[np.uint16]
    """[P] see `LegendColumn.values`."""


@dataclass(frozen=True)
class CatalogueMap:
    """P points, and what is needed to find the place of any other item."""

    rows: NDArray[np.uint32]
    """[P] item indices, rising."""
    places: NDArray[np.float32]
    """[P, 2] x and y, from -1 to 1."""
    colourings: tuple[Colouring, ...]
    catalogue_size: int
    projection: Projection

    @classmethod
    def of(cls, bundle: Bundle) -> CatalogueMap:
        """The map of a two_tower's bundle, as it was exported. A few seconds of one core for `POINTS` points.

        Raises:
            BundleError: it has no index.
        """
        vectors, items = bundle.index.vectors[: bundle.manifest.catalogue_size], bundle.items
        rows = chosen(bundle.users.item_counts(len(vectors)), POINTS)
        projection = Projection.of(vectors[rows])
        features = items.take(pa.array(rows)).select([n for n in items.column_names if n.startswith(RAW)])
        found = [coloured(name.removeprefix(RAW), features[name]) for name in features.column_names]
        return cls(
            rows=rows.astype(np.uint32),
            places=projection.place(vectors[rows]),
            colourings=tuple(each for each in found if each is not None),
            catalogue_size=len(vectors),
            projection=projection,
        )

    def encode(self) -> bytes:
        """Little-endian arrays, one behind the other: places float32 [P, 2], rows uint32 [P], and for each column of
        the legend codes uint16 [P].
        """
        parts = [self.places.astype("<f4"), self.rows.astype("<u4"), *(c.codes.astype("<u2") for c in self.colourings)]
        return b"".join(part.tobytes() for part in parts)

    @property
    def legend(self) -> Legend:
        """What `encode` holds."""
        columns = tuple(each.column for each in self.colourings)
        return Legend(points=len(self.rows), catalogue_size=self.catalogue_size, columns=columns)


def chosen(popularity: NDArray[np.int64], most: int, seed: int = 0) -> NDArray[np.int64]:
    """The rows of all items, or of `most` of them, rising: the most popular half, and a sample of the others."""
    if len(popularity) <= most:
        return np.arange(len(popularity))
    order = np.argsort(-popularity, kind="stable")
    popular, others = order[: most // 2], order[most // 2 :]
    sample = np.random.default_rng(seed).choice(others, most - len(popular), replace=False)
    return np.sort(np.concatenate([popular, sample]))


def coloured(name: str, column: pa.ChunkedArray) -> Colouring | None:
    """Codes of a column of texts, or of lists of texts; None of another column, or of one with too many values.

    Of several values of an item the rarest that has a colour tells most: nearly all films are dramas or comedies, too.
    """
    several = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    of = column.type.value_type if several else column.type
    if not (pa.types.is_string(of) or pa.types.is_large_string(of)):
        return None
    lists = [list(values or ()) if several else [values] for values in column.to_pylist()]
    lists = [[value for value in values if value] for values in lists]
    counts = Counter(value for values in lists for value in set(values))
    best = sorted(counts, key=lambda value: (-counts[value], value))[:COLOURS]
    code = {value: number for number, value in enumerate(best, start=1)}
    other = len(best) + 1
    codes = np.array(
        [max((code.get(v, 0) for v in each), default=0) or other * bool(each) for each in lists], np.uint16
    )
    shown = np.bincount(codes, minlength=other + 1)
    if not lists or shown[1:other].sum() < WORTH * len(lists):
        return None
    values = tuple(LegendValue(name=value, count=int(shown[code[value]])) for value in best)
    return Colouring(LegendColumn(name=name, values=values), codes)
