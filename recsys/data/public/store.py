"""Finding, fetching and reading public data sets."""

from __future__ import annotations

import difflib
import hashlib
import os
from pathlib import Path

import duckdb

from recsys.data.cache import cache_dir
from recsys.data.public.avazu import AVAZU
from recsys.data.public.criteo import CRITEO
from recsys.data.public.definition import Layout, PublicDataset
from recsys.data.public.download import download
from recsys.data.public.frappe import FRAPPE
from recsys.data.public.globo import GLOBO
from recsys.data.public.movielens import MOVIELENS
from recsys.data.public.s3rec import S3REC
from recsys.data.source import SourceFiles
from recsys.errors import ConfigError, DataError
from recsys.files import new_folder

DATASETS: dict[str, PublicDataset] = {
    dataset.name: dataset for dataset in (*MOVIELENS, *S3REC, GLOBO, FRAPPE, CRITEO, AVAZU)
}
"""Every public data set, by name."""


def dataset(name: str) -> PublicDataset:
    """The definition of data set `name`.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in DATASETS:
        close = difflib.get_close_matches(name, DATASETS, n=1)
        cure = f"did you mean {close[0]!r}?" if close else "recsys data list"
        raise ConfigError("public data set", f"none is named {name!r}", f"one of {', '.join(DATASETS)}", cure)
    return DATASETS[name]


def locate(name: str) -> Path | None:
    """The folder with the files of data set `name`: in RECSYS_DATA, else in the cache; None if it is in neither.

    Never touches the network.

    Raises:
        ConfigError: there is no data set of that name.
        DataError: RECSYS_DATA names no folder.
    """
    found = _find(dataset(name))
    return found[1] if found else None


def fetch(name: str) -> Path:
    """The folder with the files of data set `name`, downloaded into the cache if they are nowhere else.

    Raises:
        ConfigError: there is no data set of that name.
        DataError: it cannot be downloaded, or its checksum is not the publisher's or the pinned one.
    """
    found = locate(name)
    if found is None:
        found = _cached(name)
        download(dataset(name), found)
    return found


def tables(name: str) -> SourceFiles:
    """Clean Parquet tables of data set `name` (fetched if need be), written once into the cache.

    The folder's name holds a digest of the source files, so a changed copy makes new tables.

    Raises:
        ConfigError, DataError: as `fetch`; or the files are not what the data set's publisher describes.
    """
    fetch(name)
    found = _find(dataset(name))
    if found is None:
        raise DataError(
            str(_cached(name)), f"the download lacks files of {name}", cure="remove the folder, then fetch again"
        )
    layout, folder = found
    target = cache_dir() / "tables" / f"{name}-{_digest(layout, folder)[:16]}"
    if not target.is_dir():
        with new_folder(target) as temporary:
            _write_tables(layout, folder, temporary)
    paths = {table: (target / f"{table}.parquet",) for table in layout.queries}
    return SourceFiles(paths["events"], paths.get("items"), paths.get("users"))


def _cached(name: str) -> Path:
    return cache_dir() / "public" / name


def _find(dataset: PublicDataset) -> tuple[Layout, Path] | None:
    """The first folder that holds all files of one of the data set's layouts."""
    root = os.environ.get("RECSYS_DATA")
    if root and not Path(root).is_dir():
        raise DataError(
            "RECSYS_DATA", f"there is no folder {root}", cure="set it to the folder with your data sets, or unset it"
        )
    for layout in dataset.layouts:
        names = (*layout.folders, dataset.name)
        folders = [Path(root) / name for name in names] if root else []
        for folder in (*folders, _cached(dataset.name)):
            if layout.paths(folder):
                return layout, folder
    return None


def _digest(layout: Layout, folder: Path) -> str:
    """SHA-256 over the queries and the contents of the files they read."""
    digest = hashlib.sha256(repr(layout.queries).encode())
    for path in layout.paths(folder) or ():
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"\n{path.relative_to(folder)} {content}".encode())
    return digest.hexdigest()


def _write_tables(layout: Layout, folder: Path, out: Path) -> None:
    with duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar = false")
        connection.execute("SET VARIABLE folder = ?", [str(folder)])
        connection.execute("CREATE MACRO file(name) AS getvariable('folder') || '/' || name")
        for table, query in layout.queries.items():
            try:
                relation = connection.sql(query)
                relation.write_parquet(str(out / f"{table}.parquet"), compression="zstd")
            except duckdb.Error as error:
                reason = str(error).splitlines()[0]
                raise DataError(
                    str(folder), f"the {table} cannot be read ({reason})", cure="compare the files with the publisher's"
                ) from error
