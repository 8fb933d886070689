"""Interactions and their parameters."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from recsys.config.base import Config, Many

Rate = Annotated[float, Field(ge=0.0, lt=1.0)]


class CrossConfig(Config):
    """DCN-V2 (Wang et al., WWW 2021): each layer multiplies the features by a linear map of the layer before it."""

    kind: Literal["cross"]
    layers: PositiveInt = 1
    """Cross layers: `n` of them make products of up to n + 1 features."""
    projection_dim: PositiveInt | None = None
    """Rank of each layer's matrix; must be less than the features' width. Left out, the matrix is full."""

    def problems(self, width: int) -> list[tuple[str, str]]:
        """(key, message) for what does not fit features of `width` numbers in all."""
        if self.projection_dim is None or self.projection_dim < width:
            return []
        text = f"a rank of {self.projection_dim} saves nothing where the features' width is {width}"
        return [("projection_dim", f"{text}; lower it, or leave it out for full matrices")]


class AutoIntConfig(Config):
    """AutoInt (Song et al., CIKM 2019): every field attends to every field, in several heads and layers."""

    kind: Literal["autoint"]
    layers: PositiveInt = 3
    """Attention layers: `n` of them relate up to 2^n fields."""
    heads: PositiveInt = 2
    head_dim: PositiveInt = 32
    """Width of a head; the paper's d'."""
    residual: bool = True
    """Adds a linear map of the layer's input before the activation."""
    dropout: Rate = 0.0
    """Share of the attention weights dropped."""
    embedding_dropout: Rate = 0.0
    """Share of the numbers in the fields' vectors that the first layer does not see."""
    variant: Literal["paper", "reference"] = "paper"
    """`reference`: biases and ReLU on all projections, scores over the root of head_dim, layer normalisation."""

    @property
    def field_width(self) -> int:
        """Width of the vector that each field becomes."""
        return self.heads * self.head_dim


class FMConfig(Config):
    """Factorization machine (Rendle 2010): the sum of the inner products of all pairs of fields."""

    kind: Literal["fm"]


class ARMNetConfig(Config):
    """ARM-Net (Cai et al., SIGMOD 2021): neurons that multiply powers of few fields, chosen by sparse gates."""

    kind: Literal["arm_net"]
    neurons: PositiveInt = 64
    """Exponential neurons of each head; the paper's o."""
    heads: PositiveInt = 4
    """The paper's K."""
    alpha: Annotated[float, Field(gt=1.0, le=2.0)] = 1.7
    """Sparsity of the gates: entmax, 2 is sparsemax."""


FieldInteractionConfig = AutoIntConfig | FMConfig | ARMNetConfig
"""Of the features' vectors as fields, which must be of one width."""
InteractionConfig = Annotated[CrossConfig | AutoIntConfig | FMConfig | ARMNetConfig, Field(discriminator="kind")]


class DINConfig(Config):
    """Deep Interest Network (Zhou et al., KDD 2018): each event of the history weighs as a small network says."""

    kind: Literal["din"]
    hidden: Many[PositiveInt] = (80, 40)
    """Width of the activation unit's layers."""
    activation: Literal["dice", "sigmoid", "prelu"] = "dice"
    softmax: bool = True
    """Whether weights are normalised; the paper leaves them as they are, its code does not."""
    target_aware: bool = False
    """Give the dense layers the product of what the history says and the candidate, too, as the paper's code does."""


class AttentionConfig(Config):
    """Target attention in two stages: search the history for the top_k events, then weigh them by softmax.

    With `embeddings.features.NAME.attention_table` the search has tables of its own: DARE (Feng et al., ICLR 2025);
    without, they are shared: TWIN (Chang et al., KDD 2023).
    """

    kind: Literal["attention"]
    top_k: PositiveInt = 20
    """Events that are kept by the search."""
    projection: PositiveInt | None = None
    """Width of linear maps of shared tables' vectors, by which the history is searched: TWIN with projections."""
    time_dim: PositiveInt | None = None
    """Width of an embedding of an event's place, counted from the newest, beside its other vectors; left out, the order
    of events does not count.
    """
    target_aware: bool = True
    """Multiply the representation by the target's."""
    auxiliary: NonNegativeFloat = 1.0
    """Weight of the auxiliary loss, a head over the whole history's softmax; 0 has none."""

    def problems(self, decoupled: bool) -> list[tuple[str, str]]:
        """(key, message) for what does not fit tables that are decoupled (there are attention tables) or shared."""
        if self.projection is None or not decoupled:
            return []
        return [("projection", "maps tables that search and representation share; remove it, or the attention_tables")]


class MeanPoolingConfig(Config):
    """The mean of the history's vectors, whatever the target: the control."""

    kind: Literal["mean"]
    target_aware: bool = False
    """Give the dense layers the product of the mean and the candidate, too."""


SequenceConfig = Annotated[DINConfig | AttentionConfig | MeanPoolingConfig, Field(discriminator="kind")]


class AttentionPoolingConfig(Config):
    """A weighted mean of the events so far: what an event is counts, and how many events ago it was."""

    kind: Literal["attention_pooling"]
    hidden: PositiveInt | None = None
    """Width of the layer that weighs an event; that of an event's vector, if left out."""

    def width(self, event: int) -> int:
        """Of a state, given that of an event's vector."""
        return event

    def problems(self, event: int) -> list[tuple[str, str]]:
        """(key, message) for what does not fit events of that width."""
        return []


class GRUConfig(Config):
    """Gated recurrent units (GRU4Rec, Hidasi et al., ICLR 2016)."""

    kind: Literal["gru"]
    units: PositiveInt | None = None
    """Width of the state; that of an event's vector, if left out."""
    layers: PositiveInt = 1
    dropout: Rate = 0.0
    """Share of the numbers dropped in the events' vectors and between layers."""

    def width(self, event: int) -> int:
        """Of a state, given that of an event's vector."""
        return self.units or event

    def problems(self, event: int) -> list[tuple[str, str]]:
        """(key, message) for what does not fit events of that width."""
        return []


class TransformerConfig(Config):
    """Causal self-attention with learned positions (SASRec, Kang and McAuley, ICDM 2018)."""

    kind: Literal["transformer"]
    layers: PositiveInt = 2
    heads: PositiveInt = 1
    dim: PositiveInt | None = None
    """Width of the layers, to which events are projected; that of an event's vector, if left out."""
    hidden: PositiveInt | None = None
    """Width inside the feed-forward networks; `dim`, as in the paper, if left out."""
    activation: Literal["relu", "gelu"] = "relu"
    """Of the feed-forward networks."""
    dropout: Rate = 0.2
    """Share of the numbers dropped in the events' vectors, in what each sublayer adds, and of attention weights."""
    norm: Literal["pre", "post"] = "pre"
    """`pre`: x + f(LN(x)), as in SASRec's paper; `post`: LN(x + f(x)), as in the first transformer."""

    def width(self, event: int) -> int:
        """Of a state, given that of an event's vector."""
        return self.dim or event

    def problems(self, event: int) -> list[tuple[str, str]]:
        """(key, message) for what does not fit events of that width."""
        width = self.width(event)
        if width % self.heads == 0:
            return []
        return [("heads", f"{self.heads} does not divide the width {width}; choose a divisor")]


EncoderConfig = Annotated[AttentionPoolingConfig | GRUConfig | TransformerConfig, Field(discriminator="kind")]
"""Of histories by themselves, without a candidate: a state after each event."""
