"""Models and their parts."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from recsys.config.base import Config, Many, Misfit, default_tag, misfits
from recsys.data.config import MAIN_LABEL
from recsys.embeddings.optimizers.config import LazyAdamConfig, TableOptimizerConfig
from recsys.interactions.config import EncoderConfig, InteractionConfig, SequenceConfig
from recsys.objectives.config import (
    BinaryCrossEntropyConfig,
    InBatchSoftmaxConfig,
    PointwiseLossConfig,
    RetrievalLossConfig,
    SSLConfig,
)
from recsys.retrieval.config import ExactConfig, IndexConfig

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


class DistillConfig(Config):
    """An earlier run's item vectors as what the item tower should say, with an item's id and without it."""

    teacher: str
    """Directory of a trained two_tower run, which has seen no event of this run's validation or test part. Relative
    paths start where those of `data.source` do."""
    unknown: Many[str] = Field(min_length=1)
    """Item features, each of one value and with a vocabulary, that content has to do without: the ids."""
    weight: PositiveFloat = 1.0
    """Of 1 - cosine, beside the loss."""


class ItemTowerConfig(TowerConfig):
    """A tower that may have a teacher."""

    distill: DistillConfig | None = None
    """Left out, it learns from events alone."""


class QueryTowerConfig(TowerConfig):
    """A tower that may read histories by more than pooling."""

    sequence: EncoderConfig | None = None
    """How histories with `pooling: none` are read; the state at their end goes beside the other features' vectors."""


class TwoTowerConfig(Config):
    """Query tower (user, history and context features) and item tower, scored by inner product."""

    kind: Literal["two_tower"]
    query: QueryTowerConfig = QueryTowerConfig()
    item: ItemTowerConfig = ItemTowerConfig()
    normalize: bool = True
    """Scale both vectors to length 1."""
    loss: RetrievalLossConfig = InBatchSoftmaxConfig()
    """What is trained."""
    matryoshka: Many[PositiveInt] = ()
    """Widths, rising, of prefixes of the vectors that are trained to serve by themselves, each scaled to length 1 where
    the vectors are."""

    ssl: SSLConfig | None = None
    """Trains the item tower on items by themselves, too."""

    def prefix_problems(self, width: int) -> list[str]:
        """What is wrong with `matryoshka` for towers that end in `width` units."""
        found = []
        if list(self.matryoshka) != sorted(set(self.matryoshka)):
            found.append(f"{list(self.matryoshka)} does not rise; sort the widths, and name each once")
        if any(prefix >= width for prefix in self.matryoshka):
            text = f"{max(self.matryoshka)} is no prefix of {width} units, which are trained in any case"
            found.append(f"{text}; name smaller widths, or raise output_dim")
        return found


class ComplementsConfig(Config):
    """What goes with an item, beside what is like it: two vectors for each item, from what was met soon after what."""

    dim: PositiveInt = 32
    window: PositiveInt = 3
    """Events after an item's among which what goes with it is looked for; events of one time are one basket, and count
    in both directions.
    """
    negatives: PositiveInt = 10
    """Drawn for each pair."""
    power: Annotated[float, Field(ge=0, le=1)] = 0.75
    """Negatives are drawn in proportion to how often items end pairs, to this power."""
    min_count: PositiveInt = 5
    """Pairs that an item must end to be recommended, and begin to have anything recommended beside it."""
    epochs: PositiveInt = 10
    batch_size: PositiveInt = 4096
    """Pairs in a step."""
    optimizer: TableOptimizerConfig = LazyAdamConfig(kind="lazy_adam", learning_rate=0.01)
    index: IndexConfig = ExactConfig()
    """The second index of the bundle, over the output vectors; its promise is tuned by the input vectors of the items
    that begin most pairs.
    """


class HeadConfig(MLPConfig):
    """One label's own layers, above those that the heads share, to its logit."""

    weight: NonNegativeFloat = 1.0
    """Of the head's loss in the sum that is trained."""
    loss: PointwiseLossConfig | None = None
    """The model's, if left out."""


class MMoEConfig(Config):
    """Several bottoms, which every head mixes by a softmax gate of its own (Ma et al., KDD 2018)."""

    kind: Literal["mmoe"] = "mmoe"
    count: Annotated[int, Field(ge=2)] = 4
    """How many experts; each has the layers of `mlp`."""


ExpertsConfig = Annotated[MMoEConfig, default_tag("kind", "mmoe")]


class RankerConfig(Config):
    """All features through an interaction (if there is one) and an MLP to one logit, or to one of each head.

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
    """The dense layers; with `heads`, those that all heads share."""
    loss: PointwiseLossConfig = BinaryCrossEntropyConfig()
    """Of every label that is learned."""
    heads: dict[str, HeadConfig] = Field(default_factory=dict)
    """A head for each label that is learned: `label`, which ranks, and labels of `data.labels`. Left out, the MLP ends
    in the logit of `label`.
    """
    experts: ExpertsConfig | None = None
    """What the heads share is several experts in place of one `mlp`."""

    @property
    def further_heads(self) -> dict[str, HeadConfig]:
        """The heads but for the one that ranks."""
        return {name: head for name, head in self.heads.items() if name != MAIN_LABEL}

    def loss_of(self, head: str) -> PointwiseLossConfig:
        """The loss of a head, or of the only one."""
        own = self.heads[head].loss if self.heads else None
        return own or self.loss

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        found = list[Misfit]()
        if self.structure == "parallel" and self.interaction is None:
            found.append((("structure",), "there is no interaction to be parallel to; name one, or leave this out"))
        if self.heads and MAIN_LABEL not in self.heads:
            found.append((("heads",), f"none is {MAIN_LABEL!r}, which ranks; add `{MAIN_LABEL}: {{}}`"))
        elif self.heads and not self.heads[MAIN_LABEL].weight:
            found.append((("heads", MAIN_LABEL, "weight"), "0, but this head ranks; give it a weight above 0"))
        if self.experts is not None and not self.heads:
            found.append((("experts",), "there are no heads to mix them; name some, or leave this out"))
        if self.experts is not None and not self.mlp.hidden:
            found.append((("experts",), "each has the layers of `mlp`, which has none; give it hidden layers"))
        if found:
            raise misfits(found)
        return self


ModelConfig = Annotated[TwoTowerConfig | RankerConfig, Field(discriminator="kind")]
