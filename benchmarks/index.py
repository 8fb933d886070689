"""The index beside hnswlib, faiss and exact search, and searches through filters.

    python benchmarks/index.py --bundle runs/NAME                a bundle's towers: its items, its held-out queries
    python benchmarks/index.py --items 1000000                   1M x 64, in clumps, as towers make them
    ... [--name NAME] [--queries 1000] [--force]

In one run over the same vectors and queries: recall@100 against queries a second (all at once, on all cores) and
against the time of one query by itself, the time to build (for recsys, to tune too), and what the process holds in
memory beside the vectors. Each peer has a process and an environment of its own (peers/hnswlib, peers/faiss). Then the
times of single searches through random filters that allow 10, 3, 1 and 0.1 % of the items, and through ones that allow
the tenth that the query likes least; recall there is against exact search through the same filter.

The record of NAME is benchmarks/results/index/NAME.json; contenders that it has are not measured again. If others took
more of the machine than 5 % meanwhile, it says so; status 2, unless --force. Status 1: the promise is missed, or a
rival is faster at the recall of the chosen setting, or a filtered search is slower than its target.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from contest import HERE, QUIET, environment_of, others
from peers.nearest import resident_gib
from table import markdown

from recsys._scann import load_scann
from recsys.bundle import Bundle
from recsys.evaluation.record import Environment
from recsys.files import write_text
from recsys.retrieval import Allowed, ExactIndex, ScannConfig, ScannIndex, tune
from recsys.retrieval.curve import Setting

RESULTS = HERE / "results" / "index"
DIM, K, SINGLE, FILTERED = 64, 100, 200, 100
PEERS = {
    "hnswlib": ("hnswlib", (100, 150, 200, 300, 400, 600, 800, 1_200)),
    "faiss-ivf": ("faiss", tuple(product((4, 8, 16, 32, 64, 128, 256), (8, 16, 32)))),
    "faiss-flat": ("faiss", (0,)),
}
"""Contender -> its environment, and the settings of its search."""
WIDER = (2, 4, 8)
"""Times the chosen setting's leaves and candidates: the curve beyond what tuning measured."""
RECALLS = (0.8, 0.9, 0.98, 0.99, 1.0)
"""Beside the promise: where curves are told."""
SELECTIVITIES = (0.1, 0.03, 0.01, 0.001)
MOST_MS, MOST_MS_FAR = 5.0, 25.0
"""p99 of single searches through filters, and through those far from the query."""


