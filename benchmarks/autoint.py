"""AutoInt, AutoInt+ and AutoInt without residual connections on MovieLens-1M, as the AutoInt paper tests them.

    RECSYS_DATA=... python benchmarks/autoint.py           trains what has no record yet
    python benchmarks/autoint.py --write                   the table in docs/methods/autoint.md

Every run is configs/movielens-1m-autoint.yaml and leaves its record in benchmarks/results/autoint/. A killed study goes
on where it stopped.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from table import markdown, mean_of, write_marked

from recsys.evaluation.record import RunRecord

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "movielens-1m-autoint.yaml"
RESULTS = Path(__file__).parent / "results" / "autoint"
PAGE = ROOT / "docs" / "methods" / "autoint.md"
MARKS = "<!-- figures: python benchmarks/autoint.py --write -->\n", "<!-- /figures -->\n"

SEEDS = (0, 1, 2)
VARIANTS: dict[str, list[str]] = {
    "autoint": [],
    "autoint-plus": [
        "model.structure=parallel",
        "model.mlp={hidden: [400, 400], dropout: 0.2}",
        "model.interaction.embedding_dropout=0.1",
    ],
    "autoint-no-residual": ["model.interaction.residual=false"],
}
"""Overrides of the YAML."""
PAPER = {"autoint": ("0.8456", "0.3797"), "autoint-plus": ("0.8488", "0.3753"), "autoint-no-residual": ("0.8299", "")}
"""AUC and logloss there, of seven fields; the ablation is against 0.8460."""


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

    def train(self, runs: Path) -> RunRecord:
        """From the YAML to the record."""
        from recsys._compat import keras
        from recsys.experiment import Experiment

        keras.backend.clear_session()
        overrides = [f"name={self.name}", f"seed={self.seed}", "training.tensorboard=false", *VARIANTS[self.variant]]
        experiment = Experiment.from_yaml(CONFIG, overrides, runs)
        experiment.train()
        record = experiment.evaluate()
        record.write(self.path)
        return record


def study(runs: Path, variants: list[str]) -> None:
    """Trains what has no record, seed by seed."""
    for run in (Run(variant, seed) for seed in SEEDS for variant in variants):
        if not run.path.exists():
            metrics = run.train(runs).metrics["model"]
            print(
                f"{run.name:28}", json.dumps({name: round(metrics[name], 4) for name in ("auc", "logloss")}), flush=True
            )


def table() -> str:
    """Test AUC and logloss of each variant beside the paper's."""
    rows = []
    for variant, paper in PAPER.items():
        runs = (Run(variant, seed) for seed in SEEDS)
        records = [RunRecord.read(run.path) for run in runs if run.path.exists()]
        seeds = ", ".join(str(record.seed) for record in records)
        found = [mean_of([record.metrics["model"][metric] for record in records]) for metric in ("auc", "logloss")]
        if records:
            rows.append([f"`{variant}`", seeds, *found, *paper])
    return markdown(["six fields", "seeds", "AUC", "logloss", "paper (seven fields): AUC", "logloss"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table into the docs page, and train nothing")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where run directories are made")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    options = parser.parse_args()
    if options.write:
        write_marked(PAGE, table(), MARKS)
    else:
        study(options.runs, options.variants)


if __name__ == "__main__":
    main()
