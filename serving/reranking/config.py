"""What a shop asks of the list that is shown, beyond the ranker's order."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from recsys.config.base import Config, Many, Misfit, misfits

Id = str | int
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Pin(Config):
    """An item at a fixed place, retrieved or not."""

    item: Id
    """Its id."""
    place: PositiveInt
    """From 1. Where a list is shorter than that, the item comes last."""


class Cap(Config):
    """A bound on how many items of one list share a value."""

    column: str
    """A column of the items with one value or several: a feature by name. An item counts for each of its values; one
    without a value is never held back."""
    most: PositiveInt
    """Items of one value, at most."""


class Diversity(Config):
    """Maximal marginal relevance (Carbonell and Goldstein 1998): each place takes the candidate with the greatest
    (1 - weight) * relevance - weight * (greatest cosine to an item of the list).

    Relevance is the score, scaled to 0 (the least of the best `of`) to 1 (the greatest); 0 where all are equal.
    """

    weight: Share
    """0 leaves the order as it is, 1 looks at the cosines alone."""
    of: PositiveInt = 100
    """Of the best so many candidates; the others follow in their order, where these do not fill the list."""


class Exploration(Config):
    """Now and then another candidate is shown, with a known probability, so that the log tells of more than the ranker
    likes.

    Each place after the first `after` that has no pin explores with probability `share`, by itself. The place then
    shows an item of the pool, drawn uniformly, none twice: the best `of` candidates that are not in the list and
    break no cap beside it and each other. All draws are a function of (`seed`, request id).
    """

    share: Share
    """The share of the places, in the mean."""
    after: NonNegativeInt = 0
    """The first so many places never explore."""
    of: PositiveInt = 100
    """Size of the pool, at most."""
    seed: NonNegativeInt = 0
    """Another seed draws otherwise."""


class RulesConfig(Config):
    """The rules of the last stage; by default the list is the ranker's best k."""

    banned: Many[Id] = ()
    """Items that are never shown, whatever else is said of them."""
    pinned: Many[Pin] = ()
    """Items at fixed places. They come unless they are banned, deleted, seen or excluded by the request, and whatever
    the caps say; but they count for the caps, and other items are held against them for diversity."""
    caps: Many[Cap] = ()
    """Bounds on items that share a value. A list that they leave short stays short."""
    diversity: Diversity | None = None
    """None: in the order of the scores."""
    exploration: Exploration | None = None
    """None: every item has propensity 1."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        found = list[Misfit]()
        items, places = set[str](), set[int]()
        for number, pin in enumerate(self.pinned):
            if str(pin.item) in items:
                found.append((("pinned", str(number), "item"), f"{pin.item!r} is pinned twice; leave one out"))
            if pin.place in places:
                text = f"another item is pinned to place {pin.place} already; choose another place"
                found.append((("pinned", str(number), "place"), text))
            items.add(str(pin.item))
            places.add(pin.place)
        columns = [cap.column for cap in self.caps]
        for number, column in enumerate(columns):
            if column in columns[:number]:
                found.append((("caps", str(number), "column"), f"{column!r} is capped twice; leave one out"))
        if found:
            raise misfits(found)
        return self
