"""What an export holds, and what it must keep."""

from __future__ import annotations

from pydantic import PositiveInt

from recsys.config.base import Config
from recsys.retrieval.config import IndexConfig, ScannConfig


class RetrievalConfig(Config):
    """The index over the item vectors, and the snapshot of it inside the retriever's graph."""

    index: IndexConfig = ScannConfig()
    retriever_k: PositiveInt = 100
    """Items that the in-graph retriever returns for a query."""
