"""Maximal marginal relevance: what is good, and unlike what the list has already."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Marginal:
    """The marginal relevance of the best M candidates, while a list grows.

    Args:
        scores: [M] of the candidates; they are scaled to 0..1 (to 0 where all are equal).
        vectors: [M, d] of them.
        beside: [P, d] vectors of items that are in the list from the start.
        weight: of diversity, in 0..1.
    """

    def __init__(self, scores: Floats, vectors: NDArray[np.floating], beside: NDArray[np.floating], weight: float):
        low = scores.min(initial=np.inf)
        span = scores.max(initial=-np.inf) - low
        self._relevance = (scores - low) / span if span > 0 else np.zeros(len(scores))
        self._vectors = _of_length_1(vectors)
        self._weight = weight
        self._nearest = (self._vectors @ _of_length_1(beside).T).max(1, initial=-np.inf)

    def __len__(self) -> int:
        return len(self._relevance)

    def values(self) -> Floats:
        """[M] (1 - weight) * relevance - weight * greatest cosine to the list; an empty list is like nothing."""
        nearest = np.where(np.isneginf(self._nearest), 0.0, self._nearest)
        found: Floats = (1 - self._weight) * self._relevance - self._weight * nearest
        return found

    def take(self, candidate: int) -> None:
        """One of the candidates comes into the list."""
        np.maximum(self._nearest, self._vectors @ self._vectors[candidate], out=self._nearest)


def _of_length_1(vectors: NDArray[np.floating]) -> Floats:
    """[rows, d] float64; zeros, which are like nothing, stay zeros."""
    whole = np.asarray(vectors, np.float64)
    length = np.linalg.norm(whole, axis=1, keepdims=True)
    return np.divide(whole, length, out=np.zeros_like(whole), where=length > 0)
