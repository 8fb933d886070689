"""How a search for smaller tables goes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from recsys.config.base import Config

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
    """Over the examples that move the rows."""
    learning_rate: PositiveFloat = 0.01
    """Of the selection's SGD, whose gradient has a mean size of 1 in each block."""
    penalty: NonNegativeFloat = 1e-5
    """Weight of the selection's L1 norm."""
    validation: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    """Share of the training examples that move the selection, and no row. The validation part stays out of it, so that
    it can choose between plans.
    """
    unroll: PositiveFloat | None = None
    """Learning rate of a step of the rows through which the selection's gradient looks ahead (second order, as in
    DARTS); left out, it does not.
    """
