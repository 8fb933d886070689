"""Self-supervised regularisation of the item tower on public logs, by how often training met an item.

    RECSYS_DATA=... python benchmarks/ssl_study.py --tune     chooses weights and temperatures on validation
    RECSYS_DATA=... python benchmarks/ssl_study.py            trains what has no record yet, seed by seed
    python benchmarks/ssl_study.py --list                     says what there is, and what is missing

Variants: no regulariser, spread-out only, random masks (RFM), correlated ones (CFM), and CFM with the training
examples' items. Each run is a config of configs/ with the item features that the log has, and leaves its record in
benchmarks/results/ssl/DATA/VARIANT-seedN.json: metrics, slices by train frequency, and the paired differences from the
run without regulariser. A killed study goes on where it stopped. `docs/results.md` is made of the records by
benchmarks/results_page.py.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from table import markdown, mean_of

from recsys.evaluation.record import RunRecord
from recsys.files import write_text

if TYPE_CHECKING:
    from recsys.experiment import Experiment

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "ssl"

SEEDS = (0, 1, 2)
TRIED = ((0.03, 0.1), (0.1, 0.1), (0.3, 0.1), (0.1, 0.5))
"""Weight and temperature."""
TRAINING = ("training.tensorboard=false", "training.early_stopping={patience: 2, every_epochs: 3}")
TRIED_FOR = "training.epochs=12"
"""The length of trainings that choose weights and temperatures."""
METRICS = ("ndcg@10", "recall@10")
SLICES = ("", "head", "torso", "tail", "cold")
"""All users, then by how often training met the item that they had next."""
NONE = "none"
VARIANTS = {
    NONE: "",
    "spread": "augmentation: none",
    "rfm": "augmentation: random",
    "cfm": "augmentation: correlated, ids: normalized",
    "cfm-training": "augmentation: correlated, ids: normalized, items: training",
}
"""`model.ssl`, without weight and temperature. The logs have no three features beside the id, so it is one of them."""
SHOWN = {
    NONE: "no regulariser",
    "spread": "spread-out only",
    "rfm": "RFM",
    "cfm": "CFM",
    "cfm-training": "CFM, training items",
}
AS_TUNED = {"cfm-training": "cfm"}
"""Variants that differ from another in what is under test alone."""


@dataclass(frozen=True)
class Data:
    """A log: its config, and the item features besides those."""

    name: str
    more: tuple[str, ...]
    tuned_on: str
    """The log on whose validation weights and temperatures are chosen."""


DATA = {
    each.name: each
    for each in (
        Data(
            "amazon-beauty",
            (
                "schema.features.category={kind: categorical, role: item}",
                "embeddings.features.category={table: attribute}",
            ),
            "amazon-beauty",
        ),
        Data(
            "movielens-1m",
            (
                "schema.features.genres={kind: multi_valued, role: item}",
                "schema.features.year={kind: categorical, role: item}",
                "embeddings.tables.attribute={dim: 64}",
                "embeddings.features.genres={table: attribute}",
                "embeddings.features.year={table: attribute}",
                "model.query={hidden: [128], output_dim: 64}",
                "model.item={hidden: [128], output_dim: 64}",
                # a third of the shipped epochs, with rates that are high first and fall: else the study takes hours
                "embeddings.optimizer.learning_rate=0.004",
                "training.epochs=12",
                "training.schedule={decay: cosine}",
                "training.early_stopping={patience: 4, every_epochs: 3}",
            ),
            "amazon-beauty",  # not its own: that takes hours
        ),
    )
}


@dataclass(frozen=True)
class Run:
    """One training of the study."""

    data: Data
    variant: str
    seed: int
    results: Path = RESULTS
    tried: tuple[float, float] | None = None
    """Weight and temperature, for tuning."""

    @property
    def name(self) -> str:
        """Of the run directory."""
        tuning = "" if self.tried is None else "-weight{:g}-temperature{:g}".format(*self.tried)
        return f"ssl-{self.data.name}-{self.variant}-seed{self.seed}{tuning}"

    @property
    def path(self) -> Path:
        """The record."""
        return self.results / self.data.name / f"{self.variant}-seed{self.seed}.json"

    @property
    def chosen(self) -> tuple[float, float]:
        """The weight and the temperature that validate best."""
        if self.tried is not None:
            return self.tried
        variant = AS_TUNED.get(self.variant, self.variant)
        found = _tuning(self.results).get(self.data.tuned_on, {}).get(variant, {})
        missing = [pair for pair in map(_key, TRIED) if pair not in found]
        if missing:
            raise SystemExit(f"{variant} is not tuned on {self.data.tuned_on}: python benchmarks/ssl_study.py --tune")
        weight, temperature = max(map(_key, TRIED), key=lambda pair: found[pair]).split()
        return float(weight), float(temperature)

    @property
    def overrides(self) -> list[str]:
        """Of the YAML."""
        own = [f"name={self.name}", f"seed={self.seed}", *TRAINING, *self.data.more]
        if self.variant != NONE:
            weight, temperature = self.chosen
            own.append(f"model.ssl={{{VARIANTS[self.variant]}, weight: {weight}, temperature: {temperature}}}")
        return own

    def experiment(self, runs: Path, more: Sequence[str] = ()) -> Experiment:
        """Of the config with the overrides."""
        from recsys._compat import keras
        from recsys.experiment import Experiment

        keras.backend.clear_session()
        return Experiment.from_yaml(ROOT / "configs" / f"{self.data.name}.yaml", [*self.overrides, *more], runs)

    def train(self, runs: Path, more: Sequence[str] = ()) -> RunRecord:
        """From the YAML to the record."""
        experiment = self.experiment(runs, more)
        experiment.train()
        record = experiment.evaluate()
        record = record.model_copy(update={"differences": tuple(self._differences(runs)), "slices": _own(record)})
        record.write(self.path)
        return record

    def validated(self, runs: Path, more: Sequence[str] = ()) -> float:
        """The best validation of a training."""
        experiment = self.experiment(runs, [TRIED_FOR, *more])
        history = experiment.train().history
        key = f"val_{experiment.monitor}"
        return max(entry[key] for entry in history if key in entry)

    def _differences(self, runs: Path) -> list[Any]:
        """From the run without regulariser, user by user, in all and in each slice, if its directory is there."""
        from recsys.evaluation.comparison import compare
        from recsys.evaluation.evidence import MODEL, WHOLE, Measured, evidence_path

        found = {run.variant: evidence_path(runs / run.name, MODEL) for run in (replace(self, variant=NONE), self)}
        if len(found) < 2 or not all(path.exists() for path in found.values()):
            return []
        measured = {variant: Measured.read(path) for variant, path in found.items()}
        keys = [key for key in measured[NONE].slices if key[0] == "item_frequency"]
        sliced = [key for key in keys if all(key in each.slices for each in measured.values())]
        return compare(measured, METRICS, slices=[WHOLE, *sliced])


def _key(pair: tuple[float, float]) -> str:
    return "{:g} {:g}".format(*pair)


def _own(record: RunRecord) -> tuple[Any, ...]:
    """The model's slices by train frequency alone."""
    kept = (each for each in record.slices if each.by == "item_frequency")
    return tuple(each.model_copy(update={"metrics": {"model": each.metrics["model"]}}) for each in kept)


