"""The catalogue of a server: items come, change and go while requests are answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.bundle.bundle import Bundle
from recsys.bundle.catalogue_update import apply, changes, queries_of
from recsys.bundle.filters import TRAIN_COUNT, ItemFilters
from recsys.bundle.new_items import NewItems
from recsys.bundle.requests import text_of
from recsys.bundle.users import Texts
from recsys.errors import RequestError
from recsys.retrieval.allowed import Allowed
from recsys.retrieval.exact import ExactIndex
from recsys.retrieval.index import Index
from recsys.retrieval.scann_index import ScannIndex
from recsys.retrieval.upkeep import kept_up
from serving.messages import Id, Item
from serving.pipeline.gate import Gate
from serving.reranking import Rules, RulesConfig

Rows = NDArray[np.integer[Any]]
"""Item indices."""


def no_rows() -> Rows:
    """None."""
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class Shelf:
    """The catalogue at one moment. Everything but `index` stays as it is when items change."""

    items: pa.Table
    """Row n is item index n, as `Bundle.items`."""
    rows: Texts
    filters: ItemFilters
    index: Index | None
    """None of a bundle that cannot retrieve."""
    popular: Rows = field(default_factory=no_rows)
    """All items that there are, those first that training met most often; none where the bundle does not tell."""
    rules: Rules | None = None
    """Of the last stage, if there are any."""

    def row(self, item: Id, place: str) -> int:
        """The index of an item.

        Raises:
            RequestError: the catalogue has no such item.
        """
        row = self.rows.find(text_of(item, place))
        if row is None or not self.filters.there[row]:
            raise RequestError(
                place, f"{item!r} is not in the catalogue", "an item's id", "look it up in items.parquet"
            )
        return row

    def named(self, items: Sequence[Id], place: str) -> NDArray[np.int64]:
        """Indices of those of these items that there are."""
        found = self.rows.find_all([text_of(item, f"{place}[{n}]") for n, item in enumerate(items)])
        return found[found >= 0]

    def allowed(self, where: Mapping[str, object] | None, only: Sequence[Id] | None) -> Allowed | None:
        """The items that a request allows; None where it allows all.

        Raises:
            RequestError: a condition is not sound.
        """
        listed = None if only is None else Allowed.of(self.named(only, "only"), len(self.items))
        return listed if where is None else self.filters.allowed(where) & listed

    def described(self, rows: Rows) -> list[Item]:
        """The items of these indices, with their titles."""
        ids = self.items["item"].take(rows).to_pylist()
        has_titles = "title" in self.items.column_names
        titles = self.items["title"].take(rows).to_pylist() if has_titles else [None] * len(ids)
        return [Item(item=item, title=title) for item, title in zip(ids, titles, strict=True)]


class LiveShelf:
    """The shelf as it stands: read from many threads, changed from any.

    Args:
        bundle: whose items are on it at first.
        rules: of the last stage, which are bound to the items.
    """

    def __init__(self, bundle: Bundle, rules: RulesConfig | None = None) -> None:
        """Raises `BundleError` for parts that cannot be opened, `ConfigError` for rules that do not fit the items."""
        self._bundle, self._rules = bundle, rules
        index = bundle.index if bundle.manifest.index is not None else None
        self._shelf = self._bound(Shelf(bundle.items, bundle.rows_of(bundle.items), bundle.filters, index))
        self._gate, self._updates = Gate(), Lock()

    @property
    def now(self) -> Shelf:
        """As it stands. Its index must not be searched: see `searching`."""
        return self._shelf

    @contextmanager
    def searching(self) -> Iterator[Shelf]:
        """As it stands, with an index that does not change meanwhile."""
        with self._gate.reading():
            yield self._shelf

    def update(self, upserts: Sequence[Mapping[str, Any]], deletes: Sequence[Id]) -> None:
        """Put items on the shelf, or change them (`item`, `title` and raw features by name), and take others away.

        When this returns the ones are recommended and the others are not, and the index keeps its promise; where it
        did not, it has been built anew, while requests were answered by what there was.

        Raises:
            BundleError: the bundle has no index.
            ExportError: the index, built anew, does not keep its promise; the items are there all the same.
            RequestError: with a problem for each value that does not fit, or an item to delete is not there, or none
                would be left; nothing has changed.
        """
        new = NewItems.of(upserts, self._bundle.manifest)
        gone = [text_of(item, f"delete[{n}]") for n, item in enumerate(deletes)]
        with self._updates:
            shelf = self._shelf
            changed, index = changes(self._bundle, shelf.items, new, gone), shelf.index
            assert isinstance(index, ExactIndex | ScannIndex)  # or there would be no changes to it
            rows, filters = self._bundle.rows_of(changed.items), ItemFilters(changed.items)
            if not filters.there.any():
                raise RequestError("delete", "no item would be left", "a catalogue with items", "keep one")
            with self._gate.writing():
                apply(index, changed)
                self._shelf = self._bound(Shelf(changed.items, rows, filters, index))
            kept = kept_up(index, changed.upserted, queries_of(self._bundle))
            if kept is not index:
                with self._gate.writing():
                    self._shelf = replace(self._shelf, index=kept)

    def _bound(self, shelf: Shelf) -> Shelf:
        """With what is made of the items once for many requests."""
        if TRAIN_COUNT in shelf.items.column_names:
            shelf = replace(shelf, popular=self._bundle.popular(len(shelf.items), shelf.items))
        if self._rules is not None:
            vectors = None if shelf.index is None else shelf.index.vectors
            shelf = replace(shelf, rules=Rules.of(self._rules, shelf.items, vectors))
        return shelf
