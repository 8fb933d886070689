"""Which index answers, how it is laid out, and what it promises."""

from __future__ import annotations

from math import ceil, isqrt
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from recsys.config.base import Config

BRUTE_FORCE_BELOW = 20_000
"""Catalogues smaller than this are scored whole by default: partitions would cost recall and save nothing."""
MIN_POINTS_PER_LEAF = 4
"""k-means needs some points for each centroid."""
RecallAt = Annotated[str, Field(pattern=r"^recall@[1-9][0-9]{0,5}$")]
Share = Annotated[float, Field(gt=0, le=1)]


class ExactConfig(Config):
    """Scores every item."""

    kind: Literal["exact"] = "exact"


class ScannConfig(Config):
    """ScaNN: the catalogue in leaves, items in a leaf scored by asymmetric hashing, the best ones scored again exactly.

    How it is laid out and searched is tuned at export: of all settings that keep the promise, the cheapest. What is
    given here is not touched.
    """

    kind: Literal["scann"] = "scann"
    promise: dict[RecallAt, Share] = Field({"recall@100": 0.95}, min_length=1)
    """Mean recall against exact search, by held-out queries, that the index keeps even at the lower end of its 95 %
    interval: `recall@100: 0.95`. A model whose index cannot keep it is not exported."""
    milliseconds: PositiveFloat | None = None
    """A further promise: the median time of one query by itself, on the machine that exports."""
    leaves: NonNegativeInt | None = None
    """Partitions of the catalogue; 0, the default below 20,000 items, scores every item, and the next four keys are
    of no consequence."""
    leaves_to_search: PositiveInt | None = None
    """Partitions that a query looks into: more find more, and take longer."""
    reorder: PositiveInt | None = None
    """Candidates scored again exactly."""
    dimensions_per_block: PositiveInt | None = None
    """Dimensions that share a hash code: fewer are nearer to exact, and larger."""
    anisotropic_threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Weighs errors along the vector more than across it (Guo et al., 2020)."""
    prefix: PositiveInt | None = None
    """Leaves and hash codes know the first so many dimensions alone, as Matryoshka vectors allow; candidates are scored
    again by all of them."""

    @model_validator(mode="after")
    def _searches_what_there_is(self) -> Self:
        if self.leaves and self.leaves_to_search and self.leaves_to_search > self.leaves:
            raise ValueError(f"leaves_to_search is {self.leaves_to_search}, but there are {self.leaves} leaves")
        return self

    @property
    def promised(self) -> dict[int, float]:
        """The cut-offs, rising, and the recall at each."""
        return dict(sorted((int(name.removeprefix("recall@")), recall) for name, recall in self.promise.items()))

    @property
    def depth(self) -> int:
        """The largest cut-off of the promise."""
        return max(self.promised)

    @property
    def promised_there(self) -> float:
        """The recall at that cut-off."""
        return self.promised[self.depth]

    def for_size(self, size: int) -> ScannConfig:
        """The same config with nothing left out, for a catalogue of `size` items: where tuning starts.

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
                "reorder": self.reorder or max(500, 10 * self.depth),
                "dimensions_per_block": self.dimensions_per_block or 2,
                "anisotropic_threshold": self.anisotropic_threshold or 0.2,
            }
        )


IndexConfig = Annotated[ExactConfig | ScannConfig, Field(discriminator="kind")]
