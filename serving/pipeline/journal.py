"""Changes of a running server's catalogue that outlive it.

    FOLDER/NAME-VERSION.journal     a line for each change: CRC-32 in hexadecimal, a space, JSON {"upsert", "delete"}

Each bundle has its own file, so that a newer one starts with its own catalogue, and a rollback finds the changes again.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, Self
from urllib.parse import quote

from recsys.bundle.requests import text_of
from recsys.errors import ExportError, RecsysError, RequestError

Id = str | int
Rows = Sequence[Mapping[str, Any]]
SUFFIX = ".journal"
_LOG = logging.getLogger(__name__)


class JournalError(RecsysError):
    """The journal cannot be read or written."""


class Catalogue(Protocol):
    """What changes; `serving.pipeline.shelf.LiveShelf` is one."""

    def update(self, upserts: Rows, deletes: Sequence[Id]) -> None:
        """Put items there, or change them, and take others away."""


class Journal:
    """The changes made to the catalogue of one bundle, for one process at a time and any number of its threads."""

    def __init__(self, path: Path, changes: _Changes, file: int) -> None:
        """`Journal.open` makes one."""
        self.path = path
        self._changes = changes
        self._file = file
        self._lock = Lock()

    @classmethod
    def open(cls, folder: Path, bundle: str, version: int) -> Self:
        """The journal of a bundle in `folder`, which is made if need be.

        What an item has become is kept, how it came to that is not: the file is written anew, whole or not at all. A
        last line that a crash cut off, which nobody was told was kept, is left out. Journals of other versions stay
        untouched, and a note in the log tells of them.

        Raises:
            JournalError: the file is damaged elsewhere than at its end, or cannot be read or written.
        """
        name = quote(bundle, safe="")
        path = folder / f"{name}-{version}{SUFFIX}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for other in sorted(folder.glob(f"*{SUFFIX}")):
                if other != path and other.stat().st_size:
                    _LOG.info("%s: changes of another bundle, not made to %s %d", other, bundle, version)
            changes = _Changes()
            for line in _lines(path):
                changes.add(line["upsert"], line["delete"])
            _write_whole(path, changes.lines())
            return cls(path, changes, os.open(path, os.O_WRONLY | os.O_APPEND))
        except OSError as error:
            raise _failed(path, error) from error

    def append(self, upserts: Rows, deletes: Sequence[Id]) -> None:
        """Keep a change that has been made. When this returns it is on the disk.

        Raises:
            JournalError: it cannot be written; the journal is as it was.
        """
        with self._lock:
            self._append(upserts, deletes)

    def update(self, catalogue: Catalogue, upserts: Rows, deletes: Sequence[Id]) -> None:
        """Make a change, and keep it if it can be made; changes are kept in the order in which they are made.

        Raises:
            ExportError, RequestError: as the catalogue says; in the latter case nothing is kept.
            JournalError: the change has been made, but not kept.
        """
        with self._lock:
            try:
                catalogue.update(upserts, deletes)
            except ExportError:  # the items are there all the same
                self._append(upserts, deletes)
                raise
            self._append(upserts, deletes)

    def replay(self, catalogue: Catalogue) -> int:
        """Make all changes that were kept when the journal was opened, to the catalogue of the same bundle.

        Returns:
            How many items have changed.

        Raises:
            ExportError: as the catalogue says; the items are there all the same.
            JournalError: the catalogue takes a change no more.
        """
        rows, gone = self._changes.rows, sorted(self._changes.gone)
        try:
            if rows:
                catalogue.update([*rows.values()], ())
            if gone:
                catalogue.update((), gone)
        except RequestError as error:
            cure = f"remove {self.path}, and make its changes again"
            raise JournalError(str(self.path), f"does not fit the bundle ({error})", "its own bundle", cure) from error
        return len(rows.keys() | self._changes.gone)

    def close(self) -> None:
        """End writing."""
        with self._lock:
            os.close(self._file)

    def _append(self, upserts: Rows, deletes: Sequence[Id]) -> None:
        line = _line(upserts, deletes)
        before = os.fstat(self._file).st_size
        try:
            written = os.write(self._file, line)
            if written < len(line):
                raise OSError(f"{written} of {len(line)} bytes were written")
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, before)
            raise _failed(self.path, error) from error


class _Changes:
    """What has become of items: the last row of each that was put there, and which are gone."""

    def __init__(self) -> None:
        self.rows: dict[str, Mapping[str, Any]] = {}
        self.gone: set[str] = set()

    def add(self, upserts: Rows, deletes: Sequence[Id]) -> None:
        """An item that is in both stays, as in the catalogue. One that is gone keeps its row: it may be none of the
        bundle's, and only what is there can be deleted.
        """
        rows = {text_of(row["item"], "item"): row for row in upserts}
        self.gone |= {text_of(item, "delete") for item in deletes}
        self.gone -= rows.keys()
        self.rows |= rows

    def lines(self) -> bytes:
        """All of them: rows first, then those that are gone, row or no row."""
        puts = _line([*self.rows.values()], ()) if self.rows else b""
        return puts + (_line((), sorted(self.gone)) if self.gone else b"")


def _line(upserts: Rows, deletes: Sequence[Id]) -> bytes:
    text = json.dumps({"upsert": [*upserts], "delete": [*deletes]}, allow_nan=False, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The changes in a file, of which the last line may be cut off."""
    lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
    if not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, start=1):
        checksum, _, text = line.partition(b" ")
        if checksum == b"%08x" % zlib.crc32(text):
            yield json.loads(text)
        elif number == len(lines):
            _LOG.warning("%s: line %d was cut off by a crash, and is left out", path, number)
        else:
            cure = "copy the file from elsewhere, or remove it and make its changes again"
            raise JournalError(f"{path}:{number}", "is damaged", "a line with its checksum", cure)


def _write_whole(path: Path, content: bytes) -> None:
    """Under another name first; on the disk when this returns."""
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _failed(path: Path, error: OSError) -> JournalError:
    return JournalError(str(path), str(error), "a folder with room and rights", "make room, or choose another folder")
