"""`recsys prepare`: raw events to encoded shards. Needs TensorFlow only where the schema hashes."""

from __future__ import annotations

from recsys.cli._output import JsonOption, Output, SetOption
from recsys.cli._run import RUNS, ExperimentArgument, RunsOption, open_experiment, print_prepared


def prepare(
    path: ExperimentArgument, overrides: SetOption, runs: RunsOption = RUNS, as_json: JsonOption = False
) -> None:
    """Split, encode and write the data as shards.

    They are found in the cache where nothing has changed.
    """
    out = Output(as_json)
    experiment = open_experiment(path, overrides, runs, out)
    prepared = experiment.prepare()
    print_prepared(experiment, out)
    out.wrote(prepared.path)
    out.result({"path": prepared.path, "digest": prepared.info.digest, "counts": prepared.info.counts.model_dump()})
