"""The log of answers and feedback: what is in its files, when, and what is lost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.bundle.served_log import response_schema
from serving.log import parquet_log
from serving.log.config import LogConfig
from serving.log.parquet_log import LogCounts, ParquetLog
from serving.log.response_log import Feedback, Response, ResponseLog
from tests.tiny_bundle import REQUEST

ROOT = Path(__file__).parents[2]
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
RESPONSE = Response(
    request_id="r1",
    time=NOON,
    user="zoë",
    features={
        "genre": True,
        "tags": ["new", None, 7],
        "watched": [10, "日本"],
        "watched.age": [60, 0.5],
        "taste": [1, 2],
    },
    bundle="tiny",
    version=3,
    candidates=["a", "b", "c"],
    retrieval_scores=np.array([3, 2, 1], np.float32),
    ranker_scores=[0.25, 0.5, 0.125],
    shown=["b", "pinned"],
    scores=np.array([0.5, np.nan]),
    propensities=[0.9, 1.0],
    degraded=[],
    milliseconds={"retrieve": 1.5, "rank": 4.0},
)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def config(folder: Path, **options: Any) -> LogConfig:
    return LogConfig.model_validate({"folder": str(folder), **options})


def test_a_row_holds_what_was_served(tmp_path: Path) -> None:
    log = ResponseLog.open(config(tmp_path), REQUEST)
    other = replace(
        RESPONSE, request_id="r2", user=None, features={"price": 2}, ranker_scores=None, shown=[], scores=[],
        propensities=[], degraded=["ranker"], time=NOON.astimezone(timezone(timedelta(hours=2))),
    )  # fmt: skip
    assert log.response(RESPONSE)
    assert log.response(other)
    assert log.feedback(Feedback("r1", "b", "click", NOON + timedelta(microseconds=1)))
    log.close()
    first, second = rows(tmp_path / "responses")
    shown = [
        {"item": "b", "place": 1, "score": 0.5, "propensity": 0.9},
        {"item": "pinned", "place": 2, "score": None, "propensity": 1.0},
    ]
    noon = NOON.replace(tzinfo=None)
    assert first == {
        "request_id": "r1", "time": noon, "user": "zoë", "bundle": "tiny", "version": 3,
        "candidates": ["a", "b", "c"], "retrieval_scores": [3, 2, 1], "ranker_scores": [0.25, 0.5, 0.125],
        "shown": shown, "degraded": [], "milliseconds": [("retrieve", 1.5), ("rank", 4.0)],
        "raw.genre": "true", "raw.tags": ["new", "7"], "raw.watched": ["10", "日本"], "raw.watched.age": [60, 0.5],
        "raw.price": None, "raw.taste": [1, 2],
    }  # fmt: skip
    assert (second["time"], second["user"], second["raw.price"], second["ranker_scores"]) == (noon, None, 2, None)
    assert (second["shown"], second["degraded"], second["raw.watched"]) == ([], ["ranker"], None)
    (feedback,) = rows(tmp_path / "feedback")
    assert feedback == {"request_id": "r1", "item": "b", "label": "click", "time": noon + timedelta(microseconds=1)}
    (file,) = (tmp_path / "responses").glob("*.parquet")
    assert pq.read_schema(file).equals(response_schema(REQUEST))
    assert log.counts() == {"responses": LogCounts(2, 0, 0), "feedback": LogCounts(1, 0, 0)}


def numbers(folder: Path, **options: Any) -> ParquetLog[int]:
    limits: dict[str, Any] = {"rows": 10_000, "seconds": 1_000.0, "waiting": 1_000, "patience": 0.0}
    return ParquetLog(folder, lambda rows: pa.table({"n": list(rows)}), **(limits | options))


def lengths(folder: Path) -> list[int]:
    return [pq.read_metadata(path).num_rows for path in sorted(folder.glob("*.parquet"))]


def until(condition: Any) -> None:
    end = monotonic() + 60
    while not condition():
        assert monotonic() < end
        sleep(0.01)


def test_files_are_cut_by_rows_and_the_rest_comes_at_the_end(tmp_path: Path) -> None:
    log = numbers(tmp_path, rows=3)
    assert all(log.put(number) for number in range(7))
    log.close()
    assert lengths(tmp_path) == [3, 3, 1]
    assert [row["n"] for row in rows(tmp_path)] == list(range(7))
    assert not list(tmp_path.glob(".*"))
    assert log.counts() == LogCounts(7, 0, 0)
    assert not log.put(8)
    assert log.counts().dropped == 1


def test_a_file_is_cut_by_time(tmp_path: Path) -> None:
    log = numbers(tmp_path, seconds=0.05)
    log.put(1)
    until(lambda: lengths(tmp_path) == [1])
    log.put(2)
    until(lambda: lengths(tmp_path) == [1, 1])
    log.close()
    assert lengths(tmp_path) == [1, 1]


TOLD: list[tuple[str, int]] = []


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[ParquetLog[int], Event]]:
    """A log with room for two rows, whose thread is busy with a third until the event."""
    go, busy = Event(), Event()
    TOLD.clear()

    def to_table(rows: Any) -> pa.Table:
        busy.set()
        go.wait()
        return pa.table({"n": list(rows)})

    log: ParquetLog[int] = ParquetLog(tmp_path, to_table, 1, 9.0, 2, 0.0, lambda *what: TOLD.append(what))
    log.put(0)
    busy.wait()
    yield log, go
    go.set()
    log.close()


def test_what_finds_no_place_is_counted(held: tuple[ParquetLog[int], Event], tmp_path: Path) -> None:
    log, go = held
    assert [log.put(number) for number in (1, 2, 3, 4)] == [True, True, False, False]
    assert log.counts() == LogCounts(0, 2, 2)
    go.set()
    log.close()
    assert log.counts() == LogCounts(3, 2, 0)
    assert TOLD == [("dropped", 1)] * 2 + [("written", 1)] * 3
    assert [row["n"] for row in rows(tmp_path)] == [0, 1, 2]


def test_patience_waits_for_a_place(held: tuple[ParquetLog[int], Event], monkeypatch: pytest.MonkeyPatch) -> None:
    log, go = held
    log.put(1)
    log.put(2)
    monkeypatch.setattr(log, "_patience", 0.01)
    assert not log.put(3)
    monkeypatch.setattr(log, "_patience", 60.0)
    found = list[bool]()
    waiting = Thread(target=lambda: found.append(log.put(4)))
    waiting.start()
    go.set()
    waiting.join()
    assert found == [True]
    assert log.counts().dropped == 1


def test_a_full_disk_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_log, "RETRY", 0.01)
    write, tries = pq.write_table, list[int]()

    def broken(*arguments: Any, **options: Any) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise OSError(28, "No space left on device")
        write(*arguments, **options)

    monkeypatch.setattr(pq, "write_table", broken)
    log = numbers(tmp_path, rows=2)
    log.put(1)
    log.put(2)
    until(lambda: log.counts().written == 2)
    assert (len(tries), lengths(tmp_path)) == (3, [2])
    monkeypatch.setattr(pq, "write_table", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "full")))
    log.put(3)
    log.close()
    assert log.counts() == LogCounts(2, 1, 0)
    assert not list(tmp_path.glob(".*"))


def test_a_row_that_fits_no_column_takes_only_its_file_along(tmp_path: Path) -> None:
    log = numbers(tmp_path, rows=1)
    log.put("text")  # type: ignore[arg-type]
    log.put(object())  # type: ignore[arg-type]
    log.put(5)
    log.close()
    assert log.counts() == LogCounts(2, 1, 0)


def test_a_killed_process_leaves_whole_files(tmp_path: Path) -> None:
    """The next log removes what it was writing."""
    code = (
        "import sys, itertools, pyarrow as pa; from pathlib import Path\n"
        "from serving.log.parquet_log import ParquetLog\n"
        "log = ParquetLog(Path(sys.argv[1]), lambda rows: pa.table({'n': rows}), 50, 600.0, 100, 600.0)\n"
        "for number in itertools.count(): log.put(number)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=os.environ | {"PYTHONPATH": str(ROOT)})
    until(lambda: len(list(tmp_path.glob("*.parquet"))) > 3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (tmp_path / f".rows.draft-{socket.gethostname()}-{process.pid}-x").mkdir(exist_ok=True)
    counts = lengths(tmp_path)
    assert set(counts) == {50}
    found = [row["n"] for row in rows(tmp_path)]
    assert found == list(range(50 * len(counts)))
    log = numbers(tmp_path)
    log.put(1)
    log.close()
    assert lengths(tmp_path) == [*counts, 1]
    assert not list(tmp_path.glob(".*"))


def test_many_threads_lose_nothing(tmp_path: Path) -> None:
    log = numbers(tmp_path, rows=64, patience=60.0, waiting=8)
    threads = [Thread(target=lambda start=n: [log.put(start + i) for i in range(100)]) for n in range(0, 400, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert sorted(row["n"] for row in rows(tmp_path)) == list(range(400))
    assert log.counts() == LogCounts(400, 0, 0)
