"""Losses and their parameters."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from recsys.config.base import Config, Misfit, default_tag, misfits
from recsys.retrieval.config import ExactConfig, IndexConfig


class CountsConfig(Config):
    """How often an item is among a batch's candidates, from its training events."""

    kind: Literal["counts"] = "counts"


class StreamingConfig(Config):
    """The same, estimated from the steps between an item's appearances while they go by (Yi et al., algorithm 2)."""

    kind: Literal["streaming"]
    hashes: PositiveInt = 4
    """Independent hashes; the lowest estimate counts, because items that share a row with others look too frequent."""
    rows: PositiveInt = 65_536
    """Of each hash; more make it rarer that two items share one."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.01
    """How much a new interval counts: larger follows changes faster, and is noisier."""
    initial_interval: Annotated[float, Field(ge=1)] = 100.0
    """Steps between two appearances of an item of which nothing is known."""


LogQConfig = Annotated[CountsConfig | StreamingConfig, Field(discriminator="kind"), default_tag("kind", "counts")]


class MinedConfig(Config):
    """Hard negatives: items that stand in the middle of the ranking that the model gave the user an epoch before."""

    count: PositiveInt = 1
    """Of each query in a step, beside the batch's many easy candidates."""
    ranks: Annotated[tuple[PositiveInt, PositiveInt], Field(strict=False)] = (100, 500)
    """First and last rank, from 1, without the user's own positives: those at the very top are too often what the user
    will want next."""
    kept: PositiveInt = 32
    """How many of those each user keeps for an epoch; the checkpoint holds as many numbers for each user."""
    from_epoch: Annotated[int, Field(ge=2)] = 2
    """The first epoch that has any: a ranking needs a model that has learned something."""
    index: IndexConfig = ExactConfig()
    """What finds them. ScaNN is faster in large catalogues; it need not build the same index twice from one seed, and
    is not tuned to its promise here."""

    @model_validator(mode="after")
    def _enough(self) -> Self:
        first, last = self.ranks
        if first > last:
            raise ValueError(f"ranks go from {first} to {last}; name the smaller one first")
        if self.kept > last - first + 1:
            raise ValueError(f"kept is {self.kept}, but ranks {first} to {last} are {last - first + 1} items")
        if self.count > self.kept:
            raise ValueError(f"count is {self.count}, but only {self.kept} are kept for a user; raise kept")
        return self


class _Softmax(Config):
    temperature: PositiveFloat = 0.05
    """Divides the scores, before the correction."""
    popularity_temperature: Annotated[float, Field(ge=0, le=1)] = 0.0
    """g in the temperature of an example, temperature * (n / n0)^g, with the n training events of its item and their
    geometric mean n0 over all events: above 0 rare items are learned with more force, common ones with less."""


class InBatchSoftmaxConfig(_Softmax):
    """Each example's item against the other items of its batch (Yi et al., RecSys 2019)."""

    kind: Literal["in_batch_softmax"] = "in_batch_softmax"
    log_q: LogQConfig | None = CountsConfig()
    """How the correction of scores by -log(how often the item is expected among the candidates) is known: popular items
    are there more often. null corrects nothing."""
    correct_positive: bool = True
    """Correct the example's own item too, as Yi et al. do; false corrects the others alone (Yang et al., WWW 2020)."""
    candidates: Literal["all", "unique"] = "all"
    """`all`: an item that stands in the batch twice is a candidate twice, and the correction is by its expected number;
    `unique`: once, and the correction is by the probability that it is there at all."""
    uniform_negatives: NonNegativeInt = 0
    """Further candidates in each step, drawn uniformly from the whole catalogue (mixed negative sampling, Yang et al.,
    WWW 2020)."""
    hardest: PositiveInt | None = None
    """Only so many candidates of each query, those with the highest corrected scores, stay in its softmax."""
    mined: MinedConfig | None = None
    """Hard negatives for each user beside the candidates."""

    @model_validator(mode="after")
    def _corrects_something(self) -> Self:
        if self.log_q is None and not self.correct_positive:
            raise ValueError(
                "correct_positive is false, but with log_q: null nothing is corrected; remove one of the two"
            )
        return self


