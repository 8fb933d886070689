"""Messages about what is served, rather than for whom."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from recsys.config.base import Config, Many
from serving.messages import MOST, BundleName, Id, Item, Message


class UsersRequest(Message):
    """Some known users."""

    prefix: str = ""
    """How their ids begin."""
    count: Annotated[int, Field(ge=1, le=100)] = 10
    """How many."""


class KnownUsers(Config):
    """Users whom the bundle knows."""

    users: Many[str]


class HistoryRequest(Message):
    """What a known user liked."""

    user: Id
    count: Annotated[int, Field(ge=1, le=MOST)] = 50
    """How many items."""


class History(Config):
    """A user's positive items."""

    user: str
    items: Many[Item]
    """The newest first."""


class Popular(Config):
    """What a web worker recommends while the model process is not there."""

    bundle: BundleName
    items: Many[Item]
    """The most popular first."""


class Info(Config):
    """What is served."""

    bundle: BundleName
    kind: str
    catalogue_size: int
    embedding_dim: int | None
    metrics: dict[str, float]
    """Test metrics of the exported model."""
    index: dict[str, Any] | None
    """Which index answers, and how near it is to exact search."""
    curve: Any = None
    """Every setting of the index that was measured."""
    request: dict[str, Any]
    """The user and context features that a request may hold."""
    item: dict[str, Any]
    """The item features."""
    versions: dict[str, Any]
    """Versions that the bundle was made with."""
    ranker: bool
    """Whether there is a second stage."""
    complements: bool
    """Whether it knows what goes with items."""


class Loaded(Config):
    """What a model process took to get ready."""

    seconds: float
    """All together, but for the interpreter's own start."""
    import_seconds: float
    """Of these, TensorFlow's import."""


class State(Config):
    """How the server stands."""

    ready: bool = False
    """Whether the model process answers."""
    bundle: BundleName | None = None
    """What it answers with."""
    loaded: Loaded | None = None
    """What it took to get there."""
    swaps: int = 0
    """Bundles that took over from another."""
    refusals: int = 0
    """Bundles that were not sound, while the one before stayed."""
    refused: dict[str, str] = Field({})
    """Those that would be served otherwise, by their folder's name, and why they are not."""
    restarts: dict[str, int] = Field({})
    """How often a process of a kind had to be started again."""
