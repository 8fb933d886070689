"""Tables that people bring."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from recsys.errors import DataError


def read_table(path: Path, what: str) -> pa.Table:
    """A Parquet, CSV or JSON-lines file. What a CSV holds is text: "007" is a category as good as 7, and numbers are
    read where they are wanted.

    Args:
        path: its ending says which.
        what: its rows are, for errors.

    Raises:
        DataError: the file is missing, of another kind, or cannot be read.
    """
    try:
        match path.suffix.lower():
            case ".parquet":
                return pq.read_table(path)
            case ".csv":
                with path.open(encoding="utf-8") as file:
                    names = file.readline().rstrip("\r\n")
                header = pyarrow.csv.read_csv(pa.py_buffer(f"{names}\n".encode())).column_names
                options = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string()))
                return pyarrow.csv.read_csv(path, convert_options=options)
            case ".jsonl" | ".ndjson":
                return pa.Table.from_pylist([json.loads(line) for line in path.read_text("utf-8").splitlines() if line])
    except FileNotFoundError:
        raise DataError(str(path), "no such file", f"a file of {what}", "name another") from None
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(
            str(path), f"cannot be read ({error})", "Parquet, CSV or JSON lines", "write it again"
        ) from error
    raise DataError(str(path), "no known kind of file", "*.parquet, *.csv or *.jsonl", "name another")
