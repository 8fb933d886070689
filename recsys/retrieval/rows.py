"""Which vector stands where in a ScaNN searcher, which fills a gap with its last one."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys.errors import BundleError

ROWS = "rows.npy"
"""In an index's folder: ids by the searcher's places, where they are not those that are there as they rise."""


class Rows:
    """From places in a searcher to ids, and back. ScaNN's own map of the kind would be a pickle.

    >>> rows = Rows([0, 1, 2, 3], size=4)
    >>> rows.remove(np.array([1, 3]))  # 3 takes the place of 1, and is then removed from there
    [1, 1]
    >>> rows.ids.tolist(), rows.places(np.array([2, 3])).tolist()
    ([0, 2], [1, -1])
    """

    def __init__(self, ids: ArrayLike, size: int) -> None:
        """Args: `ids` by place, of `size` that there are."""
        self.ids = np.array(ids, np.int32)
        self._places = np.full(size, -1, np.int32)
        self._places[self.ids] = np.arange(len(self.ids))

    def __len__(self) -> int:
        return len(self.ids)

    def places(self, ids: NDArray[np.int64]) -> NDArray[np.int32]:
        """Where ids stand; -1 for those that do not."""
        found = np.full(len(ids), -1, np.int32)
        known = ids < len(self._places)
        found[known] = self._places[ids[known]]
        return found

    def append(self, ids: NDArray[np.int64]) -> None:
        """They stand behind all others, in this order."""
        missing = int(ids.max(initial=-1)) + 1 - len(self._places)
        self._places = np.concatenate([self._places, np.full(max(0, missing), -1, np.int32)])
        self._places[ids] = np.arange(len(self.ids), len(self.ids) + len(ids))
        self.ids = np.concatenate([self.ids, ids.astype(np.int32)])

    def remove(self, ids: NDArray[np.int64]) -> list[int]:
        """The places to be removed one after the other: each time the last one comes to stand there."""
        removed = []
        end = len(self.ids)
        for gone in ids.tolist():
            end -= 1
            place, last = int(self._places[gone]), int(self.ids[end])
            removed.append(place)
            self.ids[place], self._places[last], self._places[gone] = last, place, -1
        self.ids = self.ids[:end].copy()
        return removed

    def save(self, folder: Path) -> None:
        """Write `rows.npy`."""
        np.save(folder / ROWS, self.ids)

    @classmethod
    def load(cls, folder: Path, there: NDArray[np.int64], size: int) -> Self:
        """What `save` wrote, or else the ids that are there, as they rise.

        Raises:
            BundleError: the file cannot be read, or is not of those ids.
        """
        path = folder / ROWS
        if not path.exists():
            return cls(there, size)
        try:
            ids = np.load(path, allow_pickle=False)
            if ids.dtype != np.int32 or not np.array_equal(np.sort(ids), there):
                raise ValueError(f"{ids.dtype} {ids.shape}, and {len(there)} items are there")
        except (OSError, ValueError, EOFError) as error:
            raise BundleError(str(path), f"cannot be read ({error})", "the items' places", "export it again") from error
        return cls(ids, size)
