"""What becomes of a number before it is standardised or put into buckets; `recsys.embeddings.numeric` does the same in
the graph.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.schema.config import Transform

Numbers = NDArray[np.float64]


def transformed(x: Numbers, transform: Transform) -> Numbers:
    """[N] numbers -> [N]; NaN stays NaN.

    sign(x) log(1 + |x|) for `log`; for `log_squared` the whole part of (log x)^2 above 2, x itself up to there; that
    rounded down for `log_squared_buckets`; x for the others.
    """
    match transform:
        case "log":
            return np.sign(x) * np.log1p(np.abs(x))
        case "log_squared":
            return _log_squared(x)
        case "log_squared_buckets":
            return np.floor(_log_squared(x))
        case _:
            return x


def _log_squared(x: Numbers) -> Numbers:
    return np.where(x > 2, np.floor(np.log(np.maximum(x, 2)) ** 2), x)
