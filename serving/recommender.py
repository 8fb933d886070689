"""From a request to recommendations: what the server and the command line share."""

from __future__ import annotations

from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from recsys.bundle.bundle import Bundle
from recsys.bundle.filters import DELETED
from recsys.bundle.manifest import SequenceField
from recsys.bundle.requests import shown, text_of
from recsys.bundle.users import RAW
from recsys.config.base import Config, Many
from recsys.errors import Problem, RequestError
from recsys.ragged import Ragged
from recsys.retrieval.index import Index, Neighbours

PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000}


def _id(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise PydanticCustomError("id", "an id: text or an integer")
    return value


Id = Annotated[str | int, BeforeValidator(_id)]


class Request(Config):
    """Who asks, for how many items, and without which."""

    user: Id | None = None
    """A user that the bundle knows: the raw features, the history and the seen items come from the bundle."""
    features: dict[str, Any] | None = None
    """Raw features by name, instead of the known user's or in place of some of them. Those not given are missing."""
    k: Annotated[int, Field(ge=1, le=1000)] = 10
    """How many items; fewer come where fewer are left."""
    exclude: Many[Id] = ()
    """Items not to recommend; ids that the catalogue does not have are of no consequence."""
    exclude_seen: bool = True
    """Leave out what the known user has met."""
    time: int | None = None
    """When the known user asks, in the bundle's `timestamp_unit`: the ages of a history are measured from here.
    By default the time of the user's newest event."""

    @model_validator(mode="after")
    def _someone_asks(self) -> Self:
        if self.user is None and self.features is None:
            raise ValueError("give a user that the bundle knows, or features")
        if self.time is not None and self.user is None:
            raise ValueError("`time` goes with `user`; with features alone, give the ages themselves")
        return self

    @classmethod
    def of(cls, **values: object) -> Self:
        """A request from plain values.

        Raises:
            RequestError: with one problem for each value that is wrong.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise RequestError(problems_of(error.errors())) from error


class Item(Config):
    """An item of the catalogue."""

    item: str
    """The item's id."""
    title: str | None
    """None where the bundle has no titles."""


class Recommended(Item):
    """An item with its score."""

    score: float
    """The inner product of the query's and the item's embedding: comparable within one answer."""


class BundleName(Config):
    """Which bundle answered."""

    name: str
    version: int


class Recommendations(Config):
    """An answer."""

    items: Many[Recommended]
    """The best first."""
    user: str | None
    bundle: BundleName


class Recommender:
    """Answers requests from one bundle: user lookup, query tower, index, titles.

    Making one answers a request that touches every part of the bundle, so that a broken part shows at once and the
    first real request is no slower than the next.
    """

    def __init__(self, bundle: Bundle) -> None:
        """Raises `BundleError` for parts that cannot be opened."""
        self.bundle = bundle
        self.name = BundleName(name=bundle.manifest.name, version=bundle.manifest.version)
        self._users, self._items = bundle.users, bundle.items
        self.recommend(Request(features={}, exclude=("",)))

    def recommend(self, request: Request) -> Recommendations:
        """The best `k` items.

        Raises:
            UnknownUserError: the bundle does not know the user.
            RequestError: a value does not fit its feature.
        """
        user = None if request.user is None else text_of(request.user, "user")
        row = None if user is None else self._users.row(user)
        known = {} if row is None else self._known(row, request)
        query = self.bundle.embed([known | (request.features or {})])
        if not np.isfinite(query).all():
            raise RequestError(
                "features", "the query's embedding is not finite", "numbers of a usual size", "send smaller numbers"
            )
        found = self.bundle.index.search(query, request.k, Ragged.from_lists([self._excluded(request, row)]))
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
        row = self._item_row(item)
        return self._beside(self.bundle.index, self.bundle.index.vectors[row], row, k)

    def complements(self, item: Id, k: int) -> list[Recommended]:
        """The k items that go best with one of the catalogue: that are met after it.

        Raises:
            BundleError: the bundle was exported without.
            RequestError: the catalogue has no such item, or too little is known of it.
        """
        index, row = self.bundle.complements, self._item_row(item)
        inputs = self.bundle.complement_inputs
        if row >= len(inputs) or not inputs[row].any():
            found, cure = "is known from too few events to say what goes with it", "ask for items like it"
            raise RequestError("item", f"{item!r} {found}", "an item that was met often enough", cure)
        return self._beside(index, inputs[row], row, k)

    def _beside(self, index: Index, query: NDArray[np.float32], row: int, k: int) -> list[Recommended]:
        """Without the item itself, and without items that have been deleted since."""
        gone = np.array([row])
        if DELETED in self._items.column_names:
            deleted = np.flatnonzero(self._items[DELETED].to_numpy())
            gone = np.union1d(gone, deleted[deleted < index.size])
        found = index.search(query[np.newaxis], k, Ragged.from_lists([gone]))
        return self._recommended(found)

    def _item_row(self, item: Id) -> int:
        row = self.bundle.find_item(text_of(item, "item"))
        if row is None:
            raise RequestError(
                "item", f"{item!r} is not in the catalogue", "an item's id", "look it up in items.parquet"
            )
        return row

    def liked(self, user: Id, count: int) -> list[Item]:
        """A known user's newest positive items, the newest first.

        Raises:
            UnknownUserError: the bundle does not know the user.
        """
        row = self._users.row(text_of(user, "user"))
        return self._described(self._users.history(row)[::-1][:count])

    def _known(self, row: int, request: Request) -> dict[str, Any]:
        """What the bundle knows of a user, as raw features; not a history where the request brings one."""
        features = self._users.features(row)
        given = request.features or {}
        for name, field in self.bundle.manifest.request.items():
            if not isinstance(field, SequenceField) or name in given:
                continue
            newest = self._users.history(row)[-field.max_length :]
            features[name] = self._items[f"{RAW}{field.of}"].take(newest).to_pylist()
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
        named = [self.bundle.find_item(text_of(item, f"exclude[{n}]")) for n, item in enumerate(request.exclude)]
        indices = np.array([index for index in named if index is not None], dtype=np.int64)
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

    def _described(self, indices: NDArray[np.integer]) -> list[Item]:
        ids = self._items["item"].take(indices).to_pylist()
        has_titles = "title" in self._items.column_names
        titles = self._items["title"].take(indices).to_pylist() if has_titles else [None] * len(ids)
        return [Item(item=item, title=title) for item, title in zip(ids, titles, strict=True)]


def problems_of(errors: Any) -> list[Problem]:
    """pydantic's errors over a request, as problems."""
    return [
        Problem(
            place=shown(".".join(str(part) for part in _location(error))) or "request",
            found=shown(error.get("input")),
            expected=error["msg"].removeprefix("Value error, ").removeprefix("Input should be "),
            cure=_CURES.get(error["type"], "leave it out for the default"),
        )
        for error in errors
    ]


def _location(error: Any) -> tuple[str | int, ...]:
    """Where in the request, without FastAPI's `body` and the number of the character where JSON breaks off."""
    location: tuple[str | int, ...] = error["loc"]
    return () if error["type"] == "json_invalid" else location[location[:1] == ("body",) :]


_CURES = {
    "dict_type": "send a JSON object",
    "extra_forbidden": f"leave it out; a request holds {', '.join(Request.model_fields)}",
    "id": "send ids as text",
    "json_invalid": "send one JSON object",
    "missing": "send a JSON object as the body",
    "model_attributes_type": "send a JSON object as the body",
    "value_error": 'such as {"user": "42"} or {"features": {}}',
}
