"""`recsys run`: prepare, train, evaluate and export."""

from __future__ import annotations

from recsys.cli._output import JsonOption, Output, SetOption
from recsys.cli._run import (
    RUNS,
    ExperimentArgument,
    RunsOption,
    open_experiment,
    print_prepared,
    print_record,
    watch_training,
)


def run(path: ExperimentArgument, overrides: SetOption, runs: RunsOption = RUNS, as_json: JsonOption = False) -> None:
    """Prepare, train, evaluate and export.

    Data that are prepared and a training that is finished are not done again.
    """
    out = Output(as_json)
    experiment = open_experiment(path, overrides, runs, out)
    out.note("preparing the data ...")
    experiment.prepare()
    print_prepared(experiment, out)
    watch_training(experiment, out)
    out.note("training ...")
    experiment.train()
    out.note("evaluating ...")
    record = experiment.evaluate()
    print_record(record, out)
    out.wrote(experiment.folder / "metrics.json")
    bundle = None
    if experiment.can_export:
        out.note("exporting ...")
        bundle = experiment.export()
        out.wrote(bundle)
        out.text(f"next: recsys recommend {experiment.folder} --user USER, or recsys serve {experiment.folder}")
    out.result({"path": experiment.folder, "bundle": bundle, "metrics": record.metrics, "counts": record.counts})
