"""Rankers on public logs: popularity and history baselines, mean pooling, DIN, TWIN and DARE.

    RECSYS_DATA=... python benchmarks/rankers.py                     trains what has no record yet, most telling first
    RECSYS_DATA=... python benchmarks/rankers.py --tune              validates learning rates, and trains nothing else
    python benchmarks/rankers.py --list                              says what there is, and what is missing

Every run is a config of configs/ with another sequence layer and leaves its record in
benchmarks/results/rankers/DATA/METHOD-seedN.json: metrics beside the baselines, the slices by whether the item's
category is in the history, the paired differences from the method that it is held to, and what attention does
(gradient conflict of TWIN, search against mutual information) beside it. A killed study goes on where it stopped.
`docs/results.md` is made of the records by benchmarks/results_page.py.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from recsys.evaluation.record import RunRecord
from recsys.files import write_text

if TYPE_CHECKING:
    from recsys.experiment import Experiment

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "rankers"
TUNING = RESULTS / "tuning.json"

Negatives = Literal["uniform", "popularity"]
SEEDS = (0, 1, 2)
DIM = 16
"""Of every table."""
RATES = (3e-2, 1e-2, 3e-3)
"""Learning rates of tables and dense weights; each main method has the one that validates best on the first log."""
MBA = "decay: {kind: mini_batch_aware, rate: 0.01}"
METRICS = ("auc", "gauc", "logloss")
COSINES = 20
"""Bins of the histogram of cosines between gradients, over [-1, 1]."""


@dataclass(frozen=True)
class Data:
    """A log, how much of its histories is read, and how its negatives are drawn."""

    log: str
    config: str
    length: int
    """Events of a history."""
    top_k: int
    """Events that target attention keeps."""
    negatives: Negatives
    features: tuple[str, str]
    """The item's features, which histories repeat: the id and the category."""
    tables: tuple[str, str]
    """The tables that they read."""
    more: tuple[str, ...] = ()
    """Overrides of the config."""

    @property
    def name(self) -> str:
        """Of the folder of records."""
        return f"{self.log}-{self.negatives}"

    @property
    def overrides(self) -> list[str]:
        """What is the same for all methods."""
        return [
            *(f"schema.features.{name}.max_length={self.length}" for name in ("items", "categories")),
            f"data.sampled_negatives.distribution={self.negatives}",
            "training.batch_size=2048",
            "training.early_stopping={patience: 1}",
            "training.tensorboard=false",
            f"evaluation.slices=[{{kind: in_history, feature: {self.features[1]}}}]",
            *self.more,
        ]


def _amazon(log: str, negatives: Negatives) -> Data:
    names = ("item_id", "category"), ("item", "category")
    return Data(log, f"{log}-din", 20, 10, negatives, *names, ("training.epochs=8",))


def _globo(length: int, negatives: Negatives) -> Data:
    names = ("article_id", "category_bucket"), ("article", "category")
    more = (
        f"data.min_history={length - 1}",
        "training.epochs=8",
    )
    return Data(f"globo-{length}", "globo-dare", length, 20, negatives, *names, more)


DATA = {
    each.name: each
    for each in (
        _amazon("amazon-beauty", "uniform"),
        _globo(100, "popularity"),
        _amazon("amazon-toys", "uniform"),
        _amazon("amazon-beauty", "popularity"),
        _globo(50, "popularity"),
        _amazon("amazon-toys", "popularity"),
        _globo(100, "uniform"),
        _globo(50, "uniform"),
        _amazon("amazon-sports", "uniform"),
        _amazon("amazon-sports", "popularity"),
    )
}
LONG = ("globo-50", "globo-100")
FIRST = ("amazon-beauty-uniform", "globo-100-popularity", "amazon-toys-uniform")
MAIN = ("mean", "din", "din-softmax", "twin", "dare")
"""On every log."""
BOTH = ("din-dice-mba", "din-softmax-dice-mba")
"""On the logs that come first, in every seed; what Dice and MBA do apart is told by the first seed."""


@dataclass(frozen=True)
class Method:
    """A way to read the history in the light of the candidate."""

    name: str
    shown: str
    sequence: str
    """`model.sequence`."""
    against: str | None = None
    """The method that this one is held to."""
    dice: bool = False
    mba: bool = False
    decoupled: bool = False

    @property
    def rate(self) -> float:
        """The learning rate that validates best; variants have that of the main method that they vary."""
        name = self.name
        while name not in MAIN:
            name = str(METHODS[name].against)
        found = _tuning().get(name, {})
        missing = [f"{rate:g}" for rate in RATES if f"{rate:g}" not in found]
        if missing:
            raise SystemExit(f"{name} is not tuned at {', '.join(missing)}: python benchmarks/rankers.py --tune")
        return float(max(found, key=lambda rate: max(found[rate])))


def _tuning() -> dict[str, dict[str, list[float]]]:
    """Validation AUC of each epoch, by main method and learning rate."""
    return json.loads(TUNING.read_text()) if TUNING.exists() else {}


