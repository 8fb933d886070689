"""What a page asks of a catalogue beside recommendations: what its items are, and a map of them."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from recsys.bundle.bundle import Bundle
from recsys.bundle.users import RAW
from serving.catalogue.map import CatalogueMap
from serving.catalogue.messages import DescribedItem, DescribedItems, DescribeRequest
from serving.pipeline.shelf import LiveShelf

NICENESS = 5
"""Of the thread that draws the map: whoever waits for recommendations comes first."""


class Explorer:
    """The items are those of the shelf, as it stands; the map is of the bundle, as it was exported."""

    def __init__(self, bundle: Bundle, shelf: LiveShelf) -> None:
        self._bundle, self._shelf = bundle, shelf
        self._lock = threading.Lock()
        self._drawn: Future[CatalogueMap] | None = None

    def map(self) -> CatalogueMap | None:
        """The map; None as long as it is being drawn, which begins when it is asked for first.

        Raises:
            BundleError: the bundle has no index.
        """
        with self._lock:
            if self._drawn is None:
                _ = self._bundle.index  # or the error is one of the thread's
                drawer = ThreadPoolExecutor(1, "map", initializer=_step_back)
                self._drawn = drawer.submit(CatalogueMap.of, self._bundle)
                drawer.shutdown(wait=False)
        return self._drawn.result() if self._drawn.done() else None

    def describe(self, request: DescribeRequest) -> DescribedItems:
        """Items with their features.

        Raises:
            BundleError: places are asked for, and the bundle has no index.
            RequestError: an id is no text.
        """
        drawn = self.map() if request.places else None
        with self._shelf.searching() as shelf:
            named = shelf.named(request.items, "items").tolist()
            rows = [row for row in (*request.rows, *named) if row < len(shelf.items) and shelf.filters.there[row]]
            places: list[Any] = [None] * len(rows)
            if drawn is not None and rows:
                vectors = (shelf.index or self._bundle.index).vectors[rows]
                places = [tuple(place) for place in drawn.projection.place(vectors).tolist()]
        found = shelf.items.take(pa.array(rows, pa.int64())).to_pylist()
        return DescribedItems(items=tuple(map(_described, rows, found, places)))


def _described(row: int, item: dict[str, Any], place: tuple[float, float] | None) -> DescribedItem:
    raw = {name.removeprefix(RAW): value for name, value in item.items() if name.startswith(RAW)}
    features = {name: value for name, value in raw.items() if _tells(value)}
    return DescribedItem(row=row, item=item["item"], title=item.get("title"), features=features, place=place)


def _tells(value: object) -> bool:
    """Whether a value is there, and is no vector."""
    if isinstance(value, list):
        return bool(value) and not isinstance(value[0], float)
    return value is not None and value != "" and not (isinstance(value, float) and np.isnan(value))


def _step_back() -> None:
    """Linux has a niceness for each thread."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
