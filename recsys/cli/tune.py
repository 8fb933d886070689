"""`recsys tune`: better hyper-parameters, by validation alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.cli._output import ConfigArgument, JsonOption, Output, SetOption
from recsys.cli._run import RUNS, RunsOption

if TYPE_CHECKING:
    from recsys.tuning import Tried, TuningRecord

SpaceArgument = Annotated[Path, typer.Argument(metavar="SPACE", help="The YAML file that says what is tuned.")]
TrialsOption = Annotated[int, typer.Option("--trials", min=1, help="How many, those of an earlier call included.")]
HoursOption = Annotated[
    float | None, typer.Option("--hours", min=0.0, metavar="H", help="After which no further trial is begun.")
]


def tune(
    path: ConfigArgument,
    space: SpaceArgument,
    overrides: SetOption,
    trials: TrialsOption = 20,
    hours: HoursOption = None,
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Look for better hyper-parameters, over any keys of the YAML, by validation alone: the test part stays untouched.

    The first trial is the experiment as it stands. A killed command goes on where it stopped.
    """
    from recsys.tuning import Tuning, read_space

    out = Output(as_json)
    tuning = Tuning(path, read_space(space), overrides, runs)
    out.note(f"tuning in {tuning.folder}")
    record = tuning.run(trials, hours, lambda tried: _tell(tried, out))
    _print(record, out)
    if record.changed:
        out.text("changed: " + ", ".join(f"{key}={json.dumps(value)}" for key, value in record.changed.items()))
    else:
        out.text(f"nothing beat {path} as it stands")
    out.note(f"next: recsys evaluate {tuning.run_of(record.best)}, the first look at the test part")
    out.wrote(tuning.folder)
    out.result(record.model_dump(mode="json") | {"path": str(tuning.folder)})


def _tell(tried: Tried, out: Output) -> None:
    trial = tried.trial
    quality = trial.error if trial.quality is None else f"{trial.quality:.5f}"
    best = "" if tried.best is None else f", best so far {tried.best:.5f}"
    out.note(f"trial {trial.number}  {trial.state}  {quality}  {trial.epochs} epochs, {trial.seconds:.0f} s{best}")


def _print(record: TuningRecord, out: Output) -> None:
    names = list(record.trials[0].values)
    ranked = sorted(record.trials, key=lambda each: (each.quality is None, -(each.quality or 0.0)))
    rows = [
        [
            "as it stands" if each.number == 0 else str(each.number),
            each.state,
            each.quality,
            str(each.epochs),
            *(f"{value:.4g}" if isinstance(value, float) else str(value) for value in each.values.values()),
        ]
        for each in ranked
    ]
    columns = ["trial", "", f"valid {record.monitor}", "epochs", *names]
    out.table(f"{record.name}: by validation, best first", columns, rows, fraction=".5f")
    if record.importance:
        said = ", ".join(f"{name} {value:.0%}" for name, value in record.importance.items())
        out.text(f"what mattered: {said}")
