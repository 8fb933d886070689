"""Search and representation that need different geometries: DARE against its baselines on simulated long histories.

    python benchmarks/long_histories.py            trains what has no record yet
    python benchmarks/long_histories.py --write    the table and the picture in docs/methods

Every run is configs/simulated-long-histories.yaml with another sequence layer, and leaves its record in
benchmarks/results/long-histories/: the metrics, those of who knows all but the users (Bayes), how well the model finds
the events of the candidate's topic, and how the gradients of a shared table conflict. A killed study goes on where it
stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from table import markdown, mean_of, write_marked

from recsys.config.base import Config, Many
from recsys.evaluation.attention_picture import BINS
from recsys.evaluation.pointwise import evaluate_ranking
from recsys.evaluation.record import RunRecord
from recsys.files import write_text

if TYPE_CHECKING:
    from recsys.data.long_histories import LongHistories
    from recsys.evaluation.attention_quality import CategoryHistories
    from recsys.evaluation.gradient_conflict import GradientConflict
    from recsys.experiment import Experiment

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "simulated-long-histories.yaml"
RESULTS = Path(__file__).parent / "results" / "long-histories"
PAGE = ROOT / "docs" / "methods" / "dare.md"
PICTURE = ROOT / "docs" / "methods" / "twin-gradients.png"
MARKS = "<!-- figures: python benchmarks/long_histories.py --write -->\n", "<!-- /figures -->\n"

SEEDS = (0, 1, 2)
TOP_K = 20
COMPARED = 8
"""Batches of training examples, whose gradients are compared after each epoch."""
SHARED = [
    "embeddings.tables={item: {dim: 8}}",
    "embeddings.features.item_id={table: item}",
    "embeddings.features.history={table: item, pooling: none}",
]
VARIANTS: dict[str, tuple[str, list[str]]] = {
    "mean": ("mean pooling", [*SHARED, "model.sequence={kind: mean}"]),
    "din": ("DIN", [*SHARED, "model.sequence={kind: din, hidden: [36], activation: prelu}"]),
    "twin": ("TWIN", SHARED),
    "twin_wide": ("TWIN, d = 16", [*SHARED, "embeddings.tables={item: {dim: 16}}"]),
    "twin_projections": ("TWIN with projections", [*SHARED, "model.sequence.projection=8"]),
    "dare": ("DARE", []),
    "dare_narrow": ("DARE, d_a = 4", ["embeddings.tables.item_search.dim=4"]),
}
"""What stands in the table, and the overrides of the YAML."""


class Search(Config):
    """Which events of the test examples' histories the model heeds."""

    ndcg: float
    """Of the top 20 by learned weight, against those of the candidate's topic."""
    random: float
    """The same of a search at random."""
    relevant: float
    """Share of the weight that falls on events of the candidate's topic."""
    style: float
    """Of that, the share on events of the candidate's style, over what it would be if style did not matter: 1 is
    right, more is a search for what is alike.
    """


class Conflict(Config):
    """The two gradients of a shared table's rows, after each epoch."""

    conflicting: Many[float]
    """Share of the rows that are pulled apart."""
    dominance: Many[float]
    """How many times as long the representation's gradients are."""
    cosines: Many[int]
    """Rows of all epochs in each of 40 bins from -1 to 1."""

    @classmethod
    def of(cls, epochs: Sequence[GradientConflict]) -> Self:
        """Of the epochs' gradients."""
        cosines = np.concatenate([each.cosine for each in epochs])
        return cls(
            conflicting=tuple(each.conflicting for each in epochs),
            dominance=tuple(each.dominance for each in epochs),
            cosines=tuple(np.histogram(cosines, BINS, (-1, 1))[0].tolist()),
        )


class Study(Config):
    """What a record holds beside that of the run."""

    run: RunRecord
    bayes: dict[str, float]
    """`auc`, `gauc`, `logloss` of the best possible predictions of the test examples."""
    search: Search
    conflict: Conflict | None
    """Of a shared table."""


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

    def experiment(self, runs: Path, *more: str) -> Experiment:
        """From the YAML; all seeds share the data."""
        from recsys._compat import keras
        from recsys.experiment import Experiment

        keras.backend.clear_session()
        own = [f"name={self.name}", f"seed={self.seed}", "training.tensorboard=false"]
        return Experiment.from_yaml(CONFIG, [*own, *VARIANTS[self.variant][1], *more], runs)

    def train(self, runs: Path) -> None:
        """From the YAML to the record."""
        experiment = self.experiment(runs)
        steps: list[GradientConflict] = []
        if experiment.model.searches_shared_vectors:
            experiment.add_callback(_listener(experiment, steps))
        experiment.train()
        record = experiment.evaluate()
        conflict = Conflict.of(steps) if steps else None
        study = Study(run=record, bayes=_bayes(experiment), search=_search(experiment), conflict=conflict)
        write_text(self.path, study.model_dump_json(indent=2) + "\n")


def _listener(experiment: Experiment, epochs: list[GradientConflict]) -> Any:
    """A Keras callback that compares the gradients at each epoch's end."""
    from recsys._compat import keras
    from recsys.data.reader import Examples
    from recsys.evaluation.gradient_conflict import GradientConflict, gradient_conflicts

    batches = Examples(experiment.prepared, "train", experiment.config.training.batch_size, seed=1).batches(0)

    def compare(*_: object) -> None:
        parts = [gradient_conflicts(experiment.model, batch)["history"] for batch in batches.take(COMPARED)]
        epochs.append(GradientConflict.joined(parts))

    return keras.callbacks.LambdaCallback(on_epoch_end=compare)


