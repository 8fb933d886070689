"""What an export holds, and what it must keep."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt

from recsys.config.base import Config
from recsys.retrieval.config import IndexConfig, ScannConfig


class RetrievalConfig(Config):
    """The index over the item vectors, and the snapshot of it inside the retriever's graph."""

    index: IndexConfig = ScannConfig()
    align_to: str | None = None
    """A bundle, or a run that has one, relative to the YAML: a rotation brings the new vectors as near to its own as
    can be, so that queries of the one find what they should in the index of the other while a fleet is rolled out.
    No score changes within the new model."""
    retriever_k: PositiveInt = 100
    """Items that the in-graph retriever returns for a query."""
    min_rank: Annotated[float, Field(ge=1)] | None = None
    """A promise: the least effective rank (RankMe) of the item vectors; a model whose vectors have collapsed into fewer
    directions is not exported."""
