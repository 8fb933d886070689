"""Time and peak memory of `recsys prepare`: Globo's 3.0M clicks, and a synthetic log of 20M events.

    RECSYS_DATA=... python benchmarks/prepare.py [globo] [synthetic] [--events N] [--out FILE]

Each runs in a process of its own; its record replaces that of the same name in benchmarks/results/prepare.json.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.data.config import DataConfig
from recsys.data.prepare import prepare
from recsys.data.source import SourceFiles
from recsys.schema.config import SchemaConfig

RESULTS = Path(__file__).parent / "results" / "prepare.json"
GIB = 2**30
USERS, ITEMS, CHUNK = 1_000_000, 200_000, 1_000_000


def globo_schema() -> SchemaConfig:
    context = {
        name: {"role": "context", "kind": "categorical", "column": f"click_{column}"}
        for name, column in {
            "environment": "environment",
            "device": "deviceGroup",
            "os": "os",
            "country": "country",
            "region": "region",
            "referrer": "referrer_type",
        }.items()
    }
    return SchemaConfig.model_validate(
        {
            "user": "user_id",
            "item": "click_article_id",
            "timestamp": "click_timestamp",
            "timestamp_unit": "ms",
            "features": {
                "article": {"role": "item", "kind": "categorical", "column": "click_article_id"},
                "category": {"role": "item", "kind": "categorical", "column": "category_bucket"},
                **context,
                "recent": {"kind": "sequence", "of": "article", "max_length": 50},
            },
        }
    )


def synthetic_schema() -> SchemaConfig:
    return SchemaConfig.model_validate(
        {
            "user": "user_id",
            "item": "item_id",
            "timestamp": "time",
            "features": {
                "member": {"role": "user", "kind": "categorical", "column": "user_id"},
                "product": {"role": "item", "kind": "categorical", "column": "item_id"},
                "recent": {"kind": "sequence", "of": "product", "max_length": 20, "age": True},
            },
        }
    )


def write_synthetic(path: Path, events: int) -> None:
    """Uniform users, Zipf items, 30 days; in chunks, in no order."""
    rng = np.random.default_rng(0)
    share = np.cumsum(1 / np.arange(1, ITEMS + 1))
    schema = pa.schema([("user_id", pa.int64()), ("item_id", pa.int64()), ("time", pa.int64())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, events, CHUNK):
            rows = min(CHUNK, events - start)
            items = np.searchsorted(share, rng.random(rows) * share[-1])
            times = 1_700_000_000 + rng.integers(0, 30 * 86_400, rows)
            writer.write_table(pa.table([rng.integers(0, USERS, rows), items, times], schema=schema))


def run(name: str, source: Path, out: Path) -> None:
    """One preparation: what the measured process does."""
    schema = globo_schema() if name == "globo" else synthetic_schema()
    data = DataConfig.model_validate(
        {"source": {"kind": "files", "events": source.name}, "split": {"kind": "temporal"}}
    )
    prepare(name, data, schema, SourceFiles((source,)), out)


def measure(name: str, source: Path, folder: Path) -> dict[str, Any]:
    """Wall time and peak resident memory of the process with all its children."""
    out = folder / name
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = before.ru_utime + before.ru_stime
    process = subprocess.Popen([sys.executable, __file__, "--run", name, str(source), str(out)])
    peak = 0
    while process.poll() is None:
        peak = max(peak, _resident(process.pid))
        time.sleep(0.05)
    seconds = time.perf_counter() - start
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise SystemExit(f"{name}: the measured process failed with code {process.returncode}")
    counts = json.loads((out / "dataset.json").read_text())["counts"]
    return {
        "name": name,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime - busy, 1),
        "peak_gib": round(peak / GIB, 2),
        "counts": counts,
        "engine": "duckdb",
        "memory_limit_gib": 3.0,
        "cores": os.cpu_count(),
        "load_at_end": round(os.getloadavg()[0], 1),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("duckdb", "ibis-framework", "pyarrow")},
        },
    }


def _resident(pid: int) -> int:
    total = 0
    try:
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            total += process.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="globo, synthetic; both by default")
    parser.add_argument("--events", type=int, default=20_000_000, help="events of the synthetic log")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON file of records")
    parser.add_argument("--run", nargs=3, metavar=("NAME", "SOURCE", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        name, source, out = options.run
        run(name, Path(source), Path(out))
        return
    records = {record["name"]: record for record in json.loads(options.out.read_text())} if options.out.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.names or ["globo", "synthetic"]:
            if name == "globo":
                source = Path(os.environ["RECSYS_DATA"]) / "globo" / "clicks.parquet"
            else:
                source = Path(folder) / "synthetic.parquet"
                write_synthetic(source, options.events)
            records[name] = measure(name, source, Path(folder))
            print(json.dumps(records[name]))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps([records[name] for name in sorted(records)], indent=2) + "\n")


if __name__ == "__main__":
    main()