def _din(name: str, shown: str, softmax: bool, against: str, dice: bool = False, mba: bool = False) -> Method:
    activation = "dice" if dice else "prelu"
    own = f"hidden: [32, 16], activation: {activation}, softmax: {str(softmax).lower()}"
    sequence = f"{{kind: din, {own}, target_aware: true}}"
    return Method(name, shown, sequence, against, dice, mba)


METHODS = {
    each.name: each
    for each in (
        Method("mean", "mean pooling", "{kind: mean, target_aware: true}"),
        _din("din", "DIN", False, "mean"),
        Method("twin", "TWIN", "{kind: attention, top_k: TOP_K, auxiliary: 1.0}", "mean"),
        Method("dare", "DARE", "{kind: attention, top_k: TOP_K, auxiliary: 1.0}", "twin", decoupled=True),
        _din("din-softmax", "DIN, softmax", True, "mean"),
        _din("din-softmax-dice", "DIN, softmax, Dice", True, "din-softmax", dice=True),
        _din("din-dice", "DIN, Dice", False, "din", dice=True),
        Method(
            "twin-projection",
            "TWIN with projections",
            f"{{kind: attention, top_k: TOP_K, projection: {2 * DIM}, auxiliary: 1.0}}",
            "twin",
        ),
        _din("din-mba", "DIN, MBA", False, "din", mba=True),
        _din("din-softmax-mba", "DIN, softmax, MBA", True, "din-softmax", mba=True),
        _din("din-dice-mba", "DIN, Dice, MBA", False, "din", dice=True, mba=True),
        _din("din-softmax-dice-mba", "DIN, softmax, Dice, MBA", True, "din-softmax", dice=True, mba=True),
    )
}


@dataclass(frozen=True)
class Run:
    """One training of the study."""

    data: Data
    method: Method
    seed: int
    tried: float | None = None
    """A learning rate, for tuning."""

    @property
    def name(self) -> str:
        """Of the run directory."""
        tuning = "" if self.tried is None else f"-rate{self.tried:g}"
        return f"{self.data.name}-{self.method.name}-seed{self.seed}{tuning}"

    @property
    def rate(self) -> float:
        """The learning rate."""
        return self.method.rate if self.tried is None else self.tried

    @property
    def path(self) -> Path:
        """The record."""
        return RESULTS / self.data.name / f"{self.method.name}-seed{self.seed}.json"

    @property
    def attention_path(self) -> Path:
        """What its attention does, if it searches."""
        return self.path.with_suffix(".attention.json")

    @property
    def overrides(self) -> list[str]:
        """Of the YAML."""
        data, method = self.data, self.method
        decay = f", {MBA}" if method.mba else ""
        activation = "dice" if method.dice else "relu"
        return [
            f"name={self.name}",
            f"seed={self.seed}",
            *data.overrides,
            *self._tables(),
            f"model.sequence={method.sequence.replace('TOP_K', str(data.top_k))}",
            f"model.mlp={{hidden: [64, 32], activation: {activation}}}",
            f"embeddings.optimizer={{kind: lazy_adam, learning_rate: {self.rate}{decay}}}",
            f"training.dense_optimizer.learning_rate={self.rate}",
        ]

    def _tables(self) -> Iterator[str]:
        """One table for search and representation of each feature, or two."""
        kinds = ("", "_search") if self.method.decoupled else ("",)
        tables = [f"{table}{kind}: {{dim: {DIM}}}" for table in self.data.tables for kind in kinds]
        yield f"embeddings.tables={{{', '.join(tables)}}}"
        for history, target, table in zip(("items", "categories"), self.data.features, self.data.tables, strict=True):
            searched = f", attention_table: {table}_search" if self.method.decoupled else ""
            yield f"embeddings.features.{target}={{table: {table}{searched}}}"
            yield f"embeddings.features.{history}={{table: {table}{searched}, pooling: none}}"

    def experiment(self, runs: Path) -> Experiment:
        """Of the config with the overrides."""
        from recsys._compat import keras
        from recsys.experiment import Experiment

        keras.backend.clear_session()
        return Experiment.from_yaml(ROOT / "configs" / f"{self.data.config}.yaml", self.overrides, runs)

    def train(self, runs: Path) -> RunRecord:
        """Through the whole experiment, from the YAML to the records."""
        experiment = self.experiment(runs)
        experiment.train()
        record = experiment.evaluate()
        if self.method.sequence.startswith("{kind: attention"):
            write_text(self.attention_path, json.dumps(attention(experiment, self.data), indent=1) + "\n")
        record = _small(record, self._difference(runs))
        record.write(self.path)
        return record

    def _difference(self, runs: Path) -> list[Any]:
        """From the method that this one is held to, user by user, if its run directory is there."""
        from recsys.evaluation.comparison import compare
        from recsys.evaluation.evidence import MODEL, Measured, evidence_path

        if self.method.against is None:
            return []
        base = Run(self.data, METHODS[self.method.against], self.seed)
        found = {run.method.name: evidence_path(runs / run.name, MODEL) for run in (base, self)}
        if not all(path.exists() for path in found.values()):
            return []
        by, name = f"{self.data.features[1]}_in_history", "absent"
        measured = {name: Measured.read(path) for name, path in found.items()}
        sliced = [(by, name)] if all((by, name) in each.slices for each in measured.values()) else []
        return compare(measured, METRICS, slices=[("", ""), *sliced])


