"""Queries near some items, which an index has to find for them: what the mean over all queries hides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from recsys.retrieval.curve import Pairs
from recsys.retrieval.exact import ExactIndex
from recsys.retrieval.index import Neighbours, Vectors

TINY = np.float32(1e-12)
EQUAL = 1e-6
"""Scores that differ by no more, relatively, are those of equal vectors."""


@dataclass(frozen=True)
class Near:
    """Pairs of a query near an item and that item, where it is among the exact best `depth` for that query."""

    queries: Vectors
    """[P, d]."""
    ids: NDArray[np.int64]
    """[P]."""
    scores: Vectors
    """[P]."""
    depth: int

    @classmethod
    def to(cls, exact: ExactIndex, ids: NDArray[np.int64], queries: Vectors, depth: int) -> Self:
        """Of each of the items `ids` [m] with the two queries that `near_queries` makes of held-out ones [Q, d]."""
        near, own = near_queries(exact.vectors[ids], queries), np.tile(ids, 2)
        scores = np.einsum("pd,pd->p", near, exact.vectors[own])
        every = cls(near, own, scores, depth)
        there = every._among(exact.search(near, depth))
        return cls(near[there], own[there], scores[there], depth)

    def found(self, search: Callable[[Vectors], Neighbours]) -> Pairs:
        """Those whose item a search [P, d] -> [P, depth] finds."""
        found = np.count_nonzero(self._among(search(self.queries))) if len(self.ids) else 0
        return Pairs(found=int(found), all=len(self.ids))

    def _among(self, found: Neighbours) -> NDArray[np.bool_]:
        """[P] whether the item, or one of the same score, which is as good (copies are common), is found."""
        same = np.isclose(found.scores, self.scores[:, np.newaxis], rtol=EQUAL, atol=0.0)
        return (same | (found.ids == self.ids[:, np.newaxis])).any(axis=1)


def near_queries(items: Vectors, queries: Vectors) -> Vectors:
    """[2 m, d] for each of `items` [m, d] first the held-out query nearest to it in angle, moved half-way to it; then,
    in the same order, those moved all the way. Each is as long as the query was.
    """
    length = np.linalg.norm(queries, axis=1, keepdims=True)
    nearest = ((items / _long(items)) @ (queries / np.maximum(length, TINY)).T).argmax(axis=1)
    direction = items / _long(items)
    between = queries[nearest] / np.maximum(length[nearest], TINY) + direction
    return np.concatenate([length[nearest] * between / _long(between), length[nearest] * direction])


def _long(vectors: Vectors) -> Vectors:
    """[m, 1] their lengths, none of them 0."""
    return np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), TINY)
