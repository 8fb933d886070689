"""ISO 8601 text as the event's time: epochs worked out by hand, and text that is no time."""

from __future__ import annotations

import importlib.util
import shutil

import pyarrow as pa
import pytest

from recsys.data.config import DuckDBEngine, SparkEngine
from recsys.data.prepare.engine import start
from recsys.data.prepare.times import is_iso_time, moment
from recsys.errors import DataError

DAY = 86_400
NOON_2024 = 1_704_067_200 + 12 * 3_600
LEAP_DAY = 1_704_067_200 + (31 + 28) * DAY
"""2024-01-01 is day 19,723: 54 years of 365 days, and 13 leap days (1972, 1976, ..., 2020)."""

MICROSECONDS = [
    ("1970-01-01", 0),
    ("2024-01-01", 19_723 * DAY * 1_000_000),
    ("2024-01-01T12:00:00", NOON_2024 * 1_000_000),
    ("2024-01-01 12:00:00", NOON_2024 * 1_000_000),
    ("  2024-01-01T12:00Z ", NOON_2024 * 1_000_000),
    ("2024-01-01 12:00:00 UTC", NOON_2024 * 1_000_000),
    ("2024-01-01T14:00:00+02:00", NOON_2024 * 1_000_000),
    ("2024-01-01T17:30:00.5+0530", NOON_2024 * 1_000_000 + 500_000),
    ("2024-01-01 04:00:00-08", NOON_2024 * 1_000_000),
    ("2024-01-01 11:30:00,25 -00:30", NOON_2024 * 1_000_000 + 250_000),
    ("2023-12-31T22:15:00-13:45", NOON_2024 * 1_000_000),
    ("2024-01-01T12:00:00.123456789Z", NOON_2024 * 1_000_000 + 123_456),
    ("2024-01-01T12:00:00.000001", NOON_2024 * 1_000_000 + 1),
    ("2024-02-29", LEAP_DAY * 1_000_000),
    ("2024-03-01", (LEAP_DAY + DAY) * 1_000_000),
    ("2023-03-01T00:00:00", (LEAP_DAY - 365 * DAY) * 1_000_000),
    ("2000-02-29T23:59:59Z", 951_868_799 * 1_000_000),
    ("1969-12-31T23:59:59.25", -750_000),
    ("1970-01-01T00:00:00+00:01", -60 * 1_000_000),
    ("1900-03-01", -25_508 * DAY * 1_000_000),  # 1900 was no leap year
    ("0001-01-01", -719_162 * DAY * 1_000_000),
    ("9999-12-31T23:59:59.999999", 253_402_300_799_999_999),
]

NO_TIMES = [
    "noon", "2024", "20240101", "2024-1-1", "2024-01", "01/02/2024", "24-01-01", "2024-13-01", "2024-00-10",
    "2024-04-31", "2023-02-29", "1900-02-29", "2024-01-01T", "2024-01-01T12", "2024-01-01T24:00:00",
    "2024-01-01T12:60:00", "2024-01-01T12:00:60", "2024-01-01T12:00:00.", "2024-01-01T12:00:00+2",
    "2024-01-01T12:00:00+24:00", "2024-01-01T12:00:00+02:60", "2024-01-01+02:00", "2024-01-01  12:00:00",
    "2024-01-01T12:00:00Z.", "2024-01-01\n", "x2024-01-01", "2024-01-01 12:00:00 PST", "2024-01-01T120000", "", None,
]  # fmt: skip


@pytest.fixture(params=["duckdb", pytest.param("spark", marks=pytest.mark.system)])
def runner(request, require, tmp_path):
    if request.param == "spark":
        require(importlib.util.find_spec("pyspark"), "the extra recsys[spark] is not installed")
        require(shutil.which("java"), "there is no Java runtime")
    engine = SparkEngine(kind="spark") if request.param == "spark" else DuckDBEngine()
    with start(engine, tmp_path) as runner:
        yield runner


def test_epochs(runner):
    texts = [text for text, _ in MICROSECONDS]
    rows = runner.put("texts", pa.table({"text": texts}))
    units = {unit: moment(rows.text, unit) for unit in ("us", "ms", "s")}
    found = runner.fetch(rows.select("text", **units))
    assert {found[unit].type for unit in units} == {pa.int64()}
    assert sorted(found.to_pylist(), key=lambda row: texts.index(row["text"])) == [
        {"text": text, "us": at, "ms": at // 1_000, "s": at // 1_000_000} for text, at in MICROSECONDS
    ]


def test_what_is_a_time_and_what_is_none(runner):
    texts = [text for text, _ in MICROSECONDS]
    rows = runner.put("texts", pa.table({"text": [*NO_TIMES, *texts]}))
    found = runner.fetch(rows.filter(is_iso_time(rows.text)))["text"].to_pylist()
    assert sorted(found) == sorted(texts)


def test_a_log_with_times_in_text(run, line, tmp_path):
    """Half-second steps: in seconds two events share a moment, in milliseconds none do."""
    clock = [f"2024-02-29 {n // 2 + 1:02}:59:59.{5 * (n % 2)}+01:00" for n in range(10)]
    seconds = [LEAP_DAY + n // 2 * 3_600 + 3_599 for n in range(10)]
    log = tmp_path / "log.csv"
    log.write_text("user,item,time\n" + "".join(f"u,i{n},{at}\n" for n, at in enumerate(clock)))
    for events in (log, {**line, "time": clock}):
        result = run(events, split={"kind": "leave_last_out"})
        assert result.table("events/part-00000")["time"].to_pylist() == seconds
        assert result.histories()["u", "i9"] == [f"i{n}" for n in range(8)]
    result = run(log, schema={"timestamp_unit": "ms"}, split={"kind": "temporal"})
    assert result.table("events/part-00000")["time"].to_pylist() == [
        1_000 * second + 500 * (n % 2) for n, second in enumerate(seconds)
    ]
    assert result.histories()["u", "i9"] == [f"i{n}" for n in range(9)]


@pytest.mark.parametrize(
    ("times", "parts", "problems"),
    [
        (
            ["2024-01-01", "noon", "half past", *["2024-01-02"] * 7],
            ["2 rows hold text that is no time (such as 'half past')", "2024-01-31T10:00:00Z", "drop these rows"],
            1,
        ),
        (["7", "2023-02-29", *["8"] * 8], ["1 row holds text that is no time (such as '2023-02-29')"], 1),
        (
            ["2024-01-01", "17.5", *["2024-01-02"] * 8],
            [
                "1 row holds a number (such as '17.5') and 9 ISO 8601 text (such as '2024-01-01')",
                "the same in all rows",
            ],
            1,
        ),
        (["2024-01-01", "17", "x" * 99, *["18"] * 7], [f"(such as '{'x' * 40}')", "8 rows hold a number"], 2),
        (["2024-01-01", "", None, *["2024-01-02"] * 7], ["2 rows hold no time"], 1),
    ],
)
def test_text_that_is_no_time(run, line, times, parts, problems):
    parts = ["column 'time'", *parts]
    with pytest.raises(DataError) as caught:
        run({**line, "time": times})
    for part in parts:
        assert part in str(caught.value)
    assert len(caught.value.problems) == problems
