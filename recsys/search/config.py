"""How a search for smaller tables goes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

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
