"""What goes over the wire: requests and answers. Nothing here needs TensorFlow, so that a web worker can do without.

An answer leaves out what is at its default: `degraded` where nothing is, `propensity` where nothing is explored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from recsys.bundle.requests import shown
from recsys.config.base import Config, Many
from recsys.errors import Problem, RequestError

MOST = 1_000
"""Items that one answer holds, at most."""


def _id(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise PydanticCustomError("id", "an id: text or an integer")
    return value


Id = Annotated[str | int, BeforeValidator(_id)]
Count = Annotated[int, Field(ge=1, le=MOST)]
RawFeatures = dict[str, Any]
"""By name; those not given are missing."""
Degraded = Literal["features", "ranker", "unknown_user", "model"]
"""Why an answer is not what it would be: `features`, the online store did not answer in time, so that what the bundle
knows of the user stands in; `ranker`, it did not answer in time, so that the order is that of retrieval;
`unknown_user`, neither bundle nor store know the user, and no features came with the request, so that the items are the
most popular ones; `model`, the model process is not there, likewise.
"""


class Message(Config):
    """A request."""

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


class Request(Message):
    """Who asks, for how many items, and without which."""

    user: Id | None = None
    """A user that the bundle or the online store knows: the raw features, the history and the seen items come from
    there."""
    features: RawFeatures | None = None
    """Raw features by name, instead of the known user's or in place of some of them. Those not given are missing."""
    k: Count = 10
    """How many items; fewer come where fewer are left."""
    exclude: Many[Id] = ()
    """Items not to recommend; ids that the catalogue does not have are of no consequence."""
    where: dict[str, Any] | None = None
    """Conditions on the items' columns, all of which must hold (docs/methods/scann_index.md has the list):
    `{"genre": "drama", "price": {"at_most": 20}, "tags": {"contains": "new"}}`."""
    only: Many[Id] | None = None
    """Of these items alone; ids that the catalogue does not have are of no consequence."""
    exclude_seen: bool = True
    """Leave out what the known user has met."""
    time: int | None = None
    """When the known user asks, in the bundle's `timestamp_unit`: the ages of a history are measured from here.
    By default the time of the user's newest event."""
    explain: bool = False
    """Say of each item where it stood after retrieval, and what the ranker looked at."""

    @model_validator(mode="after")
    def _someone_asks(self) -> Self:
        if self.user is None and self.features is None:
            raise ValueError("give a user that the bundle knows, or features")
        if self.time is not None and self.user is None:
            raise ValueError("`time` goes with `user`; with features alone, give the ages themselves")
        return self


class BesideRequest(Message):
    """Items beside one of the catalogue."""

    item: Id
    """The item."""
    k: Count = 10
    """How many."""
    kind: Literal["similar", "complement"] = "similar"
    """Like it, or going with it: met after it (of bundles exported with `complements`)."""


class RankRequest(Message):
    """Items to put in order for a user."""

    user: Id | None = None
    """As in a request for recommendations."""
    features: RawFeatures | None = None
    """Likewise."""
    time: int | None = None
    """Likewise."""
    items: Annotated[Many[Id], Field(min_length=1, max_length=MOST)]
    """Of the catalogue."""
    explain: bool = False
    """Say what the ranker looked at."""

    @model_validator(mode="after")
    def _someone_asks(self) -> Self:
        if self.user is None and self.features is None:
            raise ValueError("give a user that the bundle knows, or features")
        return self


class EmbedRequest(Message):
    """Vectors of queries, or of items by their raw features."""

    queries: Annotated[Many[RawFeatures], Field(max_length=MOST)] = ()
    """Raw user and context features."""
    items: Annotated[Many[RawFeatures], Field(max_length=MOST)] = ()
    """Raw item features: an item need not be in the catalogue."""


class FeedbackRequest(Message):
    """What came of a shown item."""

    request_id: Annotated[str, Field(min_length=1, max_length=100)]
    """Of the answer that showed it."""
    item: Id
    """The item."""
    label: Annotated[str, Field(min_length=1, max_length=100)]
    """What happened: `click`, `purchase`, ..."""
    time: AwareDatetime | None = None
    """When; by default now."""


class EventRequest(Message):
    """A positive event, which comes into the user's history in the online store."""

    user: Id
    """The user."""
    item: Id
    """The item."""
    time: int | None = None
    """When, in the bundle's `timestamp_unit`; by default now."""


class ItemsRequest(Message):
    """Items that come, change or go."""

    upsert: Annotated[Many[dict[str, Any]], Field(max_length=MOST)] = ()
    """`item`, `title` and raw features by name of each."""
    delete: Annotated[Many[Id], Field(max_length=MOST)] = ()
    """Items that are not to be recommended any more."""


class Item(Config):
    """An item of the catalogue."""

    item: str
    """The item's id."""
    title: str | None
    """None where the bundle has no titles."""


class Why(Config):
    """How an item came to its place."""

    retrieved: int | None = None
    """Its place after retrieval, from 1; None for an item that a rule put there."""
    retrieval_score: float | None = None
    """The inner product of the query's and the item's embedding."""
    ranked: int | None = None
    """Its place after the ranker, from 1; None without one."""
    ranker_score: float | None = None
    """The ranker's probability."""
    history: dict[str, float] | None = None
    """Item -> what the ranker's layer over the history weighed it by, where it has one."""
    fields: dict[str, float] | None = None
    """Feature -> its share of the ranker's field attention, averaged over layers and heads, where it has one."""
    rules: Many[Literal["pinned", "explored"]] = ()
    """What put it where it stands, after the ranker. What else moved, gave way to caps or to diversity."""


class Recommended(Item):
    """An item with its score."""

    score: float | None
    """What it was ordered by: the ranker's probability, or else the inner product of the query's and the item's
    embedding, or 1 / place among popular items. Comparable within one answer. None for an item that a rule put there
    though it was not retrieved."""
    propensity: float | None = None
    """The probability with which it stands here, where the server explores."""
    why: Why | None = None
    """If the request asks to explain."""


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
    degraded: Many[Degraded] = ()
    """Why it is not what it would be; empty if it is."""
    milliseconds: dict[str, float] = Field({})
    """What each stage took: `features`, `retrieve`, `rank`, `rerank`."""
    request_id: str | None = None
    """Names this answer in the log of responses, for feedback."""


class Beside(Config):
    """Items beside another."""

    item: Item
    items: Many[Recommended]
    bundle: BundleName


class Ranked(Config):
    """Items in the ranker's order."""

    items: Many[Recommended]
    user: str | None
    bundle: BundleName


class Noted(Config):
    """What became of feedback, or of an event."""

    noted: bool
    """False for feedback that the log had no room for: it is lost, and counted."""


class Updated(Config):
    """What an update left."""

    items: int
    """Items that are there now."""
    bundle: BundleName


class Vectors(Config):
    """Embeddings, in the order of the request."""

    queries: Many[Many[float]] = ()
    items: Many[Many[float]] = ()
    bundle: BundleName


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
    "extra_forbidden": "leave it out; /docs has what a request holds",
    "id": "send ids as text",
    "json_invalid": "send one JSON object",
    "missing": "send a JSON object as the body",
    "model_attributes_type": "send a JSON object as the body",
    "value_error": 'such as {"user": "42"} or {"features": {}}',
}
