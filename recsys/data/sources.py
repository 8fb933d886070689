"""From the `data.source` of a config to files on this machine."""

from __future__ import annotations

import glob
from pathlib import Path

from recsys.data import long_histories, simulator
from recsys.data.config import (
    FilesSource,
    PublicSource,
    ServedSource,
    SimulatedHistoriesSource,
    SimulatedSource,
    Source,
)
from recsys.data.public import tables
from recsys.data.served import served
from recsys.data.source import SourceFiles
from recsys.errors import DataError


def resolve(source: Source, base_dir: Path) -> SourceFiles:
    """The files of a source; paths in the config are relative to `base_dir`, the folder of the YAML.

    Public data sets are fetched and simulated ones made, where the cache does not hold them yet.

    Raises:
        ConfigError: there is no public data set of that name.
        DataError: there are no such files; or a public data set cannot be had.
    """
    match source:
        case FilesSource():
            return _beside(source, _files("events", source.events, base_dir), base_dir)
        case PublicSource():
            return tables(source.name)
        case SimulatedSource():
            return simulator.simulated(source)
        case SimulatedHistoriesSource():
            return long_histories.simulated(source)
        case ServedSource():
            return _beside(source, served(source, base_dir / Path(source.folder).expanduser()), base_dir)


def _beside(source: FilesSource | ServedSource, events: tuple[Path, ...], base_dir: Path) -> SourceFiles:
    """Events with the tables of items and users, if there are any."""
    return SourceFiles(
        events,
        _files("items", source.items, base_dir) if source.items is not None else None,
        _files("users", source.users, base_dir) if source.users is not None else None,
    )


def _files(key: str, pattern: str, base_dir: Path) -> tuple[Path, ...]:
    """The file, or all files that fit the glob, sorted by name."""
    path = base_dir / Path(pattern).expanduser()
    # A file may have brackets in its name: what is there as written is no pattern.
    found = (path,) if path.is_file() else tuple(sorted(map(Path, glob.glob(str(path), recursive=True))))
    files = tuple(file for file in found if file.is_file())
    if not files:
        cure = "correct the path" if not path.is_dir() else f"for all files of a folder write {pattern.rstrip('/')}/*"
        raise DataError(f"data.source.{key}", f"no file {path}", "a Parquet, CSV or TSV file, or a glob", cure)
    return files
