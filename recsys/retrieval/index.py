"""What every index is, and what it asks of its arguments."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys.errors import DataError
from recsys.ragged import Ragged
from recsys.retrieval.allowed import Allowed

Vectors = NDArray[np.float32]
VECTORS = "vectors.npy"
"""In an index's folder: [N, d] float32."""


class Neighbours(NamedTuple):
    """The best items of each query, best first; id -1 and score -inf where there are fewer than k."""

    ids: NDArray[np.int32]
    """[Q, k] rows of the index's vectors."""
    scores: NDArray[np.float32]
    """[Q, k] inner products."""


class Index(Protocol):
    """Maximum inner product search over N vectors; ids are their row numbers.

    Items come, change and go while it lives, but not during a search: who has several threads sees to that.
    """

    @property
    def size(self) -> int:
        """N, with those that are deleted: their rows stay."""

    @property
    def dim(self) -> int:
        """d."""

    @property
    def vectors(self) -> Vectors:
        """[N, d] float32."""

    @property
    def alive(self) -> Allowed | None:
        """The items that are not deleted; None if none is."""

    def search(
        self, queries: ArrayLike, k: int, exclude: Ragged | None = None, allowed: Allowed | None = None
    ) -> Neighbours:
        """The k items with the largest inner products with each query, among those that it may get: k of them
        whenever there are so many.

        Args:
            queries: [Q, d] float32, finite.
            k: may be larger than N.
            exclude: for each of the Q queries the ids it must not get.
            allowed: what all of them may get; everything by default.

        Raises:
            DataError: a query is not finite.
            ValueError: the arguments do not fit each other or the index.
        """

    def upsert(self, ids: ArrayLike, vectors: ArrayLike) -> None:
        """Put the items `ids` [m] where `vectors` [m, d] are: those that there are, deleted ones, and new ones, whose
        ids follow the last.

        Raises:
            DataError: a value is NaN or infinite.
            ValueError: the arguments do not fit each other or the index.
        """

    def delete(self, ids: ArrayLike) -> None:
        """No search finds these items any more.

        Raises:
            ValueError: an id that the index never had, or nothing would be left.
        """

    def save(self, folder: Path) -> None:
        """Write the index to a new (or empty) folder, which may be moved later.

        Raises:
            BundleError: the folder holds something already.
        """


def finite_vectors(vectors: ArrayLike, what: str) -> Vectors:
    """`vectors` as contiguous float32 [rows, d].

    Raises:
        DataError: a value is NaN or infinite.
        ValueError: they are no matrix.
    """
    array = np.ascontiguousarray(vectors, np.float32)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"{what} must be [rows, d], not {array.shape}")
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad):
        raise DataError(
            what,
            f"{len(bad)} of {len(array)} rows hold NaN or infinity, first row {bad[0]}",
            "finite numbers",
            "look for a loss that is not finite in the training that made them",
        )
    return array


def checked_search(
    index: Index, queries: ArrayLike, k: int, exclude: Ragged | None, allowed: Allowed | None
) -> Vectors:
    """The queries as float32 [Q, d], once all the arguments of a search are known to fit.

    Raises:
        DataError, ValueError: as `Index.search` says.
    """
    array = finite_vectors(queries, "queries")
    if array.shape[1] != index.dim:
        raise ValueError(f"queries have width {array.shape[1]}, the index has {index.dim}")
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    if exclude is not None:
        if len(exclude) != len(array):
            raise ValueError(f"exclude has {len(exclude)} rows for {len(array)} queries")
        values = exclude.values
        if len(values) and not 0 <= values.min() <= values.max() < index.size:
            raise ValueError(f"exclude holds ids {values.min()}..{values.max()}, the index 0..{index.size - 1}")
    if allowed is not None and len(allowed.mask) != index.size:
        raise ValueError(f"allowed is of {len(allowed.mask)} items, the index of {index.size}")
    return array