def _tuning(results: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Best validation by log, variant, and weight and temperature."""
    path = results / "tuning.json"
    return json.loads(path.read_text()) if path.exists() else {}


def tune(runs: Path, results: Path, data: Sequence[str], more: Sequence[str]) -> None:
    """Each variant with every pair of weight and temperature, on the first seed."""
    for name, variant, pair in product(data, VARIANTS, TRIED):
        found, key = _tuning(results), _key(pair)
        own = DATA[name].tuned_on == name
        if not own or variant == NONE or variant in AS_TUNED or key in found.get(name, {}).get(variant, {}):
            continue
        value = Run(DATA[name], variant, SEEDS[0], results, pair).validated(runs, more)
        found.setdefault(name, {}).setdefault(variant, {})[key] = value
        write_text(results / "tuning.json", json.dumps(found, indent=1) + "\n")
        print(f"{name} {variant} weight, temperature {key}: {value:.4f}", flush=True)


def plan(results: Path = RESULTS, data: Sequence[str] = tuple(DATA), seeds: Sequence[int] = SEEDS) -> Iterator[Run]:
    """Seed by seed, so that what there is can be compared."""
    for seed, name, variant in product(seeds, data, VARIANTS):
        yield Run(DATA[name], variant, seed, results)


def sections(results: Path = RESULTS) -> dict[str, str]:
    """What docs/results.md shows."""
    parts = [
        f"{_title(data)}\n\n{table(name, results)}" for name, data in DATA.items() if _records(name, NONE, results)
    ]
    return {"ssl": "\n".join(parts) or "Not run yet: `python benchmarks/ssl_study.py`.\n"}


def _title(data: Data) -> str:
    whose = "its own validation" if data.tuned_on == data.name else f"the validation of `{data.tuned_on}`, not its own"
    return f"`{data.name}`, weights and temperatures chosen on {whose}"


def table(name: str, results: Path = RESULTS) -> str:
    """ndcg@10 of each variant in each slice, and the difference from no regulariser below it."""
    rows = []
    for variant, shown in SHOWN.items():
        records = _records(name, variant, results)
        if not records:
            continue
        seeds = ", ".join(str(record.seed) for record in records)
        rows.append([shown, seeds, *(mean_of([_value(record, part) for record in records]) for part in SLICES)])
        if variant != NONE:
            rows.append(["difference", "", *(_difference(records, part) for part in SLICES)])
    return markdown(["ndcg@10", "seeds", *(part or "all" for part in SLICES)], rows)


def _records(name: str, variant: str, results: Path) -> list[RunRecord]:
    paths = (Run(DATA[name], variant, seed, results).path for seed in SEEDS)
    return [RunRecord.read(path) for path in paths if path.exists()]


def _value(record: RunRecord, part: str) -> float | None:
    if not part:
        return record.metrics["model"][METRICS[0]]
    found = [each.metrics["model"] for each in record.slices if each.name == part]
    return found[0][METRICS[0]].value if found and METRICS[0] in found[0] else None


def _difference(records: Sequence[RunRecord], part: str) -> str:
    """Mean over the seeds of the paired differences and of their intervals' ends, and how many seeds show it."""
    found = [
        each for record in records for each in record.differences if each.metric == METRICS[0] and each.slice == part
    ]
    if not found:
        return ""
    value, low, high = (float(np.mean([getattr(each, key) for each in found])) for key in ("difference", "low", "high"))
    real = sum(each.real for each in found)
    return f"{value:+.4f} ({low:+.4f}, {high:+.4f}), real in {real} of {len(found)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", action="store_true", help="choose weights and temperatures, and train nothing else")
    parser.add_argument("--list", action="store_true", help="what has a record")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where run directories are made")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where records are written")
    parser.add_argument("--seeds", nargs="+", type=int, choices=SEEDS, default=SEEDS)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--data", nargs="+", choices=list(DATA), default=list(DATA))
    parser.add_argument("--set", action="append", default=[], dest="more", help="overrides, to try the study out")
    options = parser.parse_args()
    planned = plan(options.results, options.data, options.seeds)
    runs = [run for run in planned if run.variant in options.variants]
    if options.list:
        print("\n".join(f"{'there' if run.path.exists() else 'missing':8} {run.path.name}" for run in runs))
    elif options.tune:
        others = [name for name in options.data if DATA[name].tuned_on != name]
        if others == options.data:
            parser.error(f"{', '.join(others)}: tuned on other logs")
        tune(options.runs, options.results, options.data, options.more)
    else:
        for run in (run for run in runs if not run.path.exists()):
            metrics = run.train(options.runs, options.more).metrics["model"]
            print(f"{run.name:40}", {name: round(metrics[name], 4) for name in METRICS}, flush=True)


if __name__ == "__main__":
    main()
