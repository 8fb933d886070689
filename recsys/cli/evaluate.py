"""`recsys evaluate`: a trained model on the test part."""

from __future__ import annotations

from typing import Annotated

import typer

from recsys.cli._evaluation import print_record
from recsys.cli._output import JsonOption, Output, SetOption
from recsys.cli._run import RUNS, ExperimentArgument, PlanOption, RankerOption, RunsOption, open_experiment

CandidatesOption = Annotated[
    int | None, typer.Option("--candidates", min=1, help="With --ranker: items retrieved for each user. [default: 500]")
]


def evaluate(
    path: ExperimentArgument,
    overrides: SetOption,
    ranker: RankerOption = None,
    candidates: CandidatesOption = None,
    plan: PlanOption = None,
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Evaluate the trained model on the test part, beside its baselines."""
    from recsys.errors import ConfigError

    out = Output(as_json)
    experiment = open_experiment(path, overrides, runs, out, plan)
    if ranker is not None:
        from recsys.evaluation.two_stage import CANDIDATES
        from recsys.two_stages import TwoStages

        both = TwoStages(experiment, open_experiment(ranker, (), runs, out), candidates or CANDIDATES)
        record, folder = both.evaluate(), both.folder
    elif candidates is not None:
        raise ConfigError("--candidates", "given without --ranker", "a ranker's run", "name it, or leave this out")
    else:
        record, folder = experiment.evaluate(), experiment.folder
    print_record(record, out)
    out.wrote(folder / "metrics.json")
    out.result(record.model_dump(mode="json"))
