"""What a bundle holds of an index: written alike by every export, and by updates."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pyarrow as pa

from recsys.bundle.layout import INDEX, QUERY_TOWER, RETRIEVER
from recsys.bundle.manifest import IndexFacts
from recsys.bundle.writer import BundleWriter
from recsys.retrieval.exact import ExactIndex
from recsys.retrieval.scann_index import ScannIndex


@dataclass(frozen=True)
class RetrievalFacts:
    """What the manifest says of the index and its snapshot."""

    index: IndexFacts
    retriever_k: int
    catalogue: str


def write_retrieval(
    writer: BundleWriter, index: ExactIndex | ScannIndex, items: pa.ChunkedArray, retriever_k: int
) -> RetrievalFacts:
    """Writes `index/` and `retriever/`; the query tower must be written already. `items` [N] are the ids as text."""
    from recsys.bundle.retriever import RetrieverModule

    index.save(writer.path(INDEX))
    version = catalogue_version(items, index)
    RetrieverModule(writer.graph(QUERY_TOWER), index, items, retriever_k, version).save(writer.graph(RETRIEVER))
    return RetrievalFacts(index_facts(index, retriever_k), retriever_k, version)


def catalogue_version(items: pa.ChunkedArray, index: ExactIndex | ScannIndex) -> str:
    """A digest of the items that are there, and of their vectors."""
    found = hashlib.sha256()
    there = index.catalogue.there
    found.update("\0".join(items.take(pa.array(there)).to_pylist()).encode())
    found.update(index.vectors[there].tobytes())
    return found.hexdigest()[:16]


def index_facts(index: ExactIndex | ScannIndex, k: int) -> IndexFacts:
    """What the manifest says of an index; `k` is the cut-off of the exact one."""
    if not isinstance(index, ScannIndex) or index.curve is None:
        return IndexFacts(kind="exact", k=k, recall=1.0, recall_low=1.0)
    depth, point = index.config.depth, index.curve.point
    recall = point.recall[f"recall@{depth}"]
    return IndexFacts(
        kind="scann",
        k=depth,
        recall=recall.estimate,
        recall_low=recall.low,
        promise=index.config.promise,
        milliseconds=point.milliseconds.estimate,
    )
