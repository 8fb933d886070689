"""What the commands on an experiment share: opening it, and training it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.cli._output import Output

if TYPE_CHECKING:
    from recsys.experiment import Experiment
    from recsys.training.checkpoints import Position

ExperimentArgument = Annotated[
    Path, typer.Argument(metavar="CONFIG_OR_RUN", help="The experiment's YAML file, or its run directory.")
]
RunsOption = Annotated[Path, typer.Option("--runs", metavar="DIR", help="Where run directories are made.")]
RUNS = Path("runs")
RankerOption = Annotated[
    Path | None,
    typer.Option("--ranker", metavar="RUN", help="A trained ranker's run: both together, retrieve then rank."),
]
PlanOption = Annotated[
    Path | None,
    typer.Option("--plan", metavar="DIR", help="A plan of smaller tables, in place of embeddings.plan in the YAML."),
]


def open_experiment(
    path: Path, overrides: Sequence[str], runs: Path, out: Output, plan: Path | None = None
) -> Experiment:
    """The experiment of a YAML file or a run directory; `plan` starts from the working folder.

    Raises:
        ConfigError: with a problem for each mistake.
    """
    from recsys.experiment import Experiment

    if plan is not None:
        overrides = [*overrides, f"embeddings.plan={json.dumps(str(plan.resolve()))}"]
    experiment = Experiment.from_yaml(path, overrides, runs)
    out.note(f"{experiment.config.name}  run directory {experiment.folder}  config {experiment.digest[:12]}")
    return experiment


def prepare_and_train(experiment: Experiment, out: Output) -> Position:
    """Prepares and trains, with a look at the sizes and a progress bar. The end of the training."""
    from recsys.training.callbacks import ProgressBar

    experiment.join_cluster()
    out.note("preparing the data ...")
    experiment.prepare()
    print_prepared(experiment, out)
    if experiment.warm_started is not None:
        out.note(f"warm start from {experiment.config.training.warm_start}: {experiment.warm_started}")
    experiment.add_callback(ProgressBar(out.errors, experiment.monitor))
    out.note("training ...")
    return experiment.train()


def report_on(experiment: Experiment) -> Path:
    """Inspects the tables, where one device holds them, and writes the report; returns its path."""
    from recsys.report import write_report

    if experiment.config.training.strategy == "default":
        experiment.inspect()
    page = write_report(experiment.folder)
    experiment.track(page)
    return page


def print_prepared(experiment: Experiment, out: Output) -> None:
    """The sizes of the prepared data."""
    counts = experiment.prepared.info.counts
    out.note(
        f"data: {counts.users:,} users, {counts.items:,} items; {counts.train:,} training, {counts.valid:,} validation "
        f"and {counts.test:,} test examples"
        + (f"; {counts.dropped:,} events left out, neither positive nor negative" if counts.dropped else "")
        + (f"; {counts.held_back:,} later events held back" if counts.held_back else "")
    )
