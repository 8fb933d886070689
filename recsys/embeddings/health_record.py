"""What is said of embedding tables, and `inspect/tables.json` of a run; without TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from recsys.config.base import Config, Many

TABLES = "inspect/tables.json"
"""In the run directory."""


@dataclass(frozen=True)
class FeatureHealth:
    """The ids of one feature in a table; sequences of the feature read the same rows."""

    feature: str
    ids: int
    """How many stand for a value."""
    colliding: float
    """Share of them that read the very rows of another one of this feature: nothing tells those two apart."""


@dataclass(frozen=True)
class TableHealth:
    """One table. What cannot be known is None."""

    name: str
    method: str
    features: tuple[str, ...]
    """That read it."""
    rows: int
    dim: int
    """Width of a looked-up row."""
    precision: str
    """Type of the stored numbers, or types."""
    parameters: int | None
    """Stored numbers that training sets, or has been given: rows, scales, projections, codebooks."""
    bytes: int
    """What all of that takes on disk."""
    copies: int
    """How many copies of the table that is; each SavedModel of a bundle has one of all that it reads."""
    optimizer_bytes: int | None
    """What its optimizer keeps for it; no bundle holds that."""
    untrained: float | None
    """Share of the vocabularies' ids whose rows are what they were before training; of a hashed or multiplexed table,
    share of the rows.
    """
    effective_rank: float | None
    """Of all its looked-up rows; see `recsys.embeddings.health.effective_rank`."""
    ids_per_row: float | None
    """(feature, id) pairs that read a row, mean over the rows that are read at all."""
    vocabularies: tuple[FeatureHealth, ...]


class HealthRecord(Config):
    """`inspect/tables.json`: the tables of a run as they were inspected."""

    format: Literal[1] = 1
    config_digest: str
    tables: Many[TableHealth]
