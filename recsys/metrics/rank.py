"""How many directions vectors make use of."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

EPSILON = 1e-7
"""Added to the normalised singular values, as the paper does for float32."""


def effective_rank(blocks: Iterable[NDArray[np.float32]]) -> float:
    """RankMe: exp(-Σ p_k log p_k), p_k = σ_k / Σ_j σ_j + ε, of the singular values σ of the matrix [rows, d].

    1 where all rows are multiples of one, d where no direction is preferred; 0 for a matrix of zeros, NaN where a
    number is not finite. ε = 1e-7. The singular values are the roots of the eigenvalues of the [d, d] Gram matrix,
    summed in float64 over blocks of rows: those below 1e-8 of the greatest are noise. It is not centred; it depends on
    how many rows there are, and on whether they have length 1, so that only like is to be compared with like.

    Reference: Garrido, Balestriero, Najman, LeCun, "RankMe: Assessing the Downstream Performance of Pretrained
    Self-Supervised Representations by Their Rank", ICML 2023.

    Args:
        blocks: the matrix in pieces [n, d]; one piece is enough.

    >>> round(effective_rank([np.eye(5, dtype=np.float32)]), 2), round(effective_rank([np.ones((9, 4), np.float32)]), 2)
    (5.0, 1.0)
    """
    gram: NDArray[np.float64] | float = 0.0
    for block in blocks:
        exact = block.astype(np.float64)
        gram = gram + exact.T @ exact
    if not np.isfinite(gram).all():
        return float("nan")
    singular = np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0.0))
    if not singular.any():
        return 0.0
    share = singular / singular.sum() + EPSILON
    return float(np.exp(-(share * np.log(share)).sum()))
