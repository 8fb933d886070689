"""`recsys run`: prepare, train, evaluate, export and report."""

from __future__ import annotations

from recsys.cli._evaluation import print_record
from recsys.cli._output import JsonOption, Output, SetOption
from recsys.cli._run import (
    RUNS,
    ExperimentArgument,
    PlanOption,
    RunsOption,
    open_experiment,
    prepare_and_train,
    report_on,
)


def run(
    path: ExperimentArgument,
    overrides: SetOption,
    plan: PlanOption = None,
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Prepare, train, evaluate, export and report.

    Data that are prepared and a training that is finished are not done again. In a cluster the chief alone evaluates
    and exports.
    """
    out = Output(as_json)
    experiment = open_experiment(path, overrides, runs, out, plan)
    prepare_and_train(experiment, out)
    if not experiment.is_chief:
        out.note("this worker is done; the chief evaluates and exports")
        out.result({"path": experiment.folder, "bundle": None})
        return
    out.note("evaluating ...")
    record = experiment.evaluate()
    print_record(record, out)
    out.wrote(experiment.folder / "metrics.json")
    out.note("exporting ...")
    bundle = experiment.export()
    out.wrote(bundle)
    out.note("reporting ...")
    page = report_on(experiment)
    out.wrote(page)
    if experiment.recommends:
        out.text(f"next: recsys recommend {experiment.folder} --user USER, or recsys serve {experiment.folder}")
    numbers = {"metrics": record.metrics, "counts": record.counts}
    out.result({"path": experiment.folder, "bundle": bundle, "report": page, **numbers})
