"""Exact search of many queries, against the matrix products alone.

    python benchmarks/exact_search.py [--queries 100000] [--items 1000000] [--rounds 5] [--force] [--out FILE]

Vectors of width 64 are given. `recsys` is `ExactIndex.search` for the best 100 of each query; `products` are the same
blocked matrix products, on as many threads, with nothing done to their scores: what no exact search can do without.
NumPy's partial sort of each row of scores, which is what one would write, stands beside them.

Each contender has a process of its own, and they take turns, round after round; ratios are of medians. Each round is
kept in the record as it ends: the same command goes on after a kill. Peak memory is of the process, vectors and results
included. If others loaded the machine meanwhile nothing is judged: it ends with status 2, unless --force. Status 1: a
target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
from contest import QUIET, others
from table import markdown

from recsys.evaluation.record import Environment
from recsys.files import write_text
from recsys.retrieval.exact import ITEMS, QUERIES, ExactIndex, _cores, _on_all_cores

RESULTS = Path(__file__).parent / "results" / "exact_search.json"
DIM, K = 64, 100
CONTENDERS = ("recsys", "products", "NumPy argpartition")
SORTED = 256
"""Queries of NumPy's: its time grows with their number."""
MOST, GOAL, MEMORY_GIB = 2.2, 1.5, 3.0
"""Times the products, and memory."""


def vectors(seed: int, rows: int) -> np.ndarray:
    """The same in every process."""
    return np.random.default_rng(seed).standard_normal((rows, DIM), np.float32)


def products(queries: np.ndarray, items: np.ndarray) -> None:
    """As `ExactIndex` cuts them."""

    def rank(start: int) -> None:
        block = queries[start : start + QUERIES].T
        for low in range(0, len(items), ITEMS):
            items[low : low + ITEMS] @ block

    _on_all_cores(rank, range(0, len(queries), QUERIES))


def partitioned(queries: np.ndarray, items: np.ndarray) -> None:
    """A row of scores for each query, of which the best are taken: 8 queries at once on each core."""

    def rank(start: int) -> None:
        scores = queries[start : start + 8] @ items.T
        best = np.argpartition(-scores, K, axis=1)[:, :K]
        np.argsort(-np.take_along_axis(scores, best, 1), axis=1)

    with ThreadPoolExecutor(_cores()) as pool:
        list(pool.map(rank, range(0, len(queries), 8)))


def turn(name: str, queries: int, items: int) -> dict[str, float]:
    """One round of one contender, in this process."""
    asked, catalogue = vectors(1, queries), vectors(0, items)
    index = ExactIndex(catalogue)
    index.search(asked[:64], K)  # threads are there, and pages
    start, cpu = perf_counter(), process_time()
    if name == "recsys":
        index.search(asked, K)
    elif name == "products":
        products(asked, index.vectors)
    else:
        partitioned(asked[:SORTED], index.vectors)
    scale = queries / min(SORTED, queries) if name == CONTENDERS[2] else 1.0
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "seconds": scale * (perf_counter() - start),
        "cpu_seconds": scale * (process_time() - cpu),
        "memory_gib": memory,
    }


def measured(record: dict[str, Any], rounds: int, path: Path) -> dict[str, Any]:
    """The record with all its rounds; those that it has are not run again."""
    queries, items = record["queries"], record["items"]
    while min(len(record["rounds"][name]) for name in CONTENDERS) < rounds:
        for name in CONTENDERS:
            if len(record["rounds"][name]) < rounds:
                command = [sys.executable, __file__, "--turn", name, "--queries", str(queries), "--items", str(items)]
                with others() as load:
                    done = subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ))
                found = json.loads(done.stdout.splitlines()[-1])
                record["rounds"][name].append(found | {"others": load.share})
                write_text(path, json.dumps(record, indent=1) + "\n")
                print(f"{name:20} {found['seconds']:8.2f} s  others {load.share:.0%}", file=sys.stderr)
    return record


def judged(record: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Contender -> medians, and how many times the products' time."""
    medians = {
        name: {key: statistics.median(each[key] for each in rounds) for key in ("seconds", "cpu_seconds")}
        | {"memory_gib": max(each["memory_gib"] for each in rounds)}
        for name, rounds in record["rounds"].items()
    }
    base = medians["products"]
    return {
        name: each
        | {"times": each["seconds"] / base["seconds"], "cpu_times": each["cpu_seconds"] / base["cpu_seconds"]}
        for name, each in medians.items()
    }


def table(record: dict[str, Any]) -> str:
    """For a page."""
    rows = [
        [
            name,
            f"{each['seconds']:.1f}",
            f"{each['cpu_seconds']:.1f}",
            f"{each['times']:.2f}",
            f"{each['cpu_times']:.2f}",
            f"{each['memory_gib']:.2f}",
        ]
        for name, each in judged(record).items()
    ]
    share = max(each["others"] for rounds in record["rounds"].values() for each in rounds)
    what = f"{record['queries']:,} queries, {record['items']:,} items, width {DIM} (others took up to {share:.0%})"
    return markdown([what, "s", "CPU s", "times the products", "likewise, of CPU", "peak GiB"], rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--force", action="store_true", help="judge what was measured beside others, too")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--turn", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.turn:
        print(json.dumps(turn(given.turn, given.queries, given.items)))
        return 0
    stored = json.loads(given.out.read_text()) if given.out.exists() else {}
    same = (stored.get("queries"), stored.get("items")) == (given.queries, given.items)
    fresh: dict[str, Any] = {
        "queries": given.queries,
        "items": given.items,
        "environment": Environment.here().model_dump(),
        "rounds": {name: [] for name in CONTENDERS},
    }
    record = measured(stored if same else fresh, given.rounds, given.out)
    print(table(record), end="")
    loaded = max(each["others"] for rounds in record["rounds"].values() for each in rounds)
    if loaded > QUIET:
        print(f"others took up to {loaded:.0%} of the machine: nothing is judged", file=sys.stderr)
        if not given.force:
            return 2
    found = judged(record)["recsys"]
    return int(found["times"] > MOST or found["memory_gib"] > MEMORY_GIB)


if __name__ == "__main__":
    sys.exit(main())