def clumped(items: int, queries: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of a mixture with long tails, of which the queries are drawn too."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((2_000, DIM), np.float32)
    share = 1 / np.arange(1, len(centres) + 1)
    own = rng.choice(len(centres), items + queries, p=share / share.sum())
    found = centres[own] + 0.8 * rng.standard_normal((items + queries, DIM), np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found[:items], found[items:]


def of_bundle(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The vectors of a bundle, and the queries by which it was tuned."""
    bundle = Bundle.load(path)
    column = pq.read_table(bundle.folder / "queries.parquet")["vector"].combine_chunks()
    return np.array(bundle.index.vectors), column.flatten().to_numpy().reshape(len(column), -1)


def recall(ids: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(ids.tolist(), truth.tolist(), strict=True)]))


def ours(vectors: np.ndarray, queries: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Tuned by one half of the queries, measured by the other."""
    half = len(queries) // 2
    load_scann()  # the library is no part of what an index takes
    before, start = resident_gib(), perf_counter()
    index = tune(vectors, queries[:half], ScannConfig())
    built = {"library": "recsys (ScaNN)", "seconds": perf_counter() - start, "memory_gib": resident_gib() - before}
    assert index.curve is not None
    points = []
    settings = [
        index.setting,
        *dict.fromkeys(p.setting for p in index.curve.points if p.layout == index.curve.point.layout),
        *(wider(index, factor) for factor in WIDER),  # beyond what a promise needs
    ]
    for setting in settings:
        start = perf_counter()
        ids = index.candidates(queries[half:], K, setting).ids
        together = (len(queries) - half) / (perf_counter() - start)
        times = [timed(lambda q=q, s=setting: index.candidates(q[np.newaxis], K, s)) for q in queries[:SINGLE]]
        points.append(
            {
                "setting": setting.model_dump(),
                "recall": recall(ids, truth[half:]),
                "queries_per_second": together,
                "ms": float(np.median(times)),
                "ms_p99": float(np.percentile(times, 99)),
            }
        )
    return built | {"points": points, "filters": filters(index, queries[:FILTERED])}


def wider(index: ScannIndex, factor: int) -> Setting:
    """So many times the leaves and the candidates that are scored again."""
    chosen, leaves = index.setting, index.config.leaves or 1
    return Setting(
        leaves_to_search=min(leaves, factor * chosen.leaves_to_search), reorder=min(index.size, factor * chosen.reorder)
    )


def timed(call: Any) -> float:
    start = perf_counter()
    call()
    return 1_000 * (perf_counter() - start)


def filters(index: ScannIndex, queries: np.ndarray) -> list[dict[str, Any]]:
    """Times of single searches through filters, and what of the exact result they find."""
    rng, found = np.random.default_rng(1), []
    cases = {
        f"{share:.1%} at random": [Allowed(rng.random(index.size) < share)] * len(queries) for share in SELECTIVITIES
    }
    far = []
    for query in queries[:30]:
        scores = index.vectors @ query
        far.append(Allowed(scores <= np.quantile(scores, 0.1)))
    cases["the tenth liked least"] = far
    for name, allowed in cases.items():
        times, shares = [], []
        for query, each in zip(queries, allowed, strict=False):
            _ = each.ids  # a filter is remembered
            start = perf_counter()
            ids = index.search(query[np.newaxis], K, None, each).ids
            times.append(1_000 * (perf_counter() - start))
            exact = index.exact.search(query[np.newaxis], K, None, each).ids
            best = exact[0][exact[0] >= 0]  # fewer than K where the filter allows fewer
            shares.append(np.isin(best, ids[0]).mean())
        percentiles = {f"ms_p{p}": float(np.percentile(times, p)) for p in (50, 99)}
        found.append({"filter": name, "recall": float(np.mean(shares)), **percentiles})
    return found


def peer(name: str, folder: Path, truth: np.ndarray) -> dict[str, Any]:
    """A peer in its own process."""
    environment, settings = PEERS[name]
    command = [environment_of(environment), "-m", "peers.nearest", name, "vectors.npy", "queries.npy", str(K)]
    command[4:6] = [str(folder / file) for file in command[4:6]]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE)
    assert process.stdin is not None
    assert process.stdout is not None
    built, points = json.loads(process.stdout.readline()), []
    for setting in settings:
        ids = folder / "ids.npy"
        process.stdin.write(json.dumps({"setting": setting, "ids": str(ids), "single": SINGLE}) + "\n")
        process.stdin.flush()
        told = json.loads(process.stdout.readline())
        points.append({"setting": setting, "recall": recall(np.load(ids), truth), **told})
    process.stdin.close()
    process.wait()
    return built | {"points": points}


def exact(vectors: np.ndarray, queries: np.ndarray) -> dict[str, Any]:
    index = ExactIndex(vectors)
    start = perf_counter()
    index.search(queries, K)
    together = len(queries) / (perf_counter() - start)
    times = [timed(lambda q=q: index.search(q[np.newaxis], K)) for q in queries[:SINGLE]]
    point = {"setting": None, "recall": 1.0, "queries_per_second": together, "ms": float(np.median(times))}
    points = [point | {"ms_p99": float(np.percentile(times, 99))}]
    return {"library": "recsys (exact)", "seconds": 0.0, "memory_gib": 0.0, "points": points}


def measured(record: dict[str, Any], vectors: np.ndarray, queries: np.ndarray, path: Path) -> dict[str, Any]:
    """The record with every contender."""
    truth = ExactIndex(vectors).search(queries, K).ids
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "vectors.npy", vectors)
        np.save(folder / "queries.npy", queries)
        contenders = {
            "recsys": lambda: ours(vectors, queries, truth),
            "exact": lambda: exact(vectors, queries),
            **{each: lambda each=each: peer(each, folder, truth) for each in PEERS},
        }
        for each, run in contenders.items():
            if each not in record["contenders"]:
                with others() as load:
                    found = run()
                record["contenders"][each] = found | {"others": load.share}
                write_text(path, json.dumps(record, indent=1) + "\n")
                print(f"{each}: others took {load.share:.0%}", file=sys.stderr)
    return record


def rivals(record: dict[str, Any]) -> list[str]:
    """Who is faster for single queries at the recall of the chosen setting or above."""
    chosen = record["contenders"]["recsys"]["points"][0]
    return [
        f"{each['library']} {point['setting']}: {point['ms']:.3f} ms at {point['recall']:.4f}"
        for name, each in record["contenders"].items()
        for point in each["points"]
        if name != "recsys" and point["recall"] >= chosen["recall"] and point["ms"] < chosen["ms"]
    ]


def tables(record: dict[str, Any]) -> str:
    """For a page: of each contender its fastest setting at the promise, and the filters."""
    rows = []
    for name, each in record["contenders"].items():
        chosen = each["points"][:1] if name == "recsys" else each["points"]
        kept = [point for point in chosen if point["recall"] >= record["promise"]]
        best = min(kept, key=lambda point: point["ms"]) if kept else max(chosen, key=lambda point: point["recall"])
        told = (
            f"{best['recall']:.4f}",
            f"{best['ms']:.3f}",
            f"{best['ms_p99']:.3f}",
            f"{best['queries_per_second']:,.0f}",
        )
        rows.append([each["library"], *told, f"{each['seconds']:.1f}", f"{each['memory_gib']:.2f}"])
    columns = [f"{record['items']:,} x {record['dim']}", "recall@100", "ms", "p99", "queries/s", "build s", "GiB"]
    levels = sorted([*RECALLS, record["promise"]])
    curves = [
        [each["library"], *(_fastest(each["points"], level) for level in levels)]
        for each in record["contenders"].values()
    ]
    headings = ["ms, queries/s at recall@100 of", *(f"{level:g}" for level in levels)]
    found = [
        [each["filter"], f"{each['recall']:.4f}", f"{each['ms_p50']:.2f}", f"{each['ms_p99']:.2f}"]
        for each in record["contenders"]["recsys"]["filters"]
    ]
    return "\n".join(
        (markdown(columns, rows), markdown(headings, curves), markdown(["allowed", "recall@100", "ms", "p99"], found))
    )


def _fastest(points: list[dict[str, Any]], level: float) -> str:
    """Of the settings that find so much, the shortest time of a single query, and the most queries a second."""
    kept = [point for point in points if point["recall"] >= level]
    if not kept:
        return ""
    return f"{min(p['ms'] for p in kept):.3f}, {max(p['queries_per_second'] for p in kept):,.0f}"


def pages() -> str:
    """What stands in docs/results.md."""
    parts = [f"**{path.stem}**\n\n{tables(json.loads(path.read_text()))}" for path in sorted(RESULTS.glob("*.json"))]
    return "\n".join(parts) or "Not run yet: `python benchmarks/index.py`.\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--name")
    parser.add_argument("--force", action="store_true", help="judge what was measured beside others, too")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    vectors, queries = of_bundle(given.bundle) if given.bundle else clumped(given.items, given.queries)
    name = given.name or (given.bundle.resolve().name if given.bundle else f"{given.items}x{DIM}")
    path = given.out / f"{name}.json"
    shape = {"items": len(vectors), "dim": vectors.shape[1], "queries": len(queries), "promise": 0.95}
    stored = json.loads(path.read_text()) if path.exists() else {}
    fresh = shape | {"environment": Environment.here().model_dump(), "contenders": {}}
    same = all(stored.get(key) == value for key, value in shape.items())
    record = measured(stored if same else fresh, vectors, queries, path)
    print(tables(record), end="")
    loaded = max(each["others"] for each in record["contenders"].values())
    if loaded > QUIET and not given.force:
        print(f"others took up to {loaded:.0%} of the machine: nothing is judged", file=sys.stderr)
        return 2
    faster = rivals(record)
    for each in faster:
        print(f"faster at the same recall: {each}", file=sys.stderr)
    mine = record["contenders"]["recsys"]
    limits = [MOST_MS] * len(SELECTIVITIES) + [MOST_MS_FAR]
    slow = [each for each, most in zip(mine["filters"], limits, strict=True) if each["ms_p99"] > most]
    return int(bool(faster or slow) or mine["points"][0]["recall"] < record["promise"])


if __name__ == "__main__":
    sys.exit(main())
