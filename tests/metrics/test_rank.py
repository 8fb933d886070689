"""Effective rank: what spreads, what collapses."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.errors import ExportError
from recsys.export.gates import refuse_collapsed
from recsys.metrics import effective_rank

RNG = np.random.default_rng(0)


def isotropic(rows: int, width: int) -> NDArray[np.float32]:
    return RNG.normal(size=(rows, width)).astype(np.float32)


def test_it_counts_the_directions_in_use() -> None:
    """Isotropic vectors of width 32 have nearly 32, of rank 5 nearly 5, one and the same vector 1."""
    assert effective_rank([isotropic(20_000, 32)]) == pytest.approx(32, abs=0.1)
    low = isotropic(20_000, 5) @ np.linalg.qr(isotropic(32, 32))[0][:5]
    assert effective_rank([low]) == pytest.approx(5, abs=0.05)
    assert effective_rank([np.tile(isotropic(1, 32), (500, 1))]) == pytest.approx(1, abs=0.01)
    assert np.isnan(effective_rank([np.full((3, 2), np.nan, np.float32)]))


def test_pieces_are_one_matrix() -> None:
    matrix = isotropic(100, 8) * np.arange(1, 9, dtype=np.float32)
    assert effective_rank(np.split(matrix, 4)) == pytest.approx(effective_rank([matrix]), rel=1e-6)


def test_collapsed_vectors_are_refused() -> None:
    collapsed = np.tile(isotropic(1, 16), (50, 1)) + 1e-4 * isotropic(50, 16)
    with pytest.raises(ExportError, match=r"retrieval.min_rank: the effective rank of the item vectors is 1.0 of 16"):
        refuse_collapsed(collapsed, 2.0)
    refuse_collapsed(collapsed, None)
    refuse_collapsed(isotropic(500, 16), 12.0)
