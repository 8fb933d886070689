"""`recsys train`: train, or go on where a killed training stopped."""

from __future__ import annotations

from recsys.cli._output import JsonOption, Output, SetOption
from recsys.cli._run import RUNS, ExperimentArgument, PlanOption, RunsOption, open_experiment, prepare_and_train


def train(
    path: ExperimentArgument,
    overrides: SetOption,
    plan: PlanOption = None,
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Train the model, or go on where a kill stopped it.

    A training that was killed ends with the same numbers as one that was not.
    """
    out = Output(as_json)
    experiment = open_experiment(path, overrides, runs, out, plan)
    position = prepare_and_train(experiment, out)
    if experiment.is_chief:
        out.wrote(experiment.folder / "checkpoints")
    out.result({"path": experiment.folder, "epochs": position.epoch, "history": position.history})
