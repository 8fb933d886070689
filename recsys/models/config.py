"""Models and their parts."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from recsys.config.base import Config, Many, misfits
from recsys.interactions.config import InteractionConfig, SequenceConfig
from recsys.objectives.config import InBatchSoftmaxConfig

Rate = Annotated[float, Field(ge=0.0, lt=1.0)]


class MLPConfig(Config):
    """Dense layers, each with an activation."""

    hidden: Many[PositiveInt] = ()
    """Width of each layer."""
    activation: Literal["relu", "dice"] = "relu"
    """`dice` is DIN's (`recsys.interactions.Dice`), whose bend follows the batch."""
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

    `cross`, stacked, is DCN-V2; `autoint`, stacked on an MLP without hidden layers, is AutoInt, and in parallel with
    one that has them AutoInt+; `fm` in parallel is DeepFM without its linear part.
    """

    kind: Literal["ranker"]
    sequence: SequenceConfig | None = None
    """How histories with `pooling: none` are read in the light of the candidate."""
    interaction: InteractionConfig | None = None
    """How features meet; left out, they are only concatenated."""
    structure: Literal["stacked", "parallel"] = "stacked"
    """`stacked`: the MLP reads what the interaction makes of the features; `parallel`: the features themselves, and its
    logit and a linear one of the interaction are added.
    """
    mlp: MLPConfig = MLPConfig(hidden=(256, 128))

    @model_validator(mode="after")
    def _runs_parallel_to_something(self) -> Self:
        if self.structure == "parallel" and self.interaction is None:
            raise misfits([(("structure",), "there is no interaction to be parallel to; name one, or leave this out")])
        return self


ModelConfig = Annotated[TwoTowerConfig | RankerConfig, Field(discriminator="kind")]
