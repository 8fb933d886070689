"""Which index answers, and how it is laid out."""

from __future__ import annotations

from math import ceil, isqrt
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from recsys.config.base import Config

BRUTE_FORCE_BELOW = 20_000
"""Catalogues smaller than this are scored whole by default: partitions would cost recall and save nothing."""
MIN_POINTS_PER_LEAF = 4
"""k-means needs some points for each centroid."""


class ExactConfig(Config):
    """Scores every item."""

    kind: Literal["exact"] = "exact"


class ScannConfig(Config):
    """ScaNN: the catalogue in leaves, items in a leaf scored by asymmetric hashing, the best ones scored again exactly.

    What is left out is chosen by the size of the catalogue when the index is built.
    """

    kind: Literal["scann"] = "scann"
    leaves: NonNegativeInt | None = None
    """Partitions of the catalogue: sqrt(items) by default; 0, the default below 20,000 items, scores every
    item, and the next four keys are of no consequence."""
    leaves_to_search: PositiveInt | None = None
    """Partitions that a query looks into: more find more, and take longer. A fifth of them by default, at least 10."""
    reorder: PositiveInt | None = None
    """Candidates scored again exactly; by default 10 `recall_at`, at least 500."""
    dimensions_per_block: PositiveInt = 2
    """Dimensions that share a hash code: fewer are nearer to exact, and larger."""
    anisotropic_threshold: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Weighs errors along the vector more than across it (Guo et al., 2020)."""
    recall_at: PositiveInt = 100
    """The k at which recall against exact search is measured."""
    min_recall: Annotated[float, Field(gt=0, le=1)] | None = None
    """A promise: recall@`recall_at` against exact search; a model whose index misses it is not exported."""

    @model_validator(mode="after")
    def _searches_what_there_is(self) -> Self:
        if self.leaves and self.leaves_to_search and self.leaves_to_search > self.leaves:
            raise ValueError(f"leaves_to_search is {self.leaves_to_search}, but there are {self.leaves} leaves")
        return self

    def for_size(self, size: int) -> ScannConfig:
        """The same config with nothing left out, for a catalogue of `size` items.

        Raises:
            ValueError: more leaves than such a catalogue can fill.

        >>> config = ScannConfig().for_size(1_000_000)
        >>> config.leaves, config.leaves_to_search, config.reorder
        (1000, 200, 1000)
        """
        leaves = self.leaves
        if leaves is None:
            leaves = 0 if size < BRUTE_FORCE_BELOW else isqrt(size)
        if leaves * MIN_POINTS_PER_LEAF > size:
            most = size // MIN_POINTS_PER_LEAF
            raise ValueError(f"leaves is {leaves}; {size} items fill at most {most}; leave it out, or set it to 0")
        searched = self.leaves_to_search or max(10, ceil(leaves / 5))
        return self.model_copy(
            update={
                "leaves": leaves,
                "leaves_to_search": min(searched, leaves) or 1,
                "reorder": self.reorder or max(500, 10 * self.recall_at),
            }
        )


IndexConfig = Annotated[ExactConfig | ScannConfig, Field(discriminator="kind")]
