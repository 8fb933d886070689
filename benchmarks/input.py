"""Input speed: batches from a prepared folder of 40 context features, consumed by an empty loop, in rows a second.

    python benchmarks/input.py [--rows 2000000] [--passes 5] [--wait 600] [--out FILE]

Cases are measured in turn, `--passes` times over; their medians count. Beside them stands a bare pyarrow scan of the
same row groups, which tells what the machine gave at that moment. While others load the machine (the load average
before the start, relative to the cores), the record holds the figures but no verdict.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.data.dataset import CategoricalInfo, Counts, DatasetInfo, FeatureInfo, NumericInfo, SequenceInfo
from recsys.data.prepared import Prepared
from recsys.data.reader import Examples
from recsys.evaluation.record import Environment
from recsys.files import write_text
from recsys.schema.config import SchemaConfig

RESULTS = Path(__file__).parent / "results" / "input.json"
CONTEXT, USERS, ITEMS, PER_USER, ROWS_PER_GROUP, FILES = 40, 2_000, 10_000, 200, 65_536, 4
HISTORY = 50
TARGETS = {"in order": 2_000_000, "shuffled": 1_000_000}
"""Rows a second that issue 2 asks for, of batches of 4,096 on 2 cores."""
QUIET = 0.25
"""Load per core, before the start, above which others are at work."""


def write_prepared(folder: Path, rows: int) -> Path:
    """A prepared folder by the contract: 20 ids and 20 numbers a row, one feature each of users and items."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    texts = {"user": [f"u{n:05d}" for n in range(USERS)], "item": [f"i{n:05d}" for n in range(ITEMS)]}
    start = np.arange(USERS, dtype=np.int64) * PER_USER
    counts = {"event_start": start, "event_count": np.full(USERS, PER_USER, np.int32)}
    for name, extra in (("user", counts), ("item", {"train_count": np.ones(ITEMS, np.int64)})):
        ids = np.arange(2, 2 + len(texts[name]), dtype=np.int32)
        columns = {name: texts[name], **extra, f"raw.{name}_id": texts[name], f"{name}_id": ids}
        pq.write_table(pa.table(columns), folder / f"{name}s.parquet")
    (folder / "events").mkdir()
    events = {
        "user_index": np.repeat(np.arange(USERS, dtype=np.int32), PER_USER),
        "item_index": rng.integers(0, ITEMS, USERS * PER_USER).astype(np.int32),
        "time": np.tile(np.arange(PER_USER, dtype=np.int64), USERS),
        "stage": np.zeros(USERS * PER_USER, np.int8),
    }
    pq.write_table(pa.table(events), folder / "events" / "part-00000.parquet")
    (folder / "train").mkdir()
    for part in range(FILES):
        path = folder / "train" / f"part-{part:05d}.parquet"
        pq.write_table(pa.table(_examples(rng, rows // FILES)), path, row_group_size=ROWS_PER_GROUP)
    (folder / "dataset.json").write_text(_info(rows).model_dump_json())
    return folder


def _examples(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    user = rng.integers(0, USERS, rows).astype(np.int32)
    position = rng.integers(0, PER_USER, rows)
    columns = {
        "user_index": user,
        "item_index": rng.integers(0, ITEMS, rows).astype(np.int32),
        "label": np.ones(rows, np.float32),
        "weight": np.ones(rows, np.float32),
        "time": position,
        "history_stop": user.astype(np.int64) * PER_USER + position,
    }
    for n in range(CONTEXT // 2):
        columns[f"id_{n}"] = rng.integers(1, 10 ** (1 + n % 6), rows).astype(np.int32)
        columns[f"number_{n}"] = rng.normal(size=rows).astype(np.float32)
    return columns


def _info(rows: int) -> DatasetInfo:
    features: dict[str, FeatureInfo] = {
        "user_id": CategoricalInfo(role="user", rows=USERS + 2, oov_rows=1),
        "item_id": CategoricalInfo(role="item", rows=ITEMS + 2, oov_rows=1),
        "history": SequenceInfo(of="item_id", max_length=HISTORY, age=False),
    }
    for n in range(CONTEXT // 2):
        features[f"id_{n}"] = CategoricalInfo(role="context", rows=10 ** (1 + n % 6) + 1, oov_rows=1)
        features[f"number_{n}"] = NumericInfo(role="context", transform="standardize", mean=0.0, std=1.0)
    schema = {
        "user": "user_id",
        "item": "item_id",
        "timestamp": "time",
        "features": {
            "user_id": {"kind": "categorical", "role": "user"},
            "item_id": {"kind": "categorical", "role": "item"},
            "history": {"kind": "sequence", "of": "item_id", "max_length": HISTORY},
        },
    }
    return DatasetInfo(
        name="input",
        digest="input",
        table_schema=SchemaConfig.model_validate(schema),
        features=features,
        counts=Counts(users=USERS, items=ITEMS, events=USERS * PER_USER, train=rows, valid=0, test=0, dropped=0),
        split="temporal",
        has_time=True,
        rows_per_group=ROWS_PER_GROUP,
    )


def cases(folder: Path) -> dict[str, Callable[[int], int]]:
    """Name -> one pass (its number shuffles), which returns the rows that it read."""
    with_history, without = Prepared(folder), Prepared(folder)
    features = {name: info for name, info in without.info.features.items() if name != "history"}
    without.info = without.info.model_copy(update={"features": features})

    def scan(_: int) -> int:
        rows = 0
        for path in sorted((folder / "train").iterdir()):
            file = pq.ParquetFile(path, memory_map=True)
            rows += sum(file.read_row_group(group).num_rows for group in range(file.num_row_groups))
        return rows

    def batches(examples: Examples) -> Callable[[int], int]:
        def run(epoch: int) -> int:
            for _ in examples.batches(epoch):
                pass
            return examples.steps_per_epoch * examples.batch_size

        return run

    found: dict[str, Callable[[int], int]] = {"pyarrow scan": scan}
    for order, seed in (("in order", None), ("shuffled", 0)):
        for batch in (4_096, 16_384):
            for label, prepared in (("", without), (f", history of {HISTORY}", with_history)):
                found[f"{order}, {batch}{label}"] = batches(Examples(prepared, "train", batch, seed))
    return found


def measure(runs: dict[str, Callable[[int], int]], passes: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Rows a second of each pass after one to warm up, and the least CPU seconds (all threads) for a million rows.

    The latter hardly depends on what else runs on the machine.
    """
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    work = dict.fromkeys(runs, float("inf"))
    for number in range(passes + 1):
        for name, run in runs.items():
            start, cpu = time.perf_counter(), time.process_time()
            rows = run(number)
            if number:
                speeds[name].append(rows / (time.perf_counter() - start))
                work[name] = min(work[name], (time.process_time() - cpu) / rows * 1e6)
    return speeds, work


def load_per_core() -> float:
    """The last minute's load average, by the cores that this process may use."""
    return os.getloadavg()[0] / len(os.sched_getaffinity(0))


def wait_for_quiet(seconds: float) -> float:
    """The load per core, as soon as it is low, or after `seconds`."""
    end = time.monotonic() + seconds
    while (load := load_per_core()) > QUIET and time.monotonic() < end:
        time.sleep(5)
    return load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--wait", type=float, default=0.0, help="seconds to wait for a quiet machine")
    parser.add_argument("--only", default="", help="measure only the cases whose name contains this (no record)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the run record")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_prepared(Path(temporary) / "prepared", options.rows)
        runs = {name: run for name, run in cases(folder).items() if options.only in name}
        load = wait_for_quiet(options.wait)
        speeds, work = measure(runs, options.passes)
    median = {name: statistics.median(values) for name, values in speeds.items()}
    for name, value in median.items():
        print(f"{name:<32} {value / 1e6:6.2f} M rows/s  (best {max(speeds[name]) / 1e6:.2f}, {work[name]:.2f} CPU s/M)")
    if options.only:
        return
    verdict = {order: median[f"{order}, 4096"] >= target for order, target in TARGETS.items()}
    if load > QUIET:
        print(f"no verdict: the load was {load:.2f} a core before the start, and up to {QUIET} is quiet")
    else:
        print(f"targets held: {verdict}")
    record = {
        "name": "input",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": Environment.here().model_dump(),
        "rows": options.rows,
        "context_features": CONTEXT,
        "rows_per_group": ROWS_PER_GROUP,
        "passes": options.passes,
        "load_per_core_before": round(load, 2),
        "load_per_core_after": round(load_per_core(), 2),
        "targets": TARGETS,
        "targets_held": verdict if load <= QUIET else None,
        "rows_per_second": {name: round(value) for name, value in median.items()},
        "best_rows_per_second": {name: round(max(values)) for name, values in speeds.items()},
        "cpu_seconds_per_million_rows": {name: round(value, 3) for name, value in work.items()},
        "ratio_to_scan": {name: round(value / median["pyarrow scan"], 3) for name, value in median.items()},
    }
    write_text(options.out, json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
