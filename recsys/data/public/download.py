"""Downloads that are checked: against the publisher's checksum where there is one, and against the first download."""

from __future__ import annotations

import hashlib
import json
import re
import urllib.error
import urllib.request
import zipfile
from http.client import HTTPException
from pathlib import Path, PurePosixPath

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from recsys.data.cache import cache_dir
from recsys.data.public.definition import Download, PublicDataset
from recsys.errors import DataError
from recsys.files import new_folder, write_text

_TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 18


def download(dataset: PublicDataset, target: Path) -> None:
    """Fetch the publisher's files of `dataset` into the new folder `target`, whole or not at all.

    Raises:
        DataError: no download address is known, the network fails, or a checksum does not match.
    """
    layout = dataset.layouts[0]
    if not dataset.downloads:
        raise DataError(
            dataset.name,
            "not found, and its publisher has no address for downloads by program",
            cure=f"get it by hand from {dataset.page}, put {', '.join(layout.files)} "
            f"into a folder {layout.folders[0]}/, and set RECSYS_DATA to the folder that holds it",
        )
    with new_folder(target) as folder:
        for file in dataset.downloads:
            path = folder / PurePosixPath(file.url).name
            _fetch(dataset, file, path)
            if path.suffix == ".zip":
                _unzip(path, layout.files, folder)
                path.unlink()
        if layout.paths(folder) is None:
            raise DataError(
                dataset.name, "the download lacks files", f"{', '.join(layout.files)}", f"see {dataset.page}"
            )


def _fetch(dataset: PublicDataset, file: Download, path: Path) -> None:
    try:
        published = _published_md5(file)
        sha256, md5 = _stream(file.url, path)
    except (OSError, HTTPException) as error:
        raise DataError(
            dataset.name,
            f"cannot download {file.url} ({getattr(error, 'reason', None) or error or type(error).__name__})",
            cure=f"set RECSYS_DATA to a folder that holds {dataset.layouts[0].folders[0]}/, "
            "or make data with: recsys data simulate --out DIR",
        ) from error
    if published is not None and md5 != published:
        raise DataError(file.url, f"the download's MD5 is {md5}", f"{published} (the publisher's)", "try again later")
    _pin(file.url, sha256)


def _stream(url: str, path: Path) -> tuple[str, str]:
    """Write `url` to `path`; SHA-256 and MD5 of what came."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with (
        urllib.request.urlopen(url, timeout=_TIMEOUT) as response,
        path.open("wb") as out,
        Progress(*columns, console=Console(stderr=True), transient=True) as progress,
    ):
        length = response.headers.get("Content-Length")
        expected = int(length) if length else None
        task = progress.add_task(path.name, total=expected)
        while chunk := response.read(_CHUNK):
            out.write(chunk)
            sha256.update(chunk)
            md5.update(chunk)
            progress.advance(task, len(chunk))
    if expected is not None and path.stat().st_size != expected:
        raise OSError(f"the connection broke after {path.stat().st_size} of {expected} bytes")
    return sha256.hexdigest(), md5.hexdigest()


def _published_md5(file: Download) -> str | None:
    """The publisher's MD5 (`MD5 (NAME) = HEX` or `HEX  NAME`)."""
    if file.md5_url is None:
        return None
    with urllib.request.urlopen(file.md5_url, timeout=_TIMEOUT) as response:
        text = response.read(4096).decode("utf-8", "replace")
    found = re.search(r"\b[0-9a-fA-F]{32}\b", text)
    if found is None:
        raise DataError(file.md5_url, "there is no MD5 checksum in the answer", cure="try again later")
    return found.group().lower()


def _pin(url: str, sha256: str) -> None:
    """Trust the first download of `url`; every later one has to be the same."""
    lock = cache_dir() / "public" / "checksums.json"
    pins: dict[str, str] = json.loads(lock.read_text()) if lock.exists() else {}
    if pins.get(url, sha256) != sha256:
        raise DataError(
            url,
            f"the download's SHA-256 is {sha256}",
            f"{pins[url]}, that of the first download (pinned in {lock})",
            "if the publisher has changed the file and you trust the new one, remove its line there",
        )
    pins[url] = sha256
    write_text(lock, json.dumps(pins, indent=1, sort_keys=True))


def _unzip(archive: Path, names: tuple[str, ...], folder: Path) -> None:
    """Take the files `names` out of the archive, whatever folder they stand in there."""
    try:
        with zipfile.ZipFile(archive) as content:
            for member in content.infolist():
                if PurePosixPath(member.filename).name in names:
                    member.filename = PurePosixPath(member.filename).name
                    content.extract(member, folder)
    except zipfile.BadZipFile as error:
        raise DataError(archive.name, f"is no zip file ({error})", cure="try again later") from error
