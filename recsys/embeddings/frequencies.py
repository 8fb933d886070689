"""Training counts by id, for methods that go by frequency.

The ids of a vocabulary are sorted: first those that nobody counts (missing, OOV; all buckets of a number), then the
values by falling count. So a limit on the count is a limit on the id, and no method needs a map from ids to places.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def uncounted(counts: NDArray[np.int64]) -> int:
    """How many ids come before the values.

    >>> uncounted(np.array([0, 0, 7, 3, 3, 0])), uncounted(np.array([0, 0]))
    (2, 2)

    Raises:
        ValueError: the values do not go by falling count.
    """
    if not counts.any():
        return len(counts)
    first = int(np.argmax(counts > 0))
    if np.any(np.diff(counts[first:]) > 0):
        raise ValueError("the values of a vocabulary must go by falling count")
    return first
