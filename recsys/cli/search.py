"""`recsys search`: smaller tables that serve as well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from recsys.cli._output import ConfigArgument, JsonOption, Output, SetOption
from recsys.cli._run import RUNS, RunsOption

if TYPE_CHECKING:
    from recsys.dimension_search import Progress
    from recsys.search.frontier import Promise, SearchRecord

BudgetOption = Annotated[
    str | None, typer.Option("--budget", metavar="BYTES", help="Greatest size of the searched tables: 2MB, 500KiB, ...")
]
LossOption = Annotated[
    float | None,
    typer.Option(
        "--max-loss", "--max-auc-loss", min=0.0, help="Most that the monitored metric (a ranker's AUC) may lose."
    ),
]


def search(
    path: ConfigArgument,
    overrides: SetOption,
    budget: BudgetOption = None,
    max_loss: LossOption = None,
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Find smaller embedding tables: the best within --budget, or the smallest that lose at most --max-loss.

    Trains the full model, searches as `search` in the YAML says, trains every plan, and keeps the best one for
    `recsys train CONFIG --plan`. A search that was killed goes on where it stopped.
    """
    from recsys.dimension_search import DimensionSearch
    from recsys.errors import SearchError
    from recsys.experiment import Experiment
    from recsys.search.frontier import SearchRecord

    out = Output(as_json)
    experiment = Experiment.from_yaml(path, overrides, runs)
    found = DimensionSearch(experiment, _promise(budget, max_loss), lambda progress: _tell(progress, out))
    out.note(f"{experiment.config.name}  searching in {found.folder}")
    try:
        record = found.run()
    except SearchError:
        _print(SearchRecord.model_validate_json((found.folder / "search.json").read_bytes()), out)
        raise
    _print(record, out)
    out.note(f"next: recsys train {path} --plan {found.folder / 'best'}")
    out.wrote(found.folder)
    out.result(record.model_dump(mode="json") | {"path": str(found.folder)})


def _promise(budget: str | None, max_loss: float | None) -> Promise:
    from pydantic import ByteSize, TypeAdapter, ValidationError

    from recsys.errors import ConfigError
    from recsys.search.frontier import Promise

    if (budget is None) == (max_loss is None):
        found = "neither is given" if budget is None else "both are given"
        raise ConfigError("--budget, --max-loss", found, "one of the two", "recsys search CONFIG --budget 2MB")
    if budget is None:
        return Promise(max_loss=max_loss)
    try:
        return Promise(budget=int(TypeAdapter(ByteSize).validate_python(budget)))
    except ValidationError as error:
        raise ConfigError("--budget", repr(budget), "bytes above 0, such as 2MB, 500KiB or 120000") from error


def _tell(progress: Progress, out: Output) -> None:
    left = progress.seconds_left
    rest = "" if left is None else f", about {_duration(left)} left"
    out.note(f"[{progress.done}/{progress.total}{rest}] {progress.doing}")


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{max(minutes, 1)} min"


def _print(record: SearchRecord, out: Output) -> None:
    """The frontier, who beats whom, and what it cost."""
    metric, beside, rows = record.monitor, record.beside, []
    for trial in sorted(record.trials, key=lambda each: (-each.bytes, each.method)):
        marks = "chosen" if trial.name == record.chosen else "front" if trial.name in record.front else ""
        share = f"{trial.bytes / record.full_bytes:.1%}"
        valid, test = trial.mean(metric), trial.mean(metric, "test")
        others = [trial.mean(name, "test") for name in beside]
        rows.append([trial.method, f"{trial.bytes:,}", share, valid, test, trial.margin(metric), *others, marks])
    more = [f"test {name}" for name in beside]
    columns = ["method", "bytes", "of full", f"valid {metric}", f"test {metric}", "± (95%)", *more, ""]
    out.table(f"{record.name}: smaller tables, as they are served", columns, rows, fraction=".5f")
    for name, why in record.unreachable.items():
        out.text(f"not to be had: {name}: {why}")
    for verdict in record.verdicts:
        margin = "" if verdict.margin is None else f" ± {verdict.margin:.5f}"
        word = "beats" if verdict.beats else "does not beat"
        out.text(
            f"{verdict.search} {word} {verdict.control}: {verdict.difference:+.5f}{margin} {metric} on the test part"
        )
    costs = ", ".join(f"{method} {cost:.1f}" for method, cost in record.cost.items())
    out.text(f"cost in trainings of the full model ({record.training_seconds:.0f} s each): {costs}")
