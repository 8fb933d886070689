"""The simulator's parameters (the simulator itself is `recsys.data.simulator`)."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from recsys.config.base import Config

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class SimulatorConfig(Config):
    """A world with known ground truth: latent tastes, Zipf popularity, attributes that matter, drift, cold items."""

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
    days: PositiveInt = 60
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _users_find_enough(self) -> Self:
        if not self.repeats and self.events > self.users * self.items / 2:
            raise ValueError(
                f"{self.events} events without repeats are more than half of users x items "
                f"= {self.users * self.items}: ask for fewer, or set repeats: true"
            )
        return self
