"""Unified Embedding on MovieLens-1M: multiplexed against per-feature hashed tables at equal bytes and equal lookups.

    RECSYS_DATA=... python benchmarks/unified_embedding.py           trains what has no record yet, most telling first
    python benchmarks/unified_embedding.py --write                   the tables in docs/methods/unified_embedding.md

Every run is configs/movielens-1m-unified.yaml with another table, and leaves its run record in
benchmarks/results/unified-embedding/. A killed study goes on where it stopped. `--jobs 2` trains two at a time, a core
each; `--first N` stops after the first N runs of the plan.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

from table import markdown, mean_of, write_marked

from recsys.config.load import load
from recsys.evaluation.record import RunRecord
from recsys.experiment_config import ExperimentConfig

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "movielens-1m-unified.yaml"
RESULTS = Path(__file__).parent / "results" / "unified-embedding"
PAGE = ROOT / "docs" / "methods" / "unified_embedding.md"
STUDY = "<!-- figures: python benchmarks/unified_embedding.py --write -->\n", "<!-- /figures -->\n"
DRIFT = "<!-- drift: python benchmarks/unified_embedding.py --write -->\n", "<!-- /drift -->\n"

Method = Literal["multiplexed", "hashed", "full"]
WIDTH = 30
"""Of a feature's vector, however many lookups it is made of."""
BUDGETS = {"158 kB": 1_318, "791 kB": 6_588, "1.58 MB": 13_177}
"""Rows of width 30, 120 bytes each. 13,177 is the size of all six vocabularies."""
LOOKUPS, SEEDS = (1, 2, 3), (0, 1, 2)
CLOSE = (("791 kB", 3), ("1.58 MB", 3))
"""Where the methods come so close that three seeds say little: these have three more."""
PAPER = {
    ("158 kB", "hashed"): 0.7707,
    ("158 kB", "multiplexed"): 0.8200,
    ("791 kB", "hashed"): 0.8300,
    ("791 kB", "multiplexed"): 0.8693,
    ("1.58 MB", "hashed"): 0.8537,
    ("1.58 MB", "multiplexed"): 0.8774,
    ("all ids", "full"): 0.8872,
}
"""AUC in Coleman et al. 2023, with one lookup."""


@dataclass(frozen=True)
class Run:
    """One training of the study."""

    method: Method
    budget: str
    lookups: int
    seed: int

    @property
    def name(self) -> str:
        """Of the run directory and the record."""
        return f"{self.method}-{self.budget.replace(' ', '')}-{self.lookups}-seed{self.seed}"

    @property
    def path(self) -> Path:
        """The record."""
        return RESULTS / f"{self.name}.json"

    @property
    def overrides(self) -> list[str]:
        """Of the YAML. n lookups read rows of a width of 30 / n, of which the same bytes hold n times as many."""
        table = f"{{method: {self.method}, dim: {WIDTH // self.lookups}"
        table += "}" if self.method == "full" else f", rows: {BUDGETS[self.budget] * self.lookups}}}"
        features = load(CONFIG, ExperimentConfig).config.embeddings.features
        return [
            f"name={self.name}",
            f"seed={self.seed}",
            f"embeddings.tables.unified={table}",
            *(f"embeddings.features.{feature}.chunks={self.lookups}" for feature in features),
            "training.tensorboard=false",
        ]

    def train(self, runs: Path) -> RunRecord:
        """Through the whole experiment, from the YAML to the record."""
        from recsys._compat import keras
        from recsys.experiment import Experiment

        keras.backend.clear_session()
        experiment = Experiment.from_yaml(CONFIG, self.overrides, runs)
        experiment.train()
        record = experiment.evaluate()
        record.write(self.path)
        return record


