"""Ranking by scores most of which are 0: what is done to them costs what is not 0, however large the catalogue."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys.ragged import Ragged


def incidence(rows: Ragged, columns: int) -> sparse.csr_array:
    """[R, `columns`] int32: how often a row holds a value."""
    ones = np.ones(len(rows.values), np.int32)
    # Copied, for repetitions are added up in place.
    counts = sparse.csr_array((ones, rows.values, rows.offsets), shape=(len(rows), columns), copy=True)
    counts.sum_duplicates()
    return counts


def row_of_entry(matrix: sparse.csr_array) -> NDArray[np.int64]:
    """[number of entries] the row that each entry stands in."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def without(scores: sparse.csr_array, gone: Ragged) -> sparse.csr_array:
    """The scores [R, N] without the columns that `gone` names for each row; holds R * N bytes meanwhile."""
    rows, columns = scores.shape
    flags = np.zeros((rows, columns), np.bool_)
    flags[gone.row_of_value, gone.values] = True
    kept = np.where(flags[row_of_entry(scores), scores.indices], 0, scores.data)
    left = sparse.csr_array((kept, scores.indices, scores.indptr), shape=scores.shape, copy=True)
    left.eliminate_zeros()
    return left


def first(matrix: sparse.csr_array, k: int) -> sparse.csr_array:
    """The first k entries of each row."""
    lengths = np.minimum(np.diff(matrix.indptr), k)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    kept = np.repeat(matrix.indptr[:-1] - starts[:-1], lengths) + np.arange(starts[-1])
    return sparse.csr_array((matrix.data[kept], matrix.indices[kept], starts), shape=matrix.shape)


def largest(scores: sparse.csr_array, k: int) -> sparse.csr_array:
    """The k largest entries of each row, largest first; of equal ones those in the first columns.

    Args:
        scores: [R, N] positive whole numbers; R * N * the largest of them fits int64.
        k: entries of each row.
    """
    columns, most = scores.shape[1], int(scores.data.max(initial=1))
    # One number for (row, falling score, column): numbers sort many times as fast as triples.
    code = row_of_entry(scores) * most
    code += most - scores.data
    code *= columns
    code += scores.indices
    code.sort()
    best = first(sparse.csr_array((code, scores.indices, scores.indptr), shape=scores.shape), k)
    rest, column = np.divmod(best.data, columns)
    return sparse.csr_array(((most - rest % most).astype(scores.dtype), column, best.indptr), shape=scores.shape)
