"""The raw files of a data set: Parquet, CSV or TSV."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from recsys.errors import DataError, SchemaError

Role = Literal["events", "items", "users"]
SEPARATORS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class SourceFiles:
    """The raw files, by what they hold. Files of one kind have the same columns."""

    events: tuple[Path, ...]
    items: tuple[Path, ...] | None = None
    users: tuple[Path, ...] | None = None

    def tables(self) -> Iterator[tuple[Role, tuple[Path, ...]]]:
        """The kinds of file that are there."""
        yield "events", self.events
        if self.items is not None:
            yield "items", self.items
        if self.users is not None:
            yield "users", self.users

    def digest(self) -> str:
        """SHA-256 over the contents of all files, in order; names and places do not count."""
        total = hashlib.sha256()
        for role, paths in self.tables():
            for path in paths:
                total.update(f"{role}{path.suffix.lower()}:{_file_digest(path)}\n".encode())
        return total.hexdigest()


def place(paths: tuple[Path, ...]) -> str:
    """How an error names these files."""
    return str(paths[0]) if len(paths) == 1 else f"{paths[0]} (and {len(paths) - 1} more)"


def as_parquet(role: Role, paths: tuple[Path, ...], folder: Path) -> tuple[Path, ...]:
    """The same tables as Parquet files; a CSV or TSV is rewritten into `folder` with every column as text.

    One reader for all engines, so that quoting, types and nulls cannot differ between them.

    Raises:
        DataError: a file is missing, unreadable, empty or of another type.
        SchemaError: files of one kind have different columns.
    """
    if not paths:
        raise DataError(
            role, "no files", "at least one Parquet, CSV or TSV file", f"name the {role} file in data.source"
        )
    parquet = tuple(_parquet(path, folder / f"{role}-{number:05d}.parquet") for number, path in enumerate(paths))
    files = [_opened(path, original) for path, original in zip(parquet, paths, strict=True)]
    if sum(file.metadata.num_rows for file in files) == 0:
        raise DataError(place(paths), "no rows", "at least one row", "check how the file was written")
    first = files[0].schema_arrow
    for path, file in zip(paths, files, strict=True):
        if not file.schema_arrow.equals(first):
            raise SchemaError(
                str(path),
                f"columns {_described(file.schema_arrow)}",
                f"those of {paths[0]}: {_described(first)}",
                "write all files with the same columns and types",
            )
    return parquet


def _described(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(str(path), error.strerror or str(error), "a readable file", "check data.source") from error


def _opened(path: Path, original: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            str(original), f"not readable as Parquet ({_line(error)})", "a Parquet file", "write the file again"
        ) from error


def _parquet(path: Path, target: Path) -> Path:
    suffix = path.suffix.lower()
    if suffix in (".parquet", ".pq"):
        return path
    if suffix not in SEPARATORS:
        raise DataError(
            str(path), f"files ending in {suffix!r}", ".parquet, .csv or .tsv", "convert or rename the file"
        )
    try:
        _csv_to_parquet(path, SEPARATORS[suffix], target)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            str(path), f"not readable as {suffix[1:].upper()} ({_line(error)})", "UTF-8 text with a header line",
            "mend that line, or convert the file to Parquet",
        ) from error  # fmt: skip
    return target


def _csv_to_parquet(path: Path, separator: str, target: Path) -> None:
    parse = pa.csv.ParseOptions(delimiter=separator, newlines_in_values=True)
    with pa.csv.open_csv(path, parse_options=parse) as reader:
        names = reader.schema.names
    convert = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), null_values=[""], strings_can_be_null=True
    )
    with (
        pa.csv.open_csv(path, parse_options=parse, convert_options=convert) as reader,
        pq.ParquetWriter(target, reader.schema) as writer,
    ):
        for batch in reader:
            writer.write_batch(batch)


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
