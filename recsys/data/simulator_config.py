"""The simulator's parameters (the simulator itself is `recsys.data.simulator`)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from recsys.config.base import Config

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class SimulatorConfig(Config):
    """A world with known ground truth: latent tastes, Zipf popularity, attributes that matter, drift, cold items."""

    users: PositiveInt = 2_000
    items: PositiveInt = 1_000
    events: PositiveInt = 100_000
    latent_dim: PositiveInt = 8
    """Width of the latent taste vectors."""
    zipf: PositiveFloat = 1.0
    """Exponent of the items' popularity."""
    taste: PositiveFloat = 2.0
    """Weight of taste against popularity in what a user picks."""
    attribute_share: Fraction = 0.5
    """Share of an item's latent vector that its category and tags explain."""
    categories: PositiveInt = 20
    drift: Fraction = 0.1
    """How far tastes turn from the first day to the last."""
    cold_items: Fraction = 0.05
    """Share of the items that appear only in the last tenth of the time."""
    days: PositiveInt = 60
    seed: NonNegativeInt = 0
