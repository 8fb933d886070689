"""Models and their parts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from recsys.config.base import Config, Many
from recsys.interactions.config import InteractionConfig
from recsys.objectives.config import InBatchSoftmaxConfig

Rate = Annotated[float, Field(ge=0.0, lt=1.0)]


class MLPConfig(Config):
    """Dense layers with ReLU."""

    hidden: Many[PositiveInt] = ()
    """Width of each layer."""
    dropout: Rate = 0.0
    """Share of the units dropped after each layer."""


class TowerConfig(MLPConfig):
    """Feature vectors, concatenated, through dense layers to one vector."""

    output_dim: PositiveInt | None = None
    """Width of a linear output layer; left out, the last layer's output (or the concatenation itself) is the vector."""

    def width(self, concatenated: int) -> int:
        """Width of the tower's vector, given that of its concatenated features."""
        return self.output_dim or (self.hidden[-1] if self.hidden else concatenated)


class TwoTowerConfig(Config):
    """Query tower (user, history and context features) and item tower, scored by inner product."""

    kind: Literal["two_tower"]
    query: TowerConfig = TowerConfig()
    item: TowerConfig = TowerConfig()
    normalize: bool = True
    """Scale both vectors to length 1."""
    loss: InBatchSoftmaxConfig = InBatchSoftmaxConfig()


class RankerConfig(Config):
    """All features through an interaction (if there is one) and an MLP to one logit, trained by binary cross-entropy.

    With `interaction: {kind: cross}` that is the stacked DCN-V2.
    """

    kind: Literal["ranker"]
    interaction: InteractionConfig | None = None
    """How features meet before the MLP; left out, they are only concatenated."""
    mlp: MLPConfig = MLPConfig(hidden=(256, 128))


ModelConfig = Annotated[TwoTowerConfig | RankerConfig, Field(discriminator="kind")]
