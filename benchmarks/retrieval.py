"""Retrieval on public logs: the shipped configs over three seeds, beside EASE, iALS, item-kNN and popularity.

    RECSYS_DATA=... python benchmarks/retrieval.py                          trains what has no record yet
    RECSYS_DATA=... python benchmarks/retrieval.py --only globo-sasrec      of these configs only
    python benchmarks/retrieval.py --list                                   says what there is, and what is missing

Each run leaves its record in benchmarks/results/retrieval/CONFIG/CONFIG-seedN.json; item-kNN and popularity stand in
it. EASE and iALS (linear_models.py), on the same split and by the same metrics, are in CONFIG/linear.json. A killed
study goes on where it stopped. `docs/results.md` is made of the records by benchmarks/results_page.py.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from table import markdown, mean_of

from recsys.evaluation.record import RunRecord
from recsys.files import write_text

if TYPE_CHECKING:
    from recsys.experiment import Experiment

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "retrieval"
SEEDS = (0, 1, 2)
SHOWN = ("recall@10", "ndcg@10", "recall@100", "coverage@10")
JUDGED = ("ndcg@10", "recall@10")
LINEAR = {"ease": "EASE", "ials": "iALS"}
OWN = {"item_knn": "item-kNN", "recent_popularity": "popularity of the newest events", "popularity": "popularity"}


@dataclass(frozen=True)
class Data:
    """A shipped config, and what others have published for its log and split."""

    config: str
    shown: str
    published: tuple[tuple[str, float, float], ...] = ()
    """Method, recall@10 and ndcg@10, as recalled from the literature."""
    linear: bool = True
    """Whether EASE and iALS are tried; not with the 322,897 users of the news, for want of time."""

    @property
    def folder(self) -> Path:
        """Of the records."""
        return RESULTS / self.config


DATA = {
    each.config: each
    for each in (
        Data(
            "amazon-beauty-sasrec",
            "Amazon Beauty, leave last out",
            (("SASRec", 0.0605, 0.0318), ("TIGER", 0.0648, 0.0384)),
        ),
        Data("globo-sasrec", "Globo.com, by time", linear=False),
        Data(
            "amazon-toys-sasrec",
            "Amazon Toys, leave last out",
            (("SASRec", 0.0675, 0.0374), ("TIGER", 0.0712, 0.0432)),
        ),
        Data("movielens-1m", "MovieLens-1M, at random"),
        Data(
            "amazon-sports-sasrec",
            "Amazon Sports, leave last out",
            (("SASRec", 0.0350, 0.0192), ("TIGER", 0.0400, 0.0225)),
        ),
    )
}


@dataclass(frozen=True)
class Run:
    """One training of the study."""

    data: Data
    seed: int
    more: tuple[str, ...] = ()
    """Overrides of the YAML, for a trial of the script itself."""

    @property
    def name(self) -> str:
        """Of the run directory."""
        return f"{self.data.config}-seed{self.seed}"

    @property
    def path(self) -> Path:
        """The record."""
        return self.data.folder / f"{self.name}.json"

    @property
    def linear_path(self) -> Path:
        """What EASE and iALS reach; they are the same for all seeds."""
        return self.data.folder / "linear.json"

    def experiment(self, runs: Path) -> Experiment:
        """Of the config."""
        from recsys._compat import keras
        from recsys.experiment import Experiment

        keras.backend.clear_session()
        overrides = [f"name={self.name}", f"seed={self.seed}", "training.tensorboard=false", *self.more]
        return Experiment.from_yaml(ROOT / "configs" / f"{self.data.config}.yaml", overrides, runs)

    def train(self, runs: Path) -> RunRecord:
        """From the YAML to the record."""
        experiment = self.experiment(runs)
        experiment.train()
        record = experiment.evaluate()
        record.write(self.path)
        return record

    def linear(self, runs: Path) -> dict[str, Any]:
        """EASE and iALS, tuned."""
        from linear_models import tuned

        experiment = self.experiment(runs)
        config = experiment.config.evaluation
        found = tuned(experiment.prepare(), config, config.monitor)
        write_text(self.linear_path, json.dumps(found, indent=1) + "\n")
        return found


def plan(only: list[str] | None = None, more: tuple[str, ...] = ()) -> list[Run]:
    """Seed by seed."""
    return [Run(data, seed, more) for seed in SEEDS for name, data in DATA.items() if not only or name in only]


def study(runs: Path, todo: list[Run]) -> None:
    """Trains what has no record."""
    for run in todo:
        if not run.path.exists():
            record = run.train(runs)
            found = {name: round(record.metrics["model"][name], 4) for name in SHOWN}
            print(f"{run.name:32}", found, {k: round(v) for k, v in record.cost.seconds.items()}, flush=True)
        if run.data.linear and not run.linear_path.exists():
            for name, each in run.linear(runs).items():
                found = {metric: round(each["metrics"][metric], 4) for metric in SHOWN}
                print(f"{run.data.config:32}", name, each["settings"], found, flush=True)


def section() -> str:
    """For docs/results.md: a table for each log, best first."""
    parts = [_table(data) for data in DATA.values() if _records(data)]
    return "\n".join(parts) if parts else "Not run yet: `python benchmarks/retrieval.py`.\n"


def _records(data: Data) -> list[RunRecord]:
    runs = (Run(data, seed) for seed in SEEDS)
    return [RunRecord.read(run.path) for run in runs if run.path.exists()]


def _table(data: Data) -> str:
    records = _records(data)
    found = {f"`configs/{data.config}.yaml`": [record.metrics["model"] for record in records]}
    found |= {
        f"*{shown}*": [record.metrics[name] for record in records]
        for name, shown in OWN.items()
        if name in records[0].metrics
    }
    path = Run(data, SEEDS[0]).linear_path
    if path.exists():
        linear = json.loads(path.read_text())
        found |= {f"*{shown}*": [linear[name]["metrics"]] for name, shown in LINEAR.items() if name in linear}
    rows = [
        (
            mean(each["ndcg@10"] for each in metrics),
            [who, *(mean_of([each.get(name) for each in metrics]) for name in SHOWN)],
        )
        for who, metrics in found.items()
    ]
    rows += [
        (ndcg, [f"{who}, as published", f"{recall:.4f}", f"{ndcg:.4f}", "", ""]) for who, recall, ndcg in data.published
    ]
    ranked = [row for _, row in sorted(rows, key=lambda pair: -pair[0])]
    seeds = ", ".join(str(record.seed) for record in records)
    minutes = sorted({round(record.cost.seconds.get("train", 0.0) / 60) for record in records})
    took = " to ".join(map(str, dict.fromkeys((minutes[0], minutes[-1]))))
    title = f"**{data.shown}** (seeds {seeds}; a training took {took} minutes on one core)"
    return f"{title}\n\n{markdown(['', *SHOWN], ranked)}{_beside(records)}"


def _beside(records: list[RunRecord]) -> str:
    """User by user, against the control that ranks best: the runs' mean difference, how many are real."""
    controls = [name for name in OWN if name in records[0].metrics]
    best = max(controls, key=lambda name: records[0].metrics[name][JUDGED[0]], default="")
    parts = []
    for metric in JUDGED:
        found = [
            each
            for record in records
            for each in record.differences
            if (each.run, each.against, each.metric, each.slice) == ("model", best, metric, "")
        ]
        if found:
            above = sum(each.real and each.difference > 0 for each in found)
            below = sum(each.real and each.difference < 0 for each in found)
            shown = f"{metric} {mean(each.difference for each in found):+.4f} (real: above in {above}, below in {below}"
            parts.append(f"{shown} of {len(found)} runs)")
    return f"\nUser by user beside {OWN[best]}: {', '.join(parts)}.\n" if parts else ""


def _use_one_thread() -> None:
    from recsys._compat import tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="say what has a record, and train nothing")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where run directories are made")
    parser.add_argument("--only", nargs="+", choices=list(DATA), help="only these configs")
    parser.add_argument("--first", type=int, help="only so many of the plan's runs")
    options = parser.parse_args()
    todo = plan(options.only)[: options.first]
    if options.list:
        for run in todo:
            print(f"{run.name:32}", "recorded" if run.path.exists() else "missing")
        return
    _use_one_thread()
    study(options.runs, todo)


if __name__ == "__main__":
    main()