def plan() -> list[Run]:
    """The smallest budget with one lookup and the collisionless table first, all seeds; then the rest, seed by seed."""
    methods: tuple[Method, ...] = ("multiplexed", "hashed")
    smallest = [Run(method, "158 kB", 1, seed) for seed in SEEDS for method in methods]
    full = [Run("full", "all ids", 1, seed) for seed in SEEDS]
    rest = [Run(m, budget, n, seed) for seed in SEEDS for budget in BUDGETS for n in LOOKUPS for m in methods]
    close = [Run(m, *cell, seed + len(SEEDS)) for seed in SEEDS for cell in CLOSE for m in methods]
    return list(dict.fromkeys([*smallest, *full, *rest, *close]))


def study(runs: Path, jobs: int, first: int | None) -> None:
    """Trains what has no record, `jobs` at a time."""
    todo = [run for run in plan()[:first] if not run.path.exists()]
    threads = max(1, len(os.sched_getaffinity(0)) // jobs)
    context = get_context("spawn")  # TensorFlow does not survive a fork
    with ProcessPoolExecutor(jobs, context, _limit_threads, (threads,)) as pool:
        records = pool.map(Run.train, todo, [runs] * len(todo))
        for run, record in zip(todo, records, strict=True):
            found = record.metrics["model"]
            print(f"{run.name:32} auc {found['auc']:.4f} logloss {found['logloss']:.4f}", flush=True)


def _limit_threads(threads: int) -> None:
    from recsys._compat import tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def sections() -> dict[tuple[str, str], str]:
    """What stands between which marks of the docs page, from the records there are: this study, and that of drift."""
    from drift import section

    return {STUDY: f"{_quality()}\n{_gains()}", DRIFT: section()}


def _quality() -> str:
    """AUC and logloss of every budget, number of lookups and method."""
    rows = []
    for method, budget, lookups in dict.fromkeys(
        (run.method, run.budget, run.lookups) for run in sorted(plan(), key=_size)
    ):
        records = _records(method, budget, lookups)
        if not records:
            continue
        paper = PAPER.get((budget, method)) if lookups == 1 else None
        rows.append(
            [
                budget,
                str(lookups),
                f"`{method}`",
                f"{records[0].counts['table_bytes']:,}",
                mean_of([record.metrics["model"]["auc"] for record in records]),
                "" if paper is None else f"{paper:.4f}",
                mean_of([record.metrics["model"]["logloss"] for record in records]),
                ", ".join(str(record.seed) for record in records),
            ]
        )
    return markdown(["budget", "lookups", "method", "table bytes", "AUC", "paper", "logloss", "seeds"], rows)


def _gains() -> str:
    """What multiplexing adds to the AUC at equal bytes and equal lookups, seed by seed."""
    rows = []
    for budget in reversed(BUDGETS):
        paper = PAPER[budget, "multiplexed"] - PAPER[budget, "hashed"]
        rows.append([budget, f"+{paper:.4f}", *(mean_of(_differences(budget, lookups)) for lookups in LOOKUPS)])
    return markdown(["AUC gained", "paper, 1 lookup", *(f"{n} lookup{'s' if n > 1 else ''}" for n in LOOKUPS)], rows)


def _differences(budget: str, lookups: int) -> list[float]:
    hashed = {record.seed: record for record in _records("hashed", budget, lookups)}
    return [
        record.metrics["model"]["auc"] - hashed[record.seed].metrics["model"]["auc"]
        for record in _records("multiplexed", budget, lookups)
        if record.seed in hashed
    ]


def _records(method: Method, budget: str, lookups: int) -> list[RunRecord]:
    runs = (run for run in plan() if (run.method, run.budget, run.lookups) == (method, budget, lookups))
    return sorted((RunRecord.read(run.path) for run in runs if run.path.exists()), key=lambda record: record.seed)


def _size(run: Run) -> tuple[float, int]:
    return -BUDGETS.get(run.budget, float("inf")), run.lookups


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the tables into the docs page, and train nothing")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where run directories are made")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--first", type=int, help="only so many of the plan's runs")
    options = parser.parse_args()
    if options.write:
        for marks, text in sections().items():
            write_marked(PAGE, text, marks)
    else:
        study(options.runs, options.jobs, options.first)


if __name__ == "__main__":
    main()
