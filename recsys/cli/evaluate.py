"""`recsys evaluate`: a trained model on the test part."""

from __future__ import annotations

from recsys.cli._evaluation import print_record
from recsys.cli._output import JsonOption, Output, SetOption
from recsys.cli._run import RUNS, ExperimentArgument, RunsOption, open_experiment


def evaluate(
    path: ExperimentArgument, overrides: SetOption, runs: RunsOption = RUNS, as_json: JsonOption = False
) -> None:
    """Evaluate the trained model on the test part, beside its baselines."""
    out = Output(as_json)
    experiment = open_experiment(path, overrides, runs, out)
    record = experiment.evaluate()
    print_record(record, out)
    out.wrote(experiment.folder / "metrics.json")
    out.result(record.model_dump(mode="json"))
