"""The simulator's parameters (the simulator itself is `recsys.data.simulator`)."""

from __future__ import annotations

import math
from typing import Annotated, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from recsys.config.base import Config, Misfit, misfits

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class SimulatorConfig(Config):
    """A world with known ground truth: tastes, Zipf popularity, attributes that matter, drift, cold items, turnover."""

    users: PositiveInt = 2_000
    items: PositiveInt = 1_000
    events: PositiveInt = 100_000
    """Number of events; a little fewer where users run out of items that they have not picked yet."""
    repeats: bool = False
    """Whether a user may pick an item again."""
    latent_dim: PositiveInt = 8
    """Width of the latent taste vectors."""
    zipf: NonNegativeFloat = 1.0
    """Exponent of the items' popularity: the item of rank r is offered in proportion to r^-zipf."""
    taste: NonNegativeFloat = 2.0
    """Weight of taste (an affinity of variance 1) against popularity in what a user picks."""
    attribute_share: Fraction = 0.5
    """Share of the variance of the items' latent vectors that their category and tags explain."""
    categories: PositiveInt = 20
    drift: Fraction = 0.1
    """How far tastes turn from the first day to the last: 1 is a quarter turn, to an unrelated taste."""
    cold_items: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    """Share of the items that appear only in the last tenth of the time."""
    item_turnover: Fraction = 0.0
    """Share of the active items that every week after the first retires, as many new ones being born; `items` counts
    all that ever live, numbered by birth."""
    user_turnover: Fraction = 0.0
    """The same for users."""
    days: PositiveInt = 60
    seed: NonNegativeInt = 0

    @property
    def weeks(self) -> int:
        """Weeks that the world lasts, the last one maybe in part."""
        return math.ceil(self.days / 7)

    @property
    def item_births(self) -> int:
        """Items born (and retired) each week after the first."""
        return self._births(self.items, self.item_turnover)

    @property
    def user_births(self) -> int:
        """Users born (and retired) each week after the first."""
        return self._births(self.users, self.user_turnover)

    @property
    def active_items(self) -> int:
        """Items alive at a time."""
        return self.items - self.item_births * (self.weeks - 1)

    @property
    def active_users(self) -> int:
        """Users alive at a time."""
        return self.users - self.user_births * (self.weeks - 1)

    def _births(self, ever: int, turnover: float) -> int:
        """Rounded down, so that no more retire than live."""
        return int(ever * turnover / (1 + turnover * (self.weeks - 1)))

    @model_validator(mode="after")
    def _turnover_fits(self) -> Self:
        found: list[Misfit] = [
            ((key,), f"{turnover:g} of {self.weeks} weeks' {ever} {who} is less than one a week: ask for more {who}")
            for key, turnover, births, ever, who in (
                ("item_turnover", self.item_turnover, self.item_births, self.items, "items"),
                ("user_turnover", self.user_turnover, self.user_births, self.users, "users"),
            )
            if turnover and not births
        ]
        if self.item_turnover and self.cold_items:
            found.append((("cold_items",), "item_turnover brings new items every week: set cold_items: 0"))
        if found:
            raise misfits(found)
        return self

    @model_validator(mode="after")
    def _users_find_enough(self) -> Self:
        pairs = self.users * self.active_items
        if not self.repeats and self.events > pairs / 2:
            raise ValueError(
                f"{self.events} events without repeats are more than half of users x items "
                f"= {pairs}: ask for fewer, or set repeats: true"
            )
        return self
