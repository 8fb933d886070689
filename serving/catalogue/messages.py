"""Messages about the catalogue: its items by row, and its map."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from recsys.config.base import Config, Many
from serving.messages import Id, Item, Message

MOST_DESCRIBED = 200


class DescribeRequest(Message):
    """Items to be described."""

    rows: Annotated[Many[Annotated[int, Field(ge=0, lt=2**31)]], Field(max_length=MOST_DESCRIBED)] = ()
    """By their indices."""
    items: Annotated[Many[Id], Field(max_length=MOST_DESCRIBED)] = ()
    """By their ids."""
    places: bool = False
    """Say where they stand on the map, if it is drawn."""


class DescribedItem(Item):
    """An item with what is known of it."""

    row: int
    """Its index."""
    features: dict[str, Any]
    """Raw features by name, without vectors; those that are missing are left out."""
    place: tuple[float, float] | None = None
    """x and y on the map, from -1 to 1, if the request asks and the map is drawn."""


class DescribedItems(Config):
    """Those asked for that there are, in the order of the request."""

    items: Many[DescribedItem]


class LegendValue(Config):
    """A colour."""

    name: str
    """The value that it stands for."""
    count: int
    """Points that have the value: of several values of an item the rarest colours its point."""


class LegendColumn(Config):
    """A way to colour the map."""

    name: str
    """The item feature."""
    values: Many[LegendValue]
    """Value n has code n + 1, the most frequent one first. Code 0 is for items without a value, and the code after the
    last is for all other values."""


class Legend(Config):
    """What is on the map."""

    points: int
    catalogue_size: int
    """Items there are: more than points where only the most popular and some of the others are shown."""
    columns: Many[LegendColumn]
    """In the order of their codes behind the points."""
