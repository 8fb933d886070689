"""Vectors that the user gives, one for each value of a vocabulary."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.embeddings.config import VectorTable
from recsys.errors import DataError


def given_vectors(table: VectorTable, feature: str, rows: int, values: NDArray[np.object_]) -> NDArray[np.float32]:
    """[rows, dim] a vector for each id; zeros for missing, OOV, and values without one.

    Args:
        table: names the file and the width.
        feature: whose vocabulary it is.
        rows: number of ids.
        values: text of the last ids, which have a value.

    Raises:
        DataError: no such file or columns, a vector of another width or with a number that is not finite, a value given
            twice, or not one value of the vocabulary among them.
    """
    path = Path(table.path)
    text, vectors = _read(path, table.dim)
    order = np.argsort(text)
    text, vectors = text[order], vectors[order]
    twice = text[1:][text[1:] == text[:-1]]
    if len(twice):
        raise DataError(str(path), f"value {twice[0]!r} twice", "one vector for a value", "remove one of the rows")
    wrong = np.flatnonzero(~np.isfinite(vectors).all(1))
    if len(wrong):
        raise DataError(
            str(path),
            f"a number that is not finite in the vector of {text[wrong[0]]!r}, and in {len(wrong)} vectors in all",
            "finite numbers",
            "leave the row out: the value then starts at zero",
        )
    place = np.minimum(np.searchsorted(text, values.astype(text.dtype)), len(text) - 1)
    known = text[place] == values
    if not known.any():
        raise DataError(
            str(path), f"no value of {feature!r} among {len(text)}", "vectors by the feature's values, as text"
        )
    found = np.zeros((rows, table.dim), np.float32)
    found[rows - len(values) :][known] = vectors[place[known]]
    return found


def _read(path: Path, dim: int) -> tuple[NDArray, NDArray[np.float32]]:
    if not path.is_file():
        raise DataError(str(path), "no such file", "a Parquet file with the columns `value` and `vector`")
    try:
        file = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(str(path), f"cannot be read ({str(error).splitlines()[0]})", "a Parquet file") from error
    missing = {"value", "vector"} - set(file.column_names)
    if missing or not file.num_rows:
        found = f"the columns {', '.join(file.column_names)}" if missing else "no rows"
        raise DataError(str(path), found, "rows with `value` (text) and `vector` (list of floats)")
    vectors = file["vector"].combine_chunks()
    lengths = pa.compute.list_value_length(vectors)
    odd = pa.compute.filter(lengths, pa.compute.not_equal(lengths, dim))
    if len(odd) or vectors.null_count:
        raise DataError(
            str(path), f"a vector of {odd[0]} numbers" if len(odd) else "null for a vector", f"{dim}, the table's dim"
        )
    flat = vectors.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    return file["value"].cast(pa.string()).to_numpy().astype(str), flat.reshape(-1, dim)
