"""From a request to an answer: features, retrieval, ranking, rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.bundle.bundle import Bundle
from recsys.errors import RequestError
from recsys.ragged import Ragged
from recsys.retrieval.index import Index, Neighbours
from recsys.retrieval.index import Vectors as VectorArray
from serving.config import ServingConfig
from serving.messages import (
    Beside,
    BesideRequest,
    BundleName,
    EmbedRequest,
    Id,
    Item,
    ItemsRequest,
    Recommendations,
    Recommended,
    Request,
    Updated,
    Vectors,
)
from serving.profiles import Profile, Profiles
from serving.shelf import LiveShelf, Shelf


@dataclass(frozen=True)
class Candidates:
    """What retrieval found, the best first."""

    shelf: Shelf
    """The catalogue that they are of."""
    rows: NDArray[np.int64]
    """[K] item indices."""
    scores: NDArray[np.float32]
    """[K] inner products of the query's and the items' embeddings."""


class Stopwatch:
    """Milliseconds by stage."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what stands inside."""
        start = perf_counter()
        yield
        self.milliseconds[name] = round(1_000 * (perf_counter() - start), 3)


class Pipeline:
    """Answers requests from one bundle, in any thread. Items may come, change and go meanwhile.

    Making one answers a request that touches every part of the bundle, so that a broken part shows at once and the
    first real request is no slower than the next.
    """

    def __init__(self, bundle: Bundle, config: ServingConfig | None = None) -> None:
        """Raises `BundleError` for parts that cannot be opened."""
        self.bundle, self.config = bundle, config or ServingConfig()
        self.name = BundleName(name=bundle.manifest.name, version=bundle.manifest.version)
        self._profiles, self._shelf = Profiles(bundle), LiveShelf(bundle)
        if bundle.manifest.kind == "two_tower":
            self.recommend(Request(features={}, exclude=("",)))

    def recommend(self, request: Request) -> Recommendations:
        """The best `k` items.

        Raises:
            UnknownUserError: the bundle does not know the user.
            RequestError: a value does not fit its feature, or is more than the server allows.
        """
        self._within("k", request.k, self.config.limits.k)
        watch = Stopwatch()
        with watch.stage("features"):
            profile = self._profiles.of(request.user, request.features, request.time, self._shelf.now)
        with watch.stage("retrieve"):
            found = self._retrieved(profile, request)
        return Recommendations(
            items=_recommended(found.shelf, found.rows, found.scores),
            user=profile.user,
            bundle=self.name,
            milliseconds=watch.milliseconds,
        )

    def beside(self, request: BesideRequest) -> Beside:
        """The items most like one of the catalogue (with the nearest vectors), or that go best with it: that are met
        after it. Without the item itself.

        Raises:
            BundleError: the bundle was exported without `complements`.
            RequestError: the catalogue has no such item, or too little is known of it.
        """
        self._within("k", request.k, self.config.limits.k)
        with self._shelf.searching() as shelf:
            row = shelf.row(request.item, "item")
            index, query = self._asked_beside(request, shelf, row)
            deleted = np.flatnonzero(~shelf.filters.there[: index.size])
            found = index.search(query[np.newaxis], request.k, Ragged.from_lists([np.union1d(deleted, [row])]))
        (item,) = shelf.described(np.array([row]))
        return Beside(item=item, items=_recommended(shelf, *_first(found)), bundle=self.name)

    def embed(self, request: EmbedRequest) -> Vectors:
        """The vectors of raw queries and of raw items.

        Raises:
            BundleError: the bundle has no towers.
            RequestError: a value does not fit its feature, or there are more than the server allows.
        """
        self._within("queries", len(request.queries), self.config.limits.batch)
        self._within("items", len(request.items), self.config.limits.batch)
        return Vectors(
            queries=_listed(self.bundle.embed(request.queries)) if request.queries else (),
            items=_listed(self.bundle.embed_items(request.items)) if request.items else (),
            bundle=self.name,
        )

    def update(self, request: ItemsRequest) -> Updated:
        """Put items on the shelf, change them, take them away: see `LiveShelf.update`.

        Raises:
            BundleError: the bundle has no index.
            ExportError: the index does not keep its promise any more; the items are there all the same.
            RequestError: a value does not fit its feature, or an item to be deleted is not there; nothing has changed.
        """
        self._within("upsert", len(request.upsert), self.config.limits.batch)
        self._within("delete", len(request.delete), self.config.limits.batch)
        self._shelf.update(request.upsert, request.delete)
        return Updated(items=int(self._shelf.now.filters.there.sum()), bundle=self.name)

    def users(self, prefix: str = "", count: int = 10) -> list[str]:
        """The first known users whose ids begin so."""
        return self._profiles.names(prefix, count)

    def history(self, user: Id, count: int = 50) -> list[Item]:
        """A known user's newest positive items, the newest first.

        Raises:
            UnknownUserError: the bundle does not know the user.
        """
        return self._shelf.now.described(self._profiles.history(user)[:count])

    def _retrieved(self, profile: Profile, request: Request) -> Candidates:
        query = self._embedded(profile.features)
        with self._shelf.searching() as shelf:
            excluded = shelf.named(request.exclude, "exclude")
            if request.exclude_seen:
                excluded = np.union1d(excluded, profile.seen)
            without, allowed = Ragged.from_lists([np.unique(excluded)]), shelf.allowed(request.where, request.only)
            index = shelf.index or self.bundle.index
            return Candidates(shelf, *_first(index.search(query, request.k, without, allowed)))

    def _embedded(self, features: Mapping[str, Any]) -> VectorArray:
        """[1, d] the query's vector."""
        query = self.bundle.embed([features])
        if not np.isfinite(query).all():
            raise RequestError(
                "features", "the query's embedding is not finite", "numbers of a usual size", "send smaller numbers"
            )
        return query

    def _asked_beside(self, request: BesideRequest, shelf: Shelf, row: int) -> tuple[Index, VectorArray]:
        """The index that is asked, and the vector [d] that it is asked with."""
        if request.kind == "similar":
            index = shelf.index or self.bundle.index
            return index, index.vectors[row]
        index, inputs = self.bundle.complements, self.bundle.complement_inputs
        if row >= len(inputs) or not inputs[row].any():
            found, cure = "is known from too few events to say what goes with it", "ask for items like it"
            raise RequestError("item", f"{request.item!r} {found}", "an item that was met often enough", cure)
        return index, inputs[row]

    @staticmethod
    def _within(place: str, found: int, most: int) -> None:
        if found > most:
            raise RequestError(place, str(found), f"at most {most} on this server", "ask for less at once")


def _first(found: Neighbours) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Ids and scores of one query's neighbours, those that there are."""
    there = found.ids[0] >= 0
    return found.ids[0][there].astype(np.int64), found.scores[0][there]


def _recommended(shelf: Shelf, rows: NDArray[np.int64], scores: NDArray[np.float32]) -> tuple[Recommended, ...]:
    return tuple(
        Recommended(item=item.item, title=item.title, score=score)
        for item, score in zip(shelf.described(rows), scores.tolist(), strict=True)
    )


def _listed(vectors: VectorArray) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, vectors.tolist()))
