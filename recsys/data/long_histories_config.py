"""Parameters of the simulated long histories (the simulator itself is `recsys.data.long_histories`)."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from recsys.config.base import Config, Misfit, misfits


class LongHistoriesConfig(Config):
    """A world in which the events that matter for a candidate are of its topic, and what they tell is their style.

    Every user has a preferred style in each of their topics, and clicks a candidate whose style that is.
    """

    users: PositiveInt = 4_000
    length: PositiveInt = 200
    """Clicks of each user before the first candidate is shown to them: the history."""
    topics: PositiveInt = 20
    topics_per_user: PositiveInt = 20
    """How many of the topics a user reads, each as often as the others. Each gets one candidate, so this is the number
    of a user's candidates, too."""
    styles: Annotated[int, Field(ge=2)] = 3
    """A user prefers one of them in each topic, whatever they prefer in the others."""
    copies: Annotated[int, Field(ge=2)] = 4
    """Items of one topic and style. For each user one half stands in the history only, the other in candidates only."""
    loyalty: Annotated[float, Field(gt=0.0, le=1.0)] = 0.85
    """Share of the history's clicks that are of the preferred style; the others are of any other one."""
    noise: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.05
    """Share of the candidates that get the other label."""
    seed: NonNegativeInt = 0

    @property
    def items(self) -> int:
        """Size of the catalogue."""
        return self.topics * self.styles * self.copies

    @property
    def events(self) -> int:
        """Clicks of the histories, and candidates."""
        return self.users * (self.length + self.topics_per_user)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        found: list[Misfit] = []
        if self.topics_per_user > self.topics:
            found.append((("topics_per_user",), f"there are {self.topics} topics; lower it, or raise topics"))
        if self.length < self.topics_per_user:
            found.append((("length",), f"{self.topics_per_user} topics need as many clicks; raise it"))
        if found:
            raise misfits(found)
        return self
