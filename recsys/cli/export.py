"""`recsys export`: a trained model as a bundle."""

from __future__ import annotations

from recsys.cli._output import JsonOption, Output, SetOption
from recsys.cli._run import RUNS, ExperimentArgument, PlanOption, RunsOption, open_experiment


def export(
    path: ExperimentArgument,
    overrides: SetOption,
    plan: PlanOption = None,
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Export the trained model as the next bundle, with its index."""
    out = Output(as_json)
    folder = open_experiment(path, overrides, runs, out, plan).export()
    out.wrote(folder)
    out.result({"path": folder})
