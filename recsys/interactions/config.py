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


InteractionConfig = CrossConfig
"""A union by `kind`, as soon as there are two."""
