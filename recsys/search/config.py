"""What `recsys search` tries, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from recsys.config.base import Config, Many

Share = Annotated[float, Field(gt=0.0, lt=1.0)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class EvolutionConfig(Config):
    """OptEmbed's search over the fields' widths; the defaults are the authors'."""

    generations: NonNegativeInt = 30
    """After the first, which is drawn at random."""
    mutations: PositiveInt = 10
    """Mutants in a generation."""
    crossovers: PositiveInt = 10
    """Crossovers in a generation."""
    mutation_rate: Probability = 0.1
    """Of each width of a mutant, to be drawn anew."""
    parents: PositiveInt = 15
    """The best so far, of which children are made."""
    by_size: bool = True
    """Parents are the best trades of quality for bytes; false for the paper's, the best by quality alone."""


class SelectionConfig(Config):
    """DNIS' alternation of rows and selection; the defaults are the authors', but for the epochs."""

    epochs: PositiveInt = 5
    """Over the examples that move the rows, at most."""
    patience: PositiveInt = 2
    """Epochs without a better validation metric, after which the search ends; the best epoch's selection counts."""
    learning_rate: PositiveFloat = 0.01
    """Of the selection's SGD, whose gradient has a mean size of 1 in each block."""
    penalty: NonNegativeFloat = 1e-5
    """Weight of the selection's L1 norm."""
    validation: Share = 0.2
    """Share of the training examples that move the selection, and no row. The validation part moves neither, so that it
    can choose the epoch, and between plans.
    """
    unroll: PositiveFloat | None = None
    """Learning rate of a step of the rows through which the selection's gradient looks ahead (second order, as in
    DARTS); left out, it does not.
    """


class OptEmbedSearch(Config):
    """Rows by learned thresholds, widths by evolution (Lyu et al., CIKM 2022); trained again from the initial rows."""

    kind: Literal["optembed"]
    alpha: NonNegativeFloat = 1e-4
    """Weight of the penalty that raises thresholds."""
    threshold_learning_rate: PositiveFloat = 1e-4
    decay: PositiveFloat = 1e-5
    """Rate of the coupled decay of the supernet's rows, without which no row falls below its threshold."""
    evolution: EvolutionConfig = EvolutionConfig()


class DNISSearch(Config):
    """Numbers of frequency blocks by a selection that validation gradients move (Cheng et al. 2020)."""

    kind: Literal["dnis"]
    shares: Many[Annotated[float, Field(gt=0.0, le=1.0)]] = (0.1, 0.2, 0.2, 0.2, 0.3)
    """Of the ids in each block, the most frequent first."""
    selection: SelectionConfig = SelectionConfig()


class GradualPruningSearch(Config):
    """Magnitude pruning while the training goes on (DeepLight, Deng et al., WSDM 2021)."""

    kind: Literal["gradual_pruning"]
    damping: Share = 0.99
    """D of the schedule S (1 - D^(n / U))."""
    unit: PositiveInt = 10
    """U, in steps; the authors' 100 is for trainings of tens of thousands of steps."""
    every: PositiveInt = 10
    """Steps between two prunings."""


class MagnitudeSearch(Config):
    """The numbers of largest magnitude of the full model's tables."""

    kind: Literal["magnitude"]


class UniformSearch(Config):
    """All rows, of a smaller width."""

    kind: Literal["uniform"]


class FrequencyCutSearch(Config):
    """The most frequent ids at full width."""

    kind: Literal["frequency_cut"]


class MixedDimSearch(Config):
    """Widths by frequency (Ginart et al. 2019)."""

    kind: Literal["mixed_dim"]


class Int8Search(Config):
    """All rows, of a smaller width, served in int8."""

    kind: Literal["int8"]


class MultiplexedSearch(Config):
    """Unified embedding (Coleman et al. 2023): fewer rows at full width, which all ids share by hash. It is no plan."""

    kind: Literal["multiplexed"]
    chunks: PositiveInt = 2
    """Rows that an id reads, each so much narrower."""


SearchMethod = Annotated[
    OptEmbedSearch
    | DNISSearch
    | GradualPruningSearch
    | MagnitudeSearch
    | UniformSearch
    | FrequencyCutSearch
    | MixedDimSearch
    | Int8Search
    | MultiplexedSearch,
    Field(discriminator="kind"),
]
CONTROLS = frozenset({"magnitude", "gradual_pruning", "uniform", "frequency_cut", "mixed_dim", "int8", "multiplexed"})
"""What a search has to beat at equal bytes."""
EVERYTHING: tuple[SearchMethod, ...] = (
    OptEmbedSearch(kind="optembed"),
    DNISSearch(kind="dnis"),
    GradualPruningSearch(kind="gradual_pruning"),
    MagnitudeSearch(kind="magnitude"),
    UniformSearch(kind="uniform"),
    FrequencyCutSearch(kind="frequency_cut"),
    MixedDimSearch(kind="mixed_dim"),
    Int8Search(kind="int8"),
    MultiplexedSearch(kind="multiplexed"),
)


class SearchConfig(Config):
    """How `recsys search` goes about it; the promise comes with the command."""

    methods: Many[SearchMethod] = Field(default=EVERYTHING, min_length=1)
    """The searches, and the controls that they are held against."""
    sizes: Many[Share] = (0.5, 0.2, 0.1, 0.05)
    """Bytes at which the frontier is measured, as shares of the full tables'; a byte budget is one more."""
    seeds: PositiveInt = 1
    """Trainings of the full model and of every plan; from 2 on there are intervals. Plans are searched with the first
    seed.
    """