def _small(record: RunRecord, differences: list[Any]) -> RunRecord:
    """Without what the page does not show: slices of baselines, differences from them, the calibration curve."""
    slices = tuple(
        each.model_copy(update={"metrics": {who: each.metrics[who] for who in ("model", "category_in_history")}})
        for each in record.slices
    )
    return record.model_copy(update={"slices": slices, "differences": tuple(differences), "calibration": None})


def attention(experiment: Experiment, data: Data, rows: int = 20_000) -> dict[str, Any]:
    """Search against mutual information, as DARE's paper measures it, and the conflict of shared tables' gradients."""
    from recsys.data.reader import Examples
    from recsys.evaluation.attention_quality import Information, category_histories, search_quality
    from recsys.evaluation.gradient_conflict import GradientConflict, gradient_conflicts
    from recsys.models.ranker import Ranker

    model, prepared, category = experiment.trained_model(), experiment.prepared, data.features[1]
    assert isinstance(model, Ranker)
    information = Information.of(category_histories(prepared, "train", "items", category, 200_000))
    test = category_histories(prepared, "test", "items", category, rows, model)
    known, events = information.known(test), test.events >= 0
    assert test.weights is not None
    quality = search_quality(test.weights[known], information.values(test)[known], events[known], data.top_k)
    found: dict[str, Any] = {"search": {"k": data.top_k, **vars(quality)}}
    if model.searches_shared_vectors:
        examples = Examples(prepared, "train", 1024, seed=0)
        batches = [batch for _, batch in zip(range(4), examples.batches(0), strict=False)]
        parts = [gradient_conflicts(model, batch) for batch in batches]
        for history in parts[0]:
            joined = GradientConflict.joined([part[history] for part in parts])
            found.setdefault("gradients", {})[history] = {
                "conflicting": joined.conflicting,
                "dominance": joined.dominance,
                "rows": len(joined.ids),
                "cosines": np.histogram(joined.cosine, bins=COSINES, range=(-1, 1))[0].tolist(),
            }
    return found


def plan() -> list[Run]:
    """The main methods on the most telling logs, then whatever else there is; the largest log last."""
    runs = [
        Run(data, method, seed)
        for seed in SEEDS
        for method in METHODS.values()
        for data in DATA.values()
        if _concerns(data, method, seed)
    ]

    def turn(run: Run) -> tuple[bool, ...]:
        first, main, long = run.data.name in FIRST, run.method.name in MAIN, run.data.log in LONG
        own = not main and run.method.name not in BOTH
        return run.data.log == "amazon-sports", own, not first, not main, long and not main

    return sorted(runs, key=turn)


def _concerns(data: Data, method: Method, seed: int) -> bool:
    """The main methods everywhere; those with Dice and MBA, and projections, on the logs that come first."""
    if method.name in MAIN:
        return True
    return data.name in FIRST and (method.name in BOTH or seed == SEEDS[0])


def study(runs: Path, first: int | None, only: list[str] | None) -> None:
    """Trains what has no record."""
    for run in plan()[:first]:
        if run.path.exists() or (only and run.data.name not in only):
            continue
        record = run.train(runs)
        found = {name: round(record.metrics["model"][name], 4) for name in METRICS}
        print(f"{run.name:48}", found, {k: round(v) for k, v in record.cost.seconds.items()}, flush=True)


def tune(runs: Path) -> None:
    """The validation AUC of each main method at each learning rate, on one log."""
    data = DATA[FIRST[0]]
    for name in MAIN:
        for rate in RATES:
            found = _tuning()
            if f"{rate:g}" not in found.get(name, {}):
                history = Run(data, METHODS[name], SEEDS[0], rate).experiment(runs).train().history
                aucs = [round(epoch["val_auc"], 5) for epoch in history]
                found.setdefault(name, {})[f"{rate:g}"] = aucs
                write_text(TUNING, json.dumps(found, indent=1) + "\n")
                print(name, rate, aucs, flush=True)


def _use_one_thread() -> None:
    from recsys._compat import tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", action="store_true", help="validate learning rates")
    parser.add_argument("--list", action="store_true", help="say what has a record, and train nothing")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where run directories are made")
    parser.add_argument("--first", type=int, help="only so many of the plan's runs")
    parser.add_argument("--only", nargs="+", choices=list(DATA), help="only these logs")
    options = parser.parse_args()
    if options.list:
        for run in plan():
            print(f"{run.name:48}", "recorded" if run.path.exists() else "missing")
        return
    _use_one_thread()
    if options.tune:
        tune(options.runs)
    else:
        study(options.runs, options.first, options.only)


if __name__ == "__main__":
    main()