def _truth(experiment: Experiment) -> LongHistories:
    from recsys.data.long_histories import TRUTH, LongHistories
    from recsys.data.sources import resolve

    files = resolve(experiment.config.data.source, ROOT)
    return LongHistories.load(files.events[0].with_name(TRUTH))


def _examples(experiment: Experiment, weighed: bool) -> tuple[CategoryHistories, NDArray[np.int64], NDArray[np.int64]]:
    """The test examples, and the items of their targets and events by number; -1 for padding."""
    from recsys.evaluation.attention_quality import category_histories

    prepared = experiment.prepared
    model = experiment.model if weighed else None
    found = category_histories(prepared, "test", "history", "item_id", prepared.info.counts.test, model)
    number = np.concatenate([[-1, -1], prepared.vocabulary("item_id").astype(np.int64)])
    return found, number[found.targets], np.where(found.events >= 0, number[found.events], -1)


def _bayes(experiment: Experiment) -> dict[str, float]:
    """Metrics of the best possible predictions."""
    found, targets, events = _examples(experiment, weighed=False)
    users = experiment.prepared.examples("test", ["user_index"])["user_index"].to_numpy()
    best = _truth(experiment).click_probability(targets, events)
    return evaluate_ranking(found.labels, best, None, users)


def _search(experiment: Experiment) -> Search:
    from recsys.evaluation.attention_quality import search_quality

    truth = _truth(experiment)
    found, targets, events = _examples(experiment, weighed=True)
    assert found.weights is not None
    relevant = truth.relevant(targets, events)
    quality = search_quality(found.weights, relevant.astype(np.float64), events >= 0, TOP_K)
    weights = np.abs(found.weights) / np.abs(found.weights).sum(axis=1, keepdims=True)
    alike = relevant & (truth.item_style[events] == truth.item_style[targets][:, None])
    share = (weights * alike).sum() / (weights * relevant).sum()
    return Search(
        ndcg=quality.ndcg,
        random=quality.random,
        relevant=float((weights * relevant).sum(axis=1).mean()),
        style=float(share / (alike.sum() / relevant.sum())),
    )


def plan() -> list[Run]:
    """One seed of every variant after the other."""
    return [Run(variant, seed) for seed in SEEDS for variant in VARIANTS]


def study(runs: Path, only: Sequence[str], seeds: Sequence[int]) -> None:
    """Trains what has no record."""
    for run in plan():
        if run.variant in only and run.seed in seeds and not run.path.exists():
            run.train(runs)
            read = _read(run)
            shown = {name: round(read.run.metrics["model"][name], 4) for name in ("auc", "gauc", "logloss")}
            print(f"{run.name:24}", shown, read.search, flush=True)


def table() -> str:
    """Means and standard deviations over the seeds."""
    rows = []
    for variant, (name, _) in VARIANTS.items():
        found = [_read(Run(variant, seed)) for seed in SEEDS if Run(variant, seed).path.exists()]
        if not found:
            continue
        metrics = [each.run.metrics["model"] for each in found]
        conflicts = [each.conflict for each in found if each.conflict]
        rows.append(
            [
                name,
                str(len(found)),
                *(mean_of([each[metric] for each in metrics]) for metric in ("auc", "gauc", "logloss")),
                mean_of([each.search.ndcg for each in found]),
                mean_of([each.search.style for each in found]),
                mean_of([float(np.mean(each.conflicting)) for each in conflicts]) if conflicts else "",
                mean_of([float(np.median(each.dominance)) for each in conflicts]) if conflicts else "",
            ]
        )
    any_run = next(_read(run) for run in plan() if run.path.exists())
    best, popular = any_run.bayes, any_run.run.metrics["popularity"]
    rows.append(
        ["best possible", "", *(f"{best[metric]:.4f}" for metric in ("auc", "gauc", "logloss")), "1", "1", "", ""]
    )
    rows.append(["popularity", "", *(f"{popular[metric]:.4f}" for metric in ("auc", "gauc")), "", "", "", "", ""])
    columns = ["", "seeds", "AUC", "GAUC", "logloss", "search", "style", "rows in conflict", "dominance"]
    return markdown(columns, rows)


def _read(run: Run) -> Study:
    return Study.model_validate_json(run.path.read_bytes())


def picture() -> None:
    """The histogram of TWIN's cosines over all epochs and seeds."""
    from recsys.evaluation.attention_picture import conflict_picture
    from recsys.evaluation.gradient_conflict import GradientConflict

    found = [_read(run).conflict for run in plan() if run.variant == "twin" and run.path.exists()]
    counts = np.sum([each.cosines for each in found if each], axis=0)
    edges = np.linspace(-1, 1, BINS + 1)
    cosine = np.repeat((edges[:-1] + edges[1:]) / 2, counts)
    ones = np.ones_like(cosine)
    conflict = GradientConflict(np.zeros(len(cosine), np.int64), cosine, ones, ones)
    conflict_picture("TWIN on simulated long histories", conflict).savefig(PICTURE)


def main() -> None:
    parser = argparse.ArgumentParser(description="DARE against its baselines on simulated long histories.")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the run directories are")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="variants to train")
    parser.add_argument("--seeds", type=int, nargs="+", choices=SEEDS, default=list(SEEDS))
    parser.add_argument("--write", action="store_true", help="put the figures into the docs")
    arguments = parser.parse_args()
    if arguments.write:
        write_marked(PAGE, table(), MARKS)
        picture()
    else:
        study(arguments.runs, arguments.only, arguments.seeds)


if __name__ == "__main__":
    main()
