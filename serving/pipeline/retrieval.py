"""The first stage: from the catalogue to candidates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.bundle.bundle import Bundle
from recsys.bundle.columns import stacked
from recsys.bundle.requests import Arrays
from recsys.errors import RequestError
from recsys.ragged import Ragged
from recsys.retrieval.allowed import Allowed
from recsys.retrieval.index import Index, Neighbours
from recsys.retrieval.index import Vectors as VectorArray
from serving.config import Together
from serving.messages import BesideRequest, Request
from serving.pipeline.batching import together
from serving.pipeline.candidates import Candidates
from serving.pipeline.profiles import Profile
from serving.pipeline.shelf import LiveShelf, Rows, Shelf


class Retrieval:
    """Finds candidates on a live shelf: by the query tower and the index, by popularity, or beside an item."""

    def __init__(self, bundle: Bundle, shelf: LiveShelf, batching: Together | None) -> None:
        self._bundle, self._shelf = bundle, shelf
        self._embed = together(self._embedded, batching)

    def candidates(self, query: Arrays, profile: Profile, request: Request, count: int) -> Candidates:
        """The `count` items with the greatest inner products with an encoded query.

        Raises:
            BundleError: the bundle has no index.
            RequestError: a condition is not sound, or the query's embedding is not finite.
        """
        (vector,) = self._embed([query])
        if not np.isfinite(vector).all():
            raise RequestError(
                "features", "the query's embedding is not finite", "numbers of a usual size", "send smaller numbers"
            )
        with self._shelf.searching() as shelf:
            excluded, allowed = _conditions(shelf, profile, request)
            found = self._index(shelf).search(vector[np.newaxis], count, Ragged.from_lists([excluded]), allowed)
            rows, scores = _first(found)
            return Candidates(shelf, rows, scores, excluded, allowed, self._vectors(shelf, rows))

    def popular(self, profile: Profile, request: Request, count: int) -> Candidates:
        """The `count` items that were met most; their scores are 1 / place.

        Raises:
            RequestError: a condition is not sound.
        """
        with self._shelf.searching() as shelf:
            excluded, allowed = _conditions(shelf, profile, request)
            open_ = np.ones(len(shelf.items), np.bool_) if allowed is None else allowed.mask.copy()
            open_[excluded] = False
            rows = shelf.popular[open_[shelf.popular]][:count]
            scores = (1 / np.arange(1, 1 + len(rows))).astype(np.float32)
            return Candidates(shelf, rows, scores, excluded, allowed, self._vectors(shelf, rows))

    def beside(self, request: BesideRequest) -> tuple[int, Candidates]:
        """The item's index, and the items nearest to it, or that go best with it; without the item itself.

        Raises:
            BundleError: the bundle was exported without `complements`.
            RequestError: the catalogue has no such item, or too little is known of it.
        """
        with self._shelf.searching() as shelf:
            row = shelf.row(request.item, "item")
            index, query = self._asked_beside(request, shelf, row)
            deleted = np.flatnonzero(~shelf.filters.there[: index.size])
            found = index.search(query[np.newaxis], request.k, Ragged.from_lists([np.union1d(deleted, [row])]))
        return row, Candidates(shelf, *_first(found))

    def _asked_beside(self, request: BesideRequest, shelf: Shelf, row: int) -> tuple[Index, VectorArray]:
        """The index that is asked, and the vector [d] that it is asked with."""
        if request.kind == "similar":
            index = self._index(shelf)
            return index, index.vectors[row]
        index, inputs = self._bundle.complements, self._bundle.complement_inputs
        if row >= len(inputs) or not inputs[row].any():
            found, cure = "is known from too few events to say what goes with it", "ask for items like it"
            raise RequestError("item", f"{request.item!r} {found}", "an item that was met often enough", cure)
        return index, inputs[row]

    def _index(self, shelf: Shelf) -> Index:
        return shelf.index or self._bundle.index  # which says why there is none

    def _vectors(self, shelf: Shelf, rows: Rows) -> VectorArray | None:
        return self._index(shelf).vectors[rows] if shelf.rules is not None and shelf.rules.needs_vectors else None

    def _embedded(self, queries: Sequence[Arrays]) -> Sequence[VectorArray]:
        return list(self._bundle.query_tower(stacked(queries)))


def _conditions(shelf: Shelf, profile: Profile, request: Request) -> tuple[Rows, Allowed | None]:
    excluded = shelf.named(request.exclude, "exclude")
    if request.exclude_seen:
        excluded = np.union1d(excluded, profile.seen)
    if shelf.rules is not None:
        excluded = np.union1d(excluded, shelf.rules.banned)
    return np.unique(excluded), shelf.allowed(request.where, request.only)


def _first(found: Neighbours) -> tuple[Rows, NDArray[np.float32]]:
    """Ids and scores of one query's neighbours, those that there are."""
    there = found.ids[0] >= 0
    return found.ids[0][there].astype(np.int64), found.scores[0][there]
