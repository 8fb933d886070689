"""What the stages hand on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from recsys.retrieval.allowed import Allowed
from recsys.retrieval.index import Vectors
from serving.pipeline.shelf import Rows, Shelf, no_rows
from serving.reranking import Candidates as ForRules
from serving.reranking import Reranked


@dataclass(frozen=True)
class Candidates:
    """Items that may be recommended, the best first."""

    shelf: Shelf
    """The catalogue that they are of."""
    rows: Rows
    """[K] item indices."""
    scores: NDArray[np.float32]
    """[K] by which they are ordered."""
    excluded: Rows = field(default_factory=no_rows)
    """Item indices that the user must not see."""
    allowed: Allowed | None = None
    """The items that the request's conditions let through; None for all."""
    vectors: Vectors | None = None
    """[K, d] of the items; None where no rule asks for them."""

    def reordered(self, scores: NDArray[np.float32]) -> Candidates:
        """By other scores [K]; equal ones as they stand."""
        order = np.argsort(-scores, kind="stable")
        vectors = None if self.vectors is None else self.vectors[order]
        return replace(self, rows=self.rows[order], scores=scores[order], vectors=vectors)

    def shown(self, k: int, request_id: str) -> Reranked:
        """The list of at most `k` that the rules make of them, or the best ones where there are no rules."""
        rules = self.shelf.rules
        if rules is None:
            return self.first(k)
        candidates = ForRules(self.rows, self.scores, self.vectors)
        return rules.rerank(candidates, k, request_id, self.excluded, self.allowed)

    def first(self, k: int) -> Reranked:
        """The best `k`."""
        rows = self.rows[:k].astype(np.int64)
        nothing = np.zeros(len(rows), np.bool_)
        return Reranked(rows, self.scores[:k].astype(np.float64), np.ones(len(rows)), nothing, nothing)
