"""`recsys backtest`: how the experiment would have done at several moments of the past."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from recsys.cli._evaluation import print_differences, print_metrics
from recsys.cli._output import ConfigArgument, JsonOption, Output, SetOption
from recsys.cli._run import RUNS, RunsOption, prepare_and_train
from recsys.report.choice import MODEL

if TYPE_CHECKING:
    from recsys.evaluation.backtest_record import BacktestRecord
    from recsys.experiment import Experiment

WindowsOption = Annotated[int, typer.Option("--windows", min=2, help="How many test parts, one after the other.")]
WarmStartOption = Annotated[
    bool, typer.Option("--warm-start", help="Start each window with the weights of the one before.")
]
PLAUSIBLE = 1980
"""Times before this year are taken for numbers that count something else, such as positions."""


def backtest(
    path: ConfigArgument,
    overrides: SetOption,
    windows: WindowsOption = 4,
    warm_start: WarmStartOption = False,
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Retrain and test at several moments of the past, each on what came next.

    Windows that are evaluated already are not done again.
    """
    from recsys.backtest import Backtest
    from recsys.experiment import Experiment

    out = Output(as_json)
    experiment = Experiment.from_yaml(path, overrides, runs)
    rolling = Backtest(experiment, windows, warm_start)
    out.note(f"{experiment.config.name}  {windows} windows in {experiment.folder.parent}  preparing them ...")
    record = rolling.run(lambda window: _evaluate(window, out))
    _print(record, out)
    out.wrote(rolling.folder)
    out.result(record.model_dump(mode="json") | {"path": str(rolling.folder)})


def _evaluate(window: Experiment, out: Output) -> None:
    out.note(f"{window.config.name}  run directory {window.folder}  config {window.digest[:12]}")
    prepare_and_train(window, out)
    out.note("evaluating ...")
    window.evaluate()


def _print(record: BacktestRecord, out: Output) -> None:
    names = list(record.ranges)
    rows = [
        [
            each.name,
            _moment(each.first, record.timestamp_unit),
            _moment(each.last, record.timestamp_unit),
            f"{each.users:,}",
            *(each.metrics[name].get(record.monitor) for name in names),
        ]
        for each in record.windows
    ]
    for warning in dict.fromkeys(warning for each in record.windows for warning in each.warnings):
        out.text(f"warning: {warning}")
    out.table(f"{record.monitor} by window", ["window", "from", "to", "users", *names], rows)
    values = {name: {metric: each.value for metric, each in ranges.items()} for name, ranges in record.ranges.items()}
    users = max((each.users for each in record.ranges[MODEL].values()), default=0)
    print_metrics(f"All windows of {record.name} ({users:,} users)", values, record.ranges[MODEL], out)
    print_differences(record.differences, out)


def _moment(time: int, unit: Literal["s", "ms", "us"]) -> str:
    """In UTC, to the second."""
    import numpy as np

    at = np.datetime64(time, unit).astype("datetime64[s]")
    return str(at).replace("T", " ") if at >= np.datetime64(str(PLAUSIBLE)) else str(time)
