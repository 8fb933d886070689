"""What an export holds, and what it must keep."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt

from recsys.config.base import Config
from recsys.retrieval.config import IndexConfig, ScannConfig


class RetrievalConfig(Config):
    """The index over the item vectors, and the snapshot of it inside the retriever's graph."""

    index: IndexConfig = ScannConfig()
    retriever_k: PositiveInt = 100
    """Items that the in-graph retriever returns for a query."""
    min_rank: Annotated[float, Field(ge=1)] | None = None
    """A promise: the least effective rank (RankMe) of the item vectors; a model whose vectors have collapsed into fewer
    directions is not exported."""
