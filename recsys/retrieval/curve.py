"""How an index can be searched, and what it was measured to do: recall and time of every setting that was tried."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from recsys.config.base import Config, Many
from recsys.errors import BundleError
from recsys.retrieval.config import RecallAt, ScannConfig

CURVE = "curve.json"
"""In an index's folder."""
Recall = Annotated[float, Field(ge=0, le=1)]


class Setting(Config):
    """How a search goes about it."""

    leaves_to_search: PositiveInt
    reorder: PositiveInt


class Depth(Setting):
    """What is known to find the best `depth` of all items with the promised recall."""

    depth: PositiveInt


class Between(Config):
    """An estimate with its 95 % interval."""

    estimate: float
    low: float
    high: float


class Layout(Config):
    """What a searcher is built with."""

    leaves: NonNegativeInt
    dimensions_per_block: PositiveInt
    anisotropic_threshold: PositiveFloat

    @classmethod
    def of(cls, config: ScannConfig) -> Self:
        """Of a config with nothing left out."""
        return cls.model_validate(config.model_dump(include=set(cls.model_fields)))


class Pairs(Config):
    """Pairs of a query near a new item and that item, which is among the query's exact best."""

    found: NonNegativeInt
    """Those whose item a search finds."""
    all: NonNegativeInt

    def keep(self, config: ScannConfig) -> bool:
        """Whether as many are found as the promise says at its largest cut-off, rounded down to whole pairs."""
        return self.found >= int(Decimal(str(config.promised_there)) * self.all)


class Point(Config):
    """One setting of one layout."""

    layout: Layout
    setting: Setting
    recall: dict[RecallAt, Between]
    """Against exact search, over the queries."""
    milliseconds: Between
    """The median of one query at a time, through the engine's own search."""
    near: Pairs | None = None
    """With items that came before this index was built; None where it was not built for any."""

    def keeps(self, config: ScannConfig) -> bool:
        """The promise: recalls at the lower end of their intervals, the time at the upper one of its own, new items."""
        recalls = all(self.recall[f"recall@{k}"].low >= promised for k, promised in config.promised.items())
        in_time = config.milliseconds is None or self.milliseconds.high <= config.milliseconds
        return recalls and in_time and self.finds_near(config)

    def finds_near(self, config: ScannConfig) -> bool:
        """Whether new items are found as often as the promise says."""
        return self.near is None or self.near.keep(config)


class Curve(Config):
    """`curve.json`: every setting that was measured, and the one that was taken."""

    queries: NonNegativeInt
    """Held-out queries."""
    points: Many[Point]
    chosen: NonNegativeInt
    """Its place among the points."""
    depths: Many[Depth]
    """By rising depth, for searches through filters; deeper ones are exact. None where all items are scored."""

    @property
    def point(self) -> Point:
        """The chosen one."""
        return self.points[self.chosen]

    def save(self, folder: Path) -> None:
        """Write `curve.json`."""
        (folder / CURVE).write_text(self.model_dump_json(indent=1, exclude_none=True) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """What `save` wrote, if it did.

        Raises:
            BundleError: it cannot be read.
        """
        path = folder / CURVE
        if not path.exists():
            return None
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise BundleError(str(path), f"cannot be read ({error})", cure="export it again") from error
