"""The vectors that an index searches, as they come, change and go."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys.errors import BundleError
from recsys.retrieval.allowed import Allowed
from recsys.retrieval.folder import load_vectors
from recsys.retrieval.index import VECTORS, Vectors, finite_vectors

DELETED = "deleted.npy"
"""In an index's folder, where there are any: the ids of deleted items."""


class Catalogue:
    """The vectors of N items. An item's id is its row for good: a deleted one is not found, but keeps its row."""

    def __init__(self, vectors: ArrayLike, deleted: ArrayLike = ()) -> None:
        """Of `vectors` [N, d] float32; `deleted` ids of them.

        Raises:
            DataError: a value is NaN or infinite.
            ValueError: there are no vectors.
        """
        self._room = finite_vectors(vectors, "vectors")
        if len(self._room) == 0:
            raise ValueError("an index needs at least one vector")
        self.size = len(self._room)
        self._mask = np.ones(self.size, np.bool_)
        self._mask[np.asarray(deleted, np.int64)] = False
        self._changed()

    def _changed(self) -> None:
        self.alive: Allowed | None = None if self._mask.all() else Allowed(self._mask.copy())

    @property
    def vectors(self) -> Vectors:
        """[N, d], those of deleted items too."""
        return self._room[: self.size]

    @property
    def there(self) -> NDArray[np.int64]:
        """The ids that are not deleted, rising."""
        return np.flatnonzero(self._mask)

    def legal(self, allowed: Allowed | None) -> Allowed | None:
        """What of `allowed` is there; None for all of the catalogue."""
        return self.alive if allowed is None else allowed & self.alive

    def checked(self, ids: ArrayLike, vectors: ArrayLike) -> tuple[NDArray[np.int64], Vectors]:
        """Ids [m] and vectors [m, d] of an upsert, once they are known to fit.

        Raises:
            DataError: a value is NaN or infinite.
            ValueError: an id twice, a new one that is not the next, or another width.
        """
        found, rows = np.asarray(ids, np.int64), finite_vectors(vectors, "vectors")
        if found.shape != (len(rows),) or rows.shape[1] != self._room.shape[1]:
            raise ValueError(f"{found.shape} ids and {rows.shape} vectors for an index of width {self._room.shape[1]}")
        if len(np.unique(found)) != len(found) or (found < 0).any():
            raise ValueError("ids must not be negative, nor come twice")
        new = np.sort(found[found >= self.size])
        if (new != self.size + np.arange(len(new))).any():
            raise ValueError(f"new ids must follow the last, {self.size - 1}")
        return found, rows

    def upsert(self, ids: NDArray[np.int64], vectors: Vectors) -> None:
        """Put `checked` vectors in the rows of ids: they are there, whether they were before or not."""
        size = max(self.size, int(ids.max(initial=-1)) + 1)
        if size > len(self._room) or not self._room.flags.writeable:  # as it is where a file is mapped
            room = np.empty((size if size == self.size else size + size // 8, self._room.shape[1]), np.float32)
            room[: self.size] = self.vectors
            self._room = room
        self._mask = np.concatenate([self._mask, np.zeros(size - self.size, np.bool_)])
        self.size = size
        self._room[ids] = vectors
        self._mask[ids] = True
        self._changed()

    def delete(self, ids: ArrayLike) -> NDArray[np.int64]:
        """Those of the ids that were there, and are no more.

        Raises:
            ValueError: an id that the catalogue never had, or nothing would be left.
        """
        found = np.unique(np.asarray(ids, np.int64))
        if len(found) and not 0 <= found[0] <= found[-1] < self.size:
            raise ValueError(f"ids {found[0]}..{found[-1]} to delete, the index has 0..{self.size - 1}")
        gone = found[self._mask[found]]
        if len(gone) == self._mask.sum():
            raise ValueError("an index needs at least one vector; these are all")
        self._mask[gone] = False
        self._changed()
        return gone

    def save(self, folder: Path) -> None:
        """Write `vectors.npy`, and `deleted.npy` if anything is."""
        np.save(folder / VECTORS, self.vectors)
        if self.alive is not None:
            np.save(folder / DELETED, np.flatnonzero(~self._mask))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What `save` wrote; the vectors are mapped into memory.

        Raises:
            BundleError: a file is missing or not to be read.
        """
        vectors, path = load_vectors(folder), folder / DELETED
        if not path.exists():
            return cls(vectors)
        try:
            deleted = np.load(path, allow_pickle=False)
            if deleted.dtype.kind != "i" or deleted.ndim != 1 or not ((deleted >= 0) & (deleted < len(vectors))).all():
                raise ValueError(f"{deleted.dtype} {deleted.shape}")
        except (OSError, ValueError, EOFError) as error:
            raise BundleError(str(path), f"cannot be read ({error})", "ids of vectors", "export it again") from error
        return cls(vectors, deleted)
