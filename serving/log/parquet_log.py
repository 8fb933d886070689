"""Rows that many threads log, in Parquet files that one thread writes."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Event, Lock, Thread
from time import monotonic
from typing import Generic, Literal, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.files import draft_folder

Row = TypeVar("Row")
Outcome = Literal["written", "dropped"]
RETRY = 1.0
"""Seconds after which a file that could not be written is tried again."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class LogCounts:
    """What has become of rows.

    Attributes:
        written: in files.
        dropped: lost, because the queue was full, or because they could not be written before the end.
        waiting: in the queue.
    """

    written: int
    dropped: int
    waiting: int


class ParquetLog(Generic[Row]):
    """A folder of Parquet files, each written under another name and moved when it is whole and on the disk: who reads
    the folder, and whoever comes after a crash, sees whole files only. Any number of processes may share a folder.

    A file that cannot be written is tried again; meanwhile the queue fills. No row is lost without being counted.
    """

    def __init__(
        self,
        folder: Path,
        to_table: Callable[[Sequence[Row]], pa.Table],
        rows: int,
        seconds: float,
        waiting: int,
        patience: float,
        counted: Callable[[Outcome, int], None] = lambda *_: None,
    ) -> None:
        """Args: `to_table` makes a table of rows; a file has at most `rows`, and is written `seconds` after its first;
        at most `waiting` rows are in the queue, for a place in which `put` waits `patience` seconds; `counted` is told
        what becomes of rows. Raises `OSError` where the folder cannot be made.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._to_table = folder, to_table
        self._rows, self._seconds, self._patience, self._counted = rows, seconds, patience, counted
        self._queue: Queue[Row | None] = Queue(waiting)
        self._ending, self._lock = Event(), Lock()
        self._written = self._dropped = self._files = 0
        self._thread = Thread(target=self._run, name=f"log {folder.name}", daemon=True)
        self._thread.start()

    def put(self, row: Row) -> bool:
        """Log a row. False where it was dropped."""
        try:
            if not self._ending.is_set():
                self._queue.put(row, block=self._patience > 0, timeout=self._patience or None)
                return True
        except Full:
            pass
        self._drop(1)
        return False

    def counts(self) -> LogCounts:
        """As they stand."""
        with self._lock:
            return LogCounts(self._written, self._dropped, self._queue.qsize())

    def close(self) -> None:
        """Write what waits, and end; what is put afterwards is dropped. A file that cannot be written now is not tried
        again. Not while a `put` is going on.
        """
        self._ending.set()
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        going_on = True
        while going_on:
            rows, going_on = self._next()
            if rows:
                self._keep(rows)

    def _next(self) -> tuple[list[Row], bool]:
        """The rows of the next file, and whether there will be others."""
        rows, due = list[Row](), None
        while len(rows) < self._rows and (due is None or monotonic() < due):
            try:
                row = self._queue.get(timeout=None if due is None else max(due - monotonic(), 0.0))
            except Empty:
                break
            if row is None:
                return rows, False
            rows.append(row)
            due = due or monotonic() + self._seconds
        return rows, True

    def _keep(self, rows: Sequence[Row]) -> None:
        """In a file, or, where that cannot be, counted."""
        try:
            table = self._to_table(rows)
        except Exception:  # a row that fits no column must not end the log of all others
            _LOG.exception("%s: %d rows fit no table, and are dropped", self._folder, len(rows))
            return self._drop(len(rows))
        while not self._wrote(table):
            if self._ending.wait(RETRY):
                return None if self._wrote(table) else self._drop(len(rows))
        return None

    def _wrote(self, table: pa.Table) -> bool:
        """Whether it is in a file now."""
        try:
            self._write(table)
        except (OSError, pa.ArrowException) as error:
            _LOG.error("%s: %d rows cannot be written yet (%s)", self._folder, len(table), error)
            return False
        with self._lock:
            self._written += len(table)
        self._counted("written", len(table))
        return True

    def _write(self, table: pa.Table) -> None:
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
        name = f"{moment}-{socket.gethostname()}-{os.getpid()}-{self._files}.parquet"
        with draft_folder(self._folder / "rows") as folder:
            draft = folder / name
            with draft.open("wb") as file:
                pq.write_table(table, file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._folder / name)
        self._files += 1

    def _drop(self, count: int) -> None:
        with self._lock:
            self._dropped += count
        self._counted("dropped", count)
