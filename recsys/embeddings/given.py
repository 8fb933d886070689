"""Vectors that the user gives, one for each value of a vocabulary."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.embeddings.config import EmbeddingsConfig, VectorTable
from recsys.errors import DataError

WANTED = "rows with `value` (text) and `vector` (list of floats)"


def given_vectors(table: VectorTable, feature: str, rows: int, values: NDArray[np.object_]) -> NDArray[np.float32]:
    """[rows, dim] a vector for each id; zeros for missing, OOV, and values without one.

    Args:
        table: names the file and the width.
        feature: whose vocabulary it is.
        rows: number of ids.
        values: text of the last ids, which have a value.

    Raises:
        DataError: no such file or columns, a value that is null or given twice, a vector of another width or with a
            number that is not finite, or not one value of the vocabulary among them.
    """
    path = Path(table.path)
    text, vectors = _read(path, table.dim)
    order = np.argsort(text)
    text, vectors = text[order], vectors[order]
    twice = text[1:][text[1:] == text[:-1]]
    if len(twice):
        raise DataError(str(path), f"{_named(twice)} twice", "one vector for a value", "remove the other rows")
    wrong = text[~np.isfinite(vectors).all(1)]
    if len(wrong):
        found = f"a number that is not finite in the vector of {_named(wrong)}"
        raise DataError(str(path), found, "finite numbers", "leave the row out: the value then starts at zero")
    place = np.minimum(np.searchsorted(text, values.astype(text.dtype)), len(text) - 1)
    known = text[place] == values
    if not known.any():
        found = f"none of the {len(values)} values of {feature!r} among {len(text)}, such as {str(text[0])!r}"
        raise DataError(str(path), found, "vectors by the feature's values, as text")
    found_vectors = np.zeros((rows, table.dim), np.float32)
    found_vectors[rows - len(values) :][known] = vectors[place[known]]
    return found_vectors


def digest_with_given(config: EmbeddingsConfig, prepared: str) -> str:
    """The identity of all data that a model learns from: that of the prepared data, and the given vectors' contents.

    Without given vectors it is that of the prepared data alone.

    Raises:
        DataError: a file of vectors is missing.
    """
    paths = [Path(table.path) for _, table in sorted(config.tables.items()) if isinstance(table, VectorTable)]
    if not paths:
        return prepared
    total = hashlib.sha256(prepared.encode())
    for path in paths:
        _check_there(path)
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def _read(path: Path, dim: int) -> tuple[NDArray, NDArray[np.float32]]:
    """Values, and their vectors [n, dim]."""
    file = _columns(path)
    # Numbers and truth values are written as `prepare` writes them; floats are no categories there either.
    if file["value"].null_count:
        raise DataError(str(path), f"{file['value'].null_count} rows without a value", "text", "remove these rows")
    text = file["value"].cast(pa.string()).to_numpy().astype(str)
    vectors = file["vector"].combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(vectors), 0).to_numpy(zero_copy_only=False)
    odd = np.flatnonzero(lengths != dim)
    if len(odd):
        found = f"a vector of {lengths[odd[0]]} numbers for {_named(text[odd])}"
        raise DataError(str(path), found, f"{dim}, the table's dim")
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and said so
        flat = vectors.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    return text, flat.reshape(-1, dim)


def _columns(path: Path) -> pa.Table:
    """The two columns, of sound types."""
    _check_there(path)
    try:
        file = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(str(path), f"cannot be read ({str(error).splitlines()[0]})", "a Parquet file") from error
    if not {"value", "vector"} <= set(file.column_names) or not file.num_rows:
        found = f"the columns {', '.join(file.column_names)}" if file.num_rows else "no rows"
        raise DataError(str(path), found, WANTED)
    value, vector = (file.schema.field(name).type for name in ("value", "vector"))
    kind = value.value_type if pa.types.is_dictionary(value) else value
    is_text = any(is_kind(kind) for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer))
    if not is_text and not pa.types.is_boolean(kind):
        raise DataError(str(path), f"values of type {value}", WANTED)
    is_list = any(
        is_kind(vector) for is_kind in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    )
    if not is_list or not (pa.types.is_floating(vector.value_type) or pa.types.is_integer(vector.value_type)):
        raise DataError(str(path), f"vectors of type {vector}", WANTED)
    return file


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise DataError(str(path), "no such file", "a Parquet file with the columns `value` and `vector`")


def _named(values: NDArray) -> str:
    """The first, and how many there are."""
    return repr(str(values[0])) + (f" (and {len(values) - 1} more)" if len(values) > 1 else "")
