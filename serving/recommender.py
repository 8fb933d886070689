"""From a request to recommendations: what the server and the command line share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.bundle.bundle import Bundle
from recsys.bundle.catalogue_update import apply, changes, queries_of
from recsys.bundle.filters import ItemFilters
from recsys.bundle.manifest import SequenceField
from recsys.bundle.new_items import NewItems
from recsys.bundle.requests import text_of
from recsys.bundle.users import RAW, Texts
from recsys.errors import RequestError
from recsys.ragged import Ragged
from recsys.retrieval.allowed import Allowed
from recsys.retrieval.exact import ExactIndex
from recsys.retrieval.index import Index, Neighbours
from recsys.retrieval.scann_index import ScannIndex
from recsys.retrieval.upkeep import kept_up
from serving.gate import Gate
from serving.messages import BundleName, Id, Item, Recommendations, Recommended, Request

PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000}


@dataclass(frozen=True)
class _Shelf:
    """The catalogue as it stands: swapped as a whole."""

    items: pa.Table
    rows: Texts
    filters: ItemFilters
    index: Index


class Recommender:
    """Answers requests from one bundle: user lookup, query tower, filters, index, titles. Items may come, change and go
    meanwhile, from any thread.

    Making one answers a request that touches every part of the bundle, so that a broken part shows at once and the
    first real request is no slower than the next.
    """

    def __init__(self, bundle: Bundle) -> None:
        """Raises `BundleError` for parts that cannot be opened."""
        self.bundle = bundle
        self.name = BundleName(name=bundle.manifest.name, version=bundle.manifest.version)
        self._users = bundle.users
        self._shelf = _Shelf(bundle.items, bundle.rows_of(bundle.items), bundle.filters, bundle.index)
        self._gate, self._updates = Gate(), Lock()
        self.recommend(Request(features={}, exclude=("",)))

    def recommend(self, request: Request) -> Recommendations:
        """The best `k` items.

        Raises:
            UnknownUserError: the bundle does not know the user.
            RequestError: a value does not fit its feature.
        """
        user = None if request.user is None else text_of(request.user, "user")
        row = None if user is None else self._users.row(user)
        with self._gate.reading():
            return self._recommend(request, user, row)

    def _recommend(self, request: Request, user: str | None, row: int | None) -> Recommendations:
        known = {} if row is None else self._known(row, request)
        query = self.bundle.embed([known | (request.features or {})])
        if not np.isfinite(query).all():
            raise RequestError(
                "features", "the query's embedding is not finite", "numbers of a usual size", "send smaller numbers"
            )
        without = Ragged.from_lists([self._excluded(request, row)])
        found = self._shelf.index.search(query, request.k, without, self._allowed(request))
        return Recommendations(
            items=tuple(self._recommended(found)),
            user=user,
            bundle=self.name,
        )

    def similar(self, item: Id, k: int) -> list[Recommended]:
        """The k items most like one of the catalogue: those with the nearest vectors.

        Raises:
            RequestError: the catalogue has no such item.
        """
        with self._gate.reading():
            row, index = self._item_row(item), self._shelf.index
            return self._beside(index, index.vectors[row], row, k)

    def complements(self, item: Id, k: int) -> list[Recommended]:
        """The k items that go best with one of the catalogue: that are met after it.

        Raises:
            BundleError: the bundle was exported without.
            RequestError: the catalogue has no such item, or too little is known of it.
        """
        with self._gate.reading():
            index, row = self.bundle.complements, self._item_row(item)
            inputs = self.bundle.complement_inputs
            if row >= len(inputs) or not inputs[row].any():
                found, cure = "is known from too few events to say what goes with it", "ask for items like it"
                raise RequestError("item", f"{item!r} {found}", "an item that was met often enough", cure)
            return self._beside(index, inputs[row], row, k)

    def _beside(self, index: Index, query: NDArray[np.float32], row: int, k: int) -> list[Recommended]:
        """Without the item itself, and without items that have been deleted since."""
        deleted = np.flatnonzero(~self._shelf.filters.there[: index.size])
        found = index.search(query[np.newaxis], k, Ragged.from_lists([np.union1d(deleted, [row])]))
        return self._recommended(found)

    def _item_row(self, item: Id) -> int:
        row = self._shelf.rows.find(text_of(item, "item"))
        if row is None or not self._shelf.filters.there[row]:
            raise RequestError(
                "item", f"{item!r} is not in the catalogue", "an item's id", "look it up in items.parquet"
            )
        return row

    def upsert(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Put items on the shelf, or change them: `item`, `title` and raw features by name. When this returns they are
        recommended, and the index keeps its promise; where it did not, it has been built anew, while requests were
        answered by what there was.

        Raises:
            ExportError: the index, built anew, does not keep its promise; the items are there all the same.
            RequestError: with a problem for each value that does not fit; nothing has changed.
        """
        self._update(NewItems.of(items, self.bundle.manifest), ())

    def delete(self, items: Sequence[Id]) -> None:
        """Take items from the shelf: they are not recommended any more.

        Raises:
            RequestError: an item is not there, or none would be left; nothing has changed.
        """
        self._update(None, [text_of(item, f"delete[{n}]") for n, item in enumerate(items)])

    def _update(self, upserts: NewItems | None, deletes: Sequence[str]) -> None:
        with self._updates:
            shelf = self._shelf
            changed = changes(self.bundle, shelf.items, upserts, deletes)
            rows, filters = self.bundle.rows_of(changed.items), ItemFilters(changed.items)
            if not filters.there.any():
                raise RequestError("delete", "no item would be left", "a catalogue with items", "keep one")
            with self._gate.writing():
                apply(shelf.index, changed)
                self._shelf = _Shelf(changed.items, rows, filters, shelf.index)
            assert isinstance(shelf.index, ExactIndex | ScannIndex)
            kept = kept_up(shelf.index, changed.upserted, queries_of(self.bundle))
            if kept is not shelf.index:
                with self._gate.writing():
                    self._shelf = replace(self._shelf, index=kept)

    def liked(self, user: Id, count: int) -> list[Item]:
        """A known user's newest positive items, the newest first.

        Raises:
            UnknownUserError: the bundle does not know the user.
        """
        row = self._users.row(text_of(user, "user"))
        with self._gate.reading():
            return self._described(self._users.history(row)[::-1][:count])

    def _known(self, row: int, request: Request) -> dict[str, Any]:
        """What the bundle knows of a user, as raw features; not a history where the request brings one."""
        features = self._users.features(row)
        given = request.features or {}
        for name, field in self.bundle.manifest.request.items():
            if not isinstance(field, SequenceField) or name in given:
                continue
            newest = self._users.history(row)[-field.max_length :]
            features[name] = self._shelf.items[f"{RAW}{field.of}"].take(newest).to_pylist()
            if field.age:
                features[f"{name}.age"] = self._ages(row, request.time)[-field.max_length :].tolist()
        return features

    def _ages(self, row: int, now: int | None) -> NDArray[np.float64]:
        """[length of the history] seconds from each event to `now`, or else to the user's newest event."""
        times, unit = self._users.history_time(row), self.bundle.manifest.timestamp_unit
        assert times is not None  # the bundle and its manifest allow no ages without time
        assert unit is not None
        if len(times) == 0:
            return np.empty(0)
        newest = int(times.max())
        if now is not None and now < newest:
            raise RequestError(
                "time",
                f"{now}, before the user's newest event",
                f"{newest} or later, in {unit}",
                "leave it out, or send the history as features",
            )
        return ((newest if now is None else now) - times) / PER_SECOND[unit]

    def _excluded(self, request: Request, row: int | None) -> NDArray[np.int64]:
        indices = self._named(request.exclude, "exclude")
        if row is None or not request.exclude_seen:
            return np.unique(indices)
        return np.union1d(indices, self._users.seen(row))

    def _recommended(self, found: Neighbours) -> list[Recommended]:
        """Of one query."""
        there = found.ids[0] >= 0
        return [
            Recommended(item=item.item, title=item.title, score=float(score))
            for item, score in zip(self._described(found.ids[0][there]), found.scores[0][there], strict=True)
        ]

    def _named(self, items: Sequence[Id], place: str) -> NDArray[np.int64]:
        """Indices of those that there are."""
        named = [self._shelf.rows.find(text_of(item, f"{place}[{n}]")) for n, item in enumerate(items)]
        return np.array([index for index in named if index is not None], dtype=np.int64)

    def _allowed(self, request: Request) -> Allowed | None:
        listed = None
        if request.only is not None:
            listed = Allowed.of(self._named(request.only, "only"), len(self._shelf.items))
        if request.where is None:
            return listed
        return self._shelf.filters.allowed(request.where) & listed

    def _described(self, indices: NDArray[np.integer]) -> list[Item]:
        items = self._shelf.items
        ids = items["item"].take(indices).to_pylist()
        has_titles = "title" in items.column_names
        titles = items["title"].take(indices).to_pylist() if has_titles else [None] * len(ids)
        return [Item(item=item, title=title) for item, title in zip(ids, titles, strict=True)]