class SampledSoftmaxConfig(_Softmax):
    """Each example's item against items drawn from the whole catalogue in each step."""

    kind: Literal["sampled_softmax"]
    negatives: PositiveInt = 1024
    """Drawn for all queries of a step together, with replacement."""
    power: Annotated[float, Field(ge=0, le=1)] = 0.0
    """An item is drawn in proportion to its training events to this power: 0 draws uniformly, items without events
    too, 1 by popularity. Scores are corrected by the log of its expected number."""
    correct_positive: bool = False
    """Correct the example's own item, too, as if it had been drawn; it is there with certainty."""


class FullSoftmaxConfig(_Softmax):
    """Each example's item against all items: the cost of a step grows with the catalogue, so it is for small ones."""

    kind: Literal["full_softmax"]


class BPRConfig(Config):
    """Each example's item above items drawn uniformly for it alone, pair by pair (Rendle et al., UAI 2009)."""

    kind: Literal["bpr"]
    temperature: PositiveFloat = 0.05
    """Divides the scores."""
    negatives: PositiveInt = 1
    """Of each example in a step."""


RetrievalLossConfig = Annotated[
    InBatchSoftmaxConfig | SampledSoftmaxConfig | FullSoftmaxConfig | BPRConfig,
    Field(discriminator="kind"),
    default_tag("kind", "in_batch_softmax"),
]


class SSLConfig(Config):
    """Two views of an item are to be nearer to each other than to those of other items (Yao et al., CIKM 2021)."""

    augmentation: Literal["correlated", "random", "none"] = "correlated"
    """What a view lacks, and the other view has: `correlated`, a feature and those that tell most of it; `random`, half
    of the features; `none`, nothing: then the loss only spreads the items' vectors out."""
    weight: NonNegativeFloat = 0.1
    """Of the regulariser in the loss; 0 trains what would be trained without it, bit for bit."""
    temperature: PositiveFloat = 0.1
    """Divides the cosines; it has nothing to do with that of `loss`."""
    value_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the values that each view loses besides, of features with several."""
    items: Literal["catalogue", "training"] = "catalogue"
    """`catalogue`: drawn uniformly from all items, as the method needs them; `training`: those of the batch, as a
    control."""
    batch_size: Annotated[int, Field(ge=2)] | None = None
    """Items drawn in a step; as many as the batch has examples, if left out."""
    ids: Literal["excluded", "normalized"] = "excluded"
    """Of `correlated`: an item's id tells all of every feature. `excluded`: it stands outside the groups, and goes to
    one view or the other by a coin; `normalized`: it is one of the features, and what two of them tell of each other is
    divided by their joint entropy."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        found = list[Misfit]()
        if self.augmentation == "none" and self.value_dropout:
            text = "views without augmentation are one and the same; set it to 0, or choose augmentation: random"
            found.append((("value_dropout",), text))
        if self.items == "training" and self.batch_size is not None:
            found.append((("batch_size",), "items: training takes those that the batch has; remove it"))
        if found:
            raise misfits(found)
        return self


class BinaryCrossEntropyConfig(Config):
    """-log of the probability that the model gave to what happened."""

    kind: Literal["binary_cross_entropy"] = "binary_cross_entropy"
    positive_weight: PositiveFloat = 1.0
    """What an example of label 1 weighs beside one of label 0. The probabilities that are served and measured allow for
    it.
    """


class FocalConfig(Config):
    """Cross-entropy that counts an example the less, the surer the model is of it (Lin et al., ICCV 2017)."""

    kind: Literal["focal"]
    gamma: NonNegativeFloat = 2.0
    """The loss is multiplied by (1 - probability of what happened)^gamma. The probabilities that are served and
    measured allow for it.
    """


PointwiseLossConfig = Annotated[
    BinaryCrossEntropyConfig | FocalConfig, Field(discriminator="kind"), default_tag("kind", "binary_cross_entropy")
]
