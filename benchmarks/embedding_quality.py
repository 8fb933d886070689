"""What rows of few bits and lazy optimizers cost in quality, on MovieLens-1M.

    RECSYS_DATA=... python benchmarks/embedding_quality.py           trains what has no record yet
    python benchmarks/embedding_quality.py --write                   the tables in docs/methods

Every run is the model of configs/movielens-1m-unified.yaml with a row of width 32 for each id, and leaves its record in
benchmarks/results/embedding-quality/: metrics of the model as trained, and as a bundle would serve it. A killed study
goes on where it stopped.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from table import markdown, mean_of, write_marked

from recsys.embeddings.config import Precision
from recsys.evaluation.record import RunRecord

if TYPE_CHECKING:
    from recsys.embeddings.served import ServedRows
    from recsys.experiment import Experiment
    from recsys.models.base import EmbeddingModel

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "movielens-1m-unified.yaml"
RESULTS = Path(__file__).parent / "results" / "embedding-quality"
METHODS = ROOT / "docs" / "methods"
MARKS = "<!-- figures: python benchmarks/embedding_quality.py --write -->\n", "<!-- /figures -->\n"

DIM, SEEDS = 32, (0, 1, 2)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
DENSE = "dense_adam"
VARIANTS: dict[str, Precision] = {"float32": "float32", DENSE: "float32", "int8": "int8", "bfloat16": "bfloat16"}
"""The precision that each variant trains at. All but `dense_adam` train their tables by lazy Adam."""


@dataclass(frozen=True)
class Run:
    """One training of the study."""

    variant: str
    seed: int

    @property
    def name(self) -> str:
        """Of the run directory and the record."""
        return f"{self.variant}-seed{self.seed}"

    @property
    def path(self) -> Path:
        """The record."""
        return RESULTS / f"{self.name}.json"

    @property
    def overrides(self) -> list[str]:
        """Of the YAML."""
        return [
            f"name={self.name}",
            f"seed={self.seed}",
            f"embeddings.tables.unified={{method: full, dim: {DIM}, precision: {VARIANTS[self.variant]}}}",
            "training.tensorboard=false",
        ]

    def train(self, runs: Path) -> RunRecord:
        """From the YAML to the record, which has metrics of the model at every served precision, too."""
        from recsys._compat import keras
        from recsys.evaluation import evaluate_model
        from recsys.experiment import Experiment

        keras.backend.clear_session()
        experiment = Experiment.from_yaml(CONFIG, self.overrides, runs)
        if self.variant == DENSE:
            _train_tables_densely(experiment)
        experiment.train()
        record = experiment.evaluate()
        model, prepared, config = experiment.model, experiment.prepared, experiment.config.evaluation
        for precision in PRECISIONS:
            served = _served_at(model, precision)
            found = evaluate_model(model, prepared, "test", config, validation=True, served=served)
            record.metrics[f"served_{precision}"] = found.metrics["model"]
        record.write(self.path)
        return record


def _train_tables_densely(experiment: Experiment) -> None:
    """Gives the tables to Keras' own Adam, which trains the dense weights and moves every row at every step."""
    from recsys.data.reader import Examples
    from recsys.training.optimizers import make_dense_optimizer

    model, training = experiment.model, experiment.config.training
    model.embeddings.trained = list  # type: ignore[method-assign]
    model.compile(model.table_optimizers, make_dense_optimizer(training.dense_optimizer), training.batch_size)
    model.build_from(Examples(experiment.prepared, "train", training.batch_size, seed=0).sample())


def _served_at(model: EmbeddingModel, precision: Precision) -> Mapping[str, ServedRows]:
    from recsys._compat import tf
    from recsys.embeddings.served import served_rows

    stores = {name: table.store for name, table in model.embeddings.tables.items()}
    return {name: served_rows(store.lookup(tf.range(store.rows)).numpy(), precision) for name, store in stores.items()}


def plan(variants: list[str]) -> list[Run]:
    """All seeds of one variant after the other."""
    return [Run(variant, seed) for variant in variants for seed in SEEDS]


def study(runs: Path, variants: list[str]) -> None:
    """Trains what has no record."""
    for run in plan(variants):
        if not run.path.exists():
            record = run.train(runs)
            found = {who: round(metrics["auc"], 4) for who, metrics in record.metrics.items()}
            print(f"{run.name:20}", found, flush=True)


def pages() -> dict[Path, str]:
    """What stands between the marks of each page."""
    return {METHODS / "quantized.md": precision_table(), METHODS / "lazy_optimizers.md": lazy_table()}


def precision_table() -> str:
    """AUC and logloss by the precision in training and in the bundle, and what they lose against float32."""
    rows = []
    for trained, served in [
        *(("float32", precision) for precision in PRECISIONS),
        ("bfloat16", "bfloat16"),
        ("int8", "int8"),
    ]:
        auc, logloss = (_values(trained, f"served_{served}", metric) for metric in ("auc", "logloss"))
        base_auc, base_logloss = (_values("float32", "model", metric) for metric in ("auc", "logloss"))
        rows.append(
            [
                trained,
                served,
                mean_of(list(auc.values())),
                _difference(auc, base_auc),
                mean_of(list(logloss.values())),
                _difference(logloss, base_logloss),
            ]
        )
    return markdown(["trained at", "served at", "AUC", "difference", "logloss", "difference"], rows)


def lazy_table() -> str:
    """AUC and logloss of lazy and of dense Adam."""
    rows = []
    for variant, shown in ((DENSE, "Keras' Adam, all rows at every step"), ("float32", "lazy Adam")):
        auc, logloss = (_values(variant, "model", metric) for metric in ("auc", "logloss"))
        base_auc, base_logloss = (_values(DENSE, "model", metric) for metric in ("auc", "logloss"))
        seconds = [record.cost.seconds["train"] for record in _records(variant).values()]
        rows.append(
            [
                shown,
                mean_of(list(auc.values())),
                _difference(auc, base_auc),
                mean_of(list(logloss.values())),
                _difference(logloss, base_logloss),
                f"{statistics.fmean(seconds):.0f}" if seconds else "",
            ]
        )
    columns = ["tables trained by", "AUC", "difference", "logloss", "difference", "seconds (machine shared)"]
    return markdown(columns, rows)


def _difference(values: dict[int, float], base: dict[int, float]) -> str:
    """Mean of the differences seed by seed, and the lowest and highest."""
    found = [values[seed] - base[seed] for seed in values.keys() & base.keys()]
    if not found or not any(found):
        return ""
    return f"{statistics.fmean(found):+.6f} ({min(found):+.6f} to {max(found):+.6f})"


def _values(variant: str, who: str, metric: str) -> dict[int, float]:
    return {seed: record.metrics[who][metric] for seed, record in _records(variant).items()}


def _records(variant: str) -> dict[int, RunRecord]:
    runs = (Run(variant, seed) for seed in SEEDS)
    return {run.seed: RunRecord.read(run.path) for run in runs if run.path.exists()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the tables into the docs pages, and train nothing")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where run directories are made")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    options = parser.parse_args()
    if options.write:
        for page, text in pages().items():
            write_marked(page, text, MARKS)
    else:
        study(options.runs, options.variants)


if __name__ == "__main__":
    main()
