"""A new model's vectors, turned to lie as near as can be to those of the bundle before it.

Two trainings of one model end in spaces that are turned against each other: queries of the one find nothing among items
of the other, though each is as good by itself. While a fleet is rolled out both are in use. A rotation of both towers
changes no inner product between them, and brings the spaces together:

    R = argmin over RᵀR = I of ‖V R - W‖  =  U Zᵀ,  where  Vᵀ W = U S Zᵀ

for the vectors V and W of the items that both have (Schönemann 1966, "A generalized solution of the orthogonal
Procrustes problem").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.bundle import Bundle
from recsys.bundle.catalogue_update import queries_of
from recsys.bundle.layout import QUERIES
from recsys.bundle.manifest import AlignmentFacts
from recsys.data.prepared import Prepared
from recsys.errors import ExportError
from recsys.evaluation.tuned_index import Queries
from recsys.metrics import hits, recall_at_k
from recsys.ragged import Ragged
from recsys.retrieval.catalogue import Catalogue
from recsys.retrieval.exact import ExactIndex
from recsys.retrieval.index import Vectors

K = 100
"""Cut-off of the recalls."""


@dataclass(frozen=True)
class Alignment:
    """What turns a new model's vectors, and what comes of it."""

    rotation: Vectors
    """[d, d] orthogonal; both towers' vectors are multiplied by it."""
    facts: AlignmentFacts


def rotation_to(new: Vectors, old: Vectors) -> Vectors:
    """[d, d] the orthogonal R that brings `new` [n, d] R nearest to `old` [n, d]."""
    left, _, right = np.linalg.svd(new.astype(np.float64).T @ old.astype(np.float64))
    return (left @ right).astype(np.float32)


def align(vectors: Vectors, queries: Queries, prepared: Prepared, old: Bundle) -> Alignment:
    """Align a new model's item `vectors` [N, d] and `queries` to those of the bundle `old`.

    Raises:
        ExportError: the bundle is of a ranker or of another width, or shares too few items to tell.
    """
    manifest = old.manifest
    place = "retrieval.align_to"
    if manifest.kind != "two_tower" or manifest.embedding_dim != vectors.shape[1]:
        found = f"{old.folder} is a {manifest.kind} bundle of width {manifest.embedding_dim}"
        raise ExportError(place, found, f"a two_tower of width {vectors.shape[1]}", "name another, or leave it out")
    ours, theirs = _shared(prepared.items["item"], old)
    if len(ours) < vectors.shape[1]:
        found = f"{len(ours)} items in common with {old.folder}"
        expected = f"at least {vectors.shape[1]}, the width"
        raise ExportError(place, found, expected, "leave it out: there is little to align")
    before, after = vectors[ours], old.index.vectors[theirs]
    rotation = rotation_to(before, after)
    facts = AlignmentFacts(
        bundle=f"{manifest.name} {manifest.version}",
        shared_items=len(ours),
        cosine_before=_cosine(before, after),
        cosine=_cosine(before @ rotation, after),
    )
    recalls = _recalls(queries, rotation, before, after, ours, prepared, old)
    return Alignment(rotation, facts.model_copy(update=recalls))


def _shared(items: pa.ChunkedArray, old: Bundle) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices, here and there, of the items that both have."""
    at = pa.compute.index_in(items, value_set=old.items["item"]).to_numpy()
    ours = np.flatnonzero(~np.isnan(at))
    theirs = at[ours].astype(np.int64)
    if old.index.alive is not None:
        there = old.index.alive.mask[theirs]
        ours, theirs = ours[there], theirs[there]
    return ours, theirs


def _cosine(some: Vectors, others: Vectors) -> float:
    """Mean over items."""
    lengths = np.linalg.norm(some, axis=1) * np.linalg.norm(others, axis=1)
    return float((np.einsum("nd,nd->n", some, others) / np.maximum(lengths, 1e-12)).mean())


def _recalls(
    queries: Queries,
    rotation: Vectors,
    new: Vectors,
    old: Vectors,
    ours: NDArray[np.int64],
    prepared: Prepared,
    bundle: Bundle,
) -> dict[str, float | int]:
    """Mean recall of held-out positives, by users whose queries both have, among the items that both have."""
    path = bundle.folder / QUERIES
    if not path.exists() or not len(queries):
        return {"users": 0}
    names = prepared.users["user"].take(pa.array(queries.users))
    at = pa.compute.index_in(names, value_set=pq.read_table(path, columns=["user"])["user"]).to_numpy()
    held_out = prepared.held_out("valid")
    place = np.full(len(prepared.items), -1)
    place[ours] = np.arange(len(ours))
    relevant, seen = (_placed(each, place) for each in (held_out.relevant, held_out.seen))
    relevant = relevant.difference(seen)
    rows = np.flatnonzero(~np.isnan(at) & (relevant.lengths[: len(at)] > 0))
    if not len(rows):
        return {"users": 0}
    relevant, seen = relevant.take(rows), seen.take(rows)
    asked, before = queries.vectors[rows], queries_of(bundle)[at[rows].astype(np.int64)]
    k = min(K, len(ours))

    def recall(asked: Vectors, items: Vectors) -> float:
        found = ExactIndex(Catalogue(items)).search(asked, k, seen).ids
        return float(recall_at_k(hits(found, relevant), relevant.lengths, k).mean())

    turned = new @ rotation
    return {
        "users": len(rows),
        "k": k,
        "new_query_new_index": recall(asked, new),
        "old_query_old_index": recall(before, old),
        "new_query_old_index": recall(asked @ rotation, old),
        "old_query_new_index": recall(before, turned),
        "new_query_old_index_before": recall(asked, old),
        "old_query_new_index_before": recall(before, new),
    }


def _placed(rows: Ragged, place: NDArray[np.int64]) -> Ragged:
    """Rows of the shared items alone, by their places among those."""
    places = place[rows.values]
    kept = places >= 0
    return Ragged.from_pairs(rows.row_of_value[kept], places[kept], len(rows))
