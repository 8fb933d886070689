"""Interactions and their parameters."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from recsys.config.base import Config


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


InteractionConfig = CrossConfig
"""A union by `kind`, as soon as there are two."""
