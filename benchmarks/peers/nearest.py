"""One index of another library, built and asked in a process of its own: no recsys here.

`python -m peers.nearest LIBRARY VECTORS.npy QUERIES.npy K` builds it, prints {"library", "seconds", "memory_gib"}, and
answers lines on stdin, {"setting", "ids", "single"} each, with times: `ids` is where [Q, K] ids are written that all
queries at once are answered with, `single` how many queries are asked one by one.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


class Hnswlib:
    """Hierarchical navigable small worlds (Malkov and Yashunin), inner product."""

    def __init__(self, vectors: np.ndarray) -> None:
        import hnswlib

        self.name = f"hnswlib {getattr(hnswlib, '__version__', '')}".strip()
        self.index = hnswlib.Index(space="ip", dim=vectors.shape[1])
        self.index.init_index(max_elements=len(vectors), M=32, ef_construction=200, random_seed=0)
        self.index.add_items(vectors, np.arange(len(vectors)))

    def search(self, queries: np.ndarray, k: int, setting: int) -> np.ndarray:
        """[Q, k] ids; `setting` is ef."""
        self.index.set_ef(max(setting, k))
        return self.index.knn_query(queries, k=k, num_threads=1 if len(queries) == 1 else -1)[0]


class Faiss:
    """faiss: `Flat` is exact; else an inverted file with 4-bit product codes, the best of which are scored again."""

    def __init__(self, vectors: np.ndarray, flat: bool) -> None:
        import faiss

        self.name = f"faiss {faiss.__version__} {'Flat' if flat else 'IVF, PQ fast scan, refined'}"
        self.faiss, self.flat, dim = faiss, flat, vectors.shape[1]
        if flat:
            self.index = faiss.IndexFlatIP(dim)
        else:
            leaves = max(1, int(len(vectors) ** 0.5))
            made = faiss.index_factory(dim, f"IVF{leaves},PQ{dim // 2}x4fs,RFlat", faiss.METRIC_INNER_PRODUCT)
            made.train(vectors)
            self.index, self.inside = made, faiss.downcast_index(made.base_index)
        self.index.add(vectors)

    def search(self, queries: np.ndarray, k: int, setting: Any) -> np.ndarray:
        """[Q, k] ids; `setting` is the lists that are searched, and how many times k candidates are scored again."""
        self.faiss.omp_set_num_threads(1 if len(queries) == 1 else os.cpu_count() or 1)
        if not self.flat:
            self.inside.nprobe, self.index.k_factor = setting
        return self.index.search(queries, k)[1]


def build(library: str, vectors: np.ndarray) -> Any:
    """The index of a library by its name."""
    if library == "hnswlib":
        return Hnswlib(vectors)
    return Faiss(vectors, flat=library == "faiss-flat")


def resident_gib() -> float:
    """What this process holds in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**30


def main(library: str, vectors_path: str, queries_path: str, k: int) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes elsewhere
    vectors, queries = np.load(vectors_path), np.load(queries_path)
    importlib.import_module(library.partition("-")[0])  # the library is no part of what an index takes
    before, start = resident_gib(), time.perf_counter()
    index = build(library, vectors)
    told = {"library": index.name, "seconds": time.perf_counter() - start, "memory_gib": resident_gib() - before}
    print(json.dumps(told), file=answers)
    for line in sys.stdin:
        asked = json.loads(line)
        index.search(queries[:1], k, asked["setting"])
        start = time.perf_counter()
        np.save(asked["ids"], index.search(queries, k, asked["setting"]))
        together = time.perf_counter() - start
        times = []
        for query in queries[: asked["single"]]:
            start = time.perf_counter()
            index.search(query[np.newaxis], k, asked["setting"])
            times.append(1_000 * (time.perf_counter() - start))
        told = {"queries_per_second": len(queries) / together, "ms": float(np.median(times))}
        print(json.dumps(told | {"ms_p99": float(np.percentile(times, 99))}), file=answers)


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
