"""Which items a search may give."""

from __future__ import annotations

from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Allowed:
    """A set of items, for all queries of a search.

    >>> two = Allowed.of([3, 1], size=5)
    >>> len(two), two.ids.tolist(), two.mask.tolist()
    (2, [1, 3], [False, True, False, True, False])
    """

    def __init__(self, mask: ArrayLike) -> None:
        """Of `mask` [N] bool: whether an item is in the set."""
        self.mask: NDArray[np.bool_] = np.asarray(mask)
        if self.mask.ndim != 1 or self.mask.dtype != np.bool_:
            raise ValueError(f"a mask is bool [items], not {self.mask.dtype} {self.mask.shape}")

    @classmethod
    def of(cls, ids: ArrayLike, size: int) -> Self:
        """The set of these ids, of `size` items."""
        mask = np.zeros(size, np.bool_)
        mask[np.asarray(ids, np.int64)] = True
        return cls(mask)

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """The members, rising."""
        return np.flatnonzero(self.mask)

    def __len__(self) -> int:
        return len(self.ids)

    def __and__(self, other: Allowed | None) -> Allowed:
        return self if other is None or other is self else Allowed(self.mask & other.mask)
