"""Which smaller tables serve as well? Every method of `recsys search` at four sizes, on three data sets.

    RECSYS_DATA=... python benchmarks/dimension_search.py [--only frappe]     searches what has no record yet
    python benchmarks/dimension_search.py --floors                            the smallest bytes of what needs no search
    python benchmarks/dimension_search.py --once                              one training of each; how long all take

A search is that of the command, `DimensionSearch`, of one method; it leaves its record in
benchmarks/results/dimension-search/DATA/METHOD.json, and what the bundles of the full model and of the smallest plans
take in memory beside them. A killed study goes on where it stopped, inside a search too, as long as its run directories
are there; without them it begins with the methods that have no record. Run it on one thread a data set:
OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1. `docs/results.md` is made of the records by benchmarks/results_page.py.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from loaded_memory import footprint
from table import markdown

from recsys.dimension_search import DimensionSearch, Progress
from recsys.dimension_search.workshop import Workshop
from recsys.embeddings.plan import EmbeddingPlan, Origin
from recsys.errors import ConfigError, SearchError
from recsys.experiment import Experiment
from recsys.files import write_text
from recsys.search import controls
from recsys.search.fields import Field
from recsys.search.frontier import FULL, Promise, SearchRecord

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "dimension-search"
SIZES = (0.5, 0.25, 0.1, 0.05)
RELATIVE_LOSS = 0.001
"""Of the monitored metric: the goal."""


@dataclass(frozen=True)
class Study:
    """One data set."""

    name: str
    config: str
    seeds: int
    expected: float
    """About what the full model reaches, of which the promise is a share."""
    overrides: tuple[str, ...]
    generations: int
    pruning_unit: int
    """In steps, so that a training reaches most of the sparsity."""

    @property
    def folder(self) -> Path:
        """Of the records."""
        return RESULTS / self.name

    @property
    def memory(self) -> Path:
        """Of the bundles."""
        return RESULTS / f"{self.name}-memory.json"

    @property
    def promise(self) -> Promise:
        """A tenth of a percent."""
        return Promise(max_loss=round(RELATIVE_LOSS * self.expected, 5))

    @property
    def methods(self) -> dict[str, str]:
        """In the order in which they are tried; of each, `search.methods`."""
        evolution = f"evolution: {{generations: {self.generations}}}"
        settings = {
            "optembed": f"alpha: 0.03, threshold_learning_rate: 0.03, {evolution}",
            "dnis": "selection: {epochs: 5}",
            "gradual_pruning": f"unit: {self.pruning_unit}",
        }
        kinds = ("uniform", "int8", "magnitude", "dnis", "optembed", "gradual_pruning", "frequency_cut", "mixed_dim")
        own = {kind: f", {settings[kind]}" if kind in settings else "" for kind in (*kinds, "multiplexed")}
        return {kind: f"{{kind: {kind}{more}}}" for kind, more in own.items()}

    def experiment(self, runs: Path, methods: Sequence[str]) -> Experiment:
        """From the YAML, for a search by these methods."""
        tried = ", ".join(self.methods[method] for method in methods)
        search = [f"search.sizes={list(SIZES)}", f"search.seeds={self.seeds}", f"search.methods=[{tried}]"]
        own = [f"name={self.name}", "training.tensorboard=false", *self.overrides, *search]
        return Experiment.from_yaml(ROOT / "configs" / self.config, own, runs)

    def records(self) -> dict[str, SearchRecord]:
        """Those that there are, by method."""
        paths = {method: self.folder / f"{method}.json" for method in self.methods}
        return {
            method: SearchRecord.model_validate_json(path.read_bytes())
            for method, path in paths.items()
            if path.exists()
        }


STUDIES = (
    Study(
        "movielens-1m",
        "movielens-1m-unified.yaml",
        seeds=3,
        expected=0.895,
        overrides=(
            "embeddings.tables.unified={method: full, dim: 30}",
            "embeddings.optimizer.learning_rate=0.002",
            "training.dense_optimizer.learning_rate=0.002",
            "training.batch_size=2048",
            "training.epochs=10",
            "training.early_stopping.patience=1",
        ),
        generations=6,
        pruning_unit=10,
    ),
    Study(
        "frappe",
        "frappe-autoint.yaml",
        seeds=3,
        expected=0.97,
        overrides=(
            "embeddings.tables.field={dim: 16}",
            "model={kind: ranker, interaction: {kind: cross, layers: 1}, mlp: {hidden: [64]}}",
            "training.batch_size=2048",
            "training.epochs=15",
            "training.early_stopping.patience=1",
        ),
        generations=6,
        pruning_unit=5,
    ),
    Study(
        "amazon-beauty",
        "amazon-beauty.yaml",
        seeds=1,
        expected=0.03,
        overrides=("training.epochs=12", "training.early_stopping.patience=1", "retrieval.index={kind: exact}"),
        generations=3,
        pruning_unit=10,
    ),
)


def study(which: Study, runs: Path) -> None:
    """Searches and measures what has no record."""
    for method in which.methods:
        path = which.folder / f"{method}.json"
        if path.exists():
            continue
        search = DimensionSearch(which.experiment(runs, [method]), which.promise, _tell)
        try:
            search.run()
        except SearchError as error:
            print(error, flush=True)
        write_text(path, (search.folder / "search.json").read_text(encoding="utf-8"))
    if not which.memory.exists():
        found = _runs(which, runs / f"{which.name}-search" / "runs")
        missing = [name for name, run in found.items() if run is None]
        if missing:
            print(f"memory is not measured: these were trained elsewhere: {', '.join(missing)}", flush=True)
            return
        bundles = {name: Experiment.from_yaml(run).export() for name, run in found.items() if run is not None}
        taken = {name: vars(footprint(bundle)) for name, bundle in bundles.items()}
        write_text(which.memory, json.dumps(taken, indent=2) + "\n")


def _runs(which: Study, folder: Path) -> dict[str, Path | None]:
    """A run of the full model, of the smallest plan that keeps the promise, and of the smallest plan, if it is here."""
    records = which.records().values()
    plans = [trial for record in records for trial in record.trials if trial.plan]
    kept = [trial for record in records for trial in record.trials if trial.name == record.chosen]
    smallest = [min(each, key=lambda trial: trial.bytes).name for each in (kept, plans) if each]
    return {name: next(folder.glob(f"{name}-seed*"), None) for name in (FULL, *smallest)}


def _tell(progress: Progress) -> None:
    left = "" if progress.seconds_left is None else f", {progress.seconds_left / 60:.0f} min left"
    print(f"[{progress.done}/{progress.total}{left}] {progress.doing}", flush=True)


def once(which: Study, runs: Path) -> None:
    """One training of the full model, and what all of them would take: each costs about the same, whatever its plan."""
    experiment = replace(which, name=f"{which.name}-once").experiment(runs, list(which.methods))
    experiment.prepare()
    start = time.process_time()
    experiment.train()
    trained = time.process_time() - start
    metrics = experiment.evaluate().metrics["model"]
    spent = time.process_time() - start
    trainings = (1 + len(experiment.config.search.methods) * len(experiment.config.search.sizes)) * which.seeds
    shown = {name: round(metrics[name], 4) for name in (experiment.monitor, "logloss", "recall@10") if name in metrics}
    hours = trainings * spent / 3600
    print(
        f"{which.name}: {trained:.0f} + {spent - trained:.0f} s of CPU, {shown}; {trainings} trainings: {hours:.1f} h"
    )


def floors(which: Study, runs: Path) -> list[list[str]]:
    """The smallest bytes of each control, and their share of the full tables'."""
    fields = Workshop(which.experiment(runs, list(which.methods)), runs / "none").fields
    narrow = [replace(field, served="int8") for field in fields]
    full = sum(4 * field.ids * field.dim for field in fields)
    origin = Origin(method="floor")
    found: dict[str, int] = {
        "uniform": _smallest(controls.uniform, fields, origin),
        "frequency_cut": _smallest(controls.frequency_cut, fields, origin),
        "mixed_dim": _smallest(controls.mixed_dim, fields, origin),
        "int8": _smallest(controls.uniform, narrow, origin),
        "magnitude, gradual_pruning, dnis": _smallest(
            lambda own, budget, _: controls.numbers_within(own, budget), fields, origin
        ),
    }
    return [[which.name, f"{full:,}", name, f"{size:,}", f"{size / full:.2%}"] for name, size in found.items()]


def _smallest(
    control: Callable[[list[Field], int, Origin], EmbeddingPlan | int], fields: list[Field], origin: Origin
) -> int:
    """From what a control says of a budget of a byte."""
    try:
        control(fields, 1, origin)
    except ConfigError as error:
        (number,) = re.findall(r"at least ([\d,]+)", str(error))
        return int(number.replace(",", ""))
    raise AssertionError("a control that fits into a byte")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[each.name for each in STUDIES], help="one data set")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where run directories are made")
    parser.add_argument("--floors", action="store_true", help="print what needs no training")
    parser.add_argument("--once", action="store_true", help="train each full model once")
    options = parser.parse_args()
    chosen = [each for each in STUDIES if options.only in (None, each.name)]
    if options.floors:
        rows = [row for each in chosen for row in floors(each, options.runs)]
        print(markdown(["data set", "full bytes", "method", "smallest", "of full"], rows))
        return
    for each in chosen:
        (once if options.once else study)(each, options.runs)


if __name__ == "__main__":
    main()
