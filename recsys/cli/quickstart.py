"""`recsys quickstart`: the main job, end to end, on data that is at hand."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.cli._evaluation import print_record
from recsys.cli._output import JsonOption, Output
from recsys.cli._run import RUNS, RunsOption, open_experiment, prepare_and_train, report_on

if TYPE_CHECKING:
    from recsys.experiment import Experiment
    from serving import Pipeline

USERS, ITEMS = 3, 8
"""How many users are shown, and how many of their items."""


def quickstart(runs: RunsOption = RUNS, as_json: JsonOption = False) -> None:
    """The whole way, from raw events to recommendations.

    On MovieLens where it can be had, on simulated users otherwise.
    """
    from recsys.bundle import Bundle
    from serving import Pipeline

    out = Output(as_json)
    config = _config(out)
    experiment = open_experiment(config, [], runs, out)
    prepare_and_train(experiment, out)
    out.note("evaluating ...")
    record = experiment.evaluate()
    out.note("exporting ...")
    bundle = experiment.export()
    out.note("reporting ...")
    page = report_on(experiment)
    print_record(record, out)
    users = _show_users(Pipeline(Bundle.load(bundle)), experiment, out)
    sizes = {"tables": record.counts["table_bytes"], "bundle": _bytes(bundle)}
    out.text(f"embedding tables {sizes['tables'] / 1e6:.2f} MB, bundle {sizes['bundle'] / 1e6:.2f} MB on disk")
    out.wrote(config)
    out.wrote(bundle)
    out.wrote(page)
    out.text("\nnext:")
    for command, purpose in _next(config, experiment, users[0]):
        out.text(f"  {command}\n      {purpose}")
    out.result(
        {
            "config": config,
            "run": experiment.folder,
            "bundle": bundle,
            "report": page,
            "metrics": record.metrics,
            "bytes": sizes,
        }
    )


def _config(out: Output) -> Path:
    """`quickstart.yaml` in this folder: as it stands, or written now for the data that can be had."""
    from recsys.data import public
    from recsys.errors import DataError
    from recsys.files import write_text

    path = Path("quickstart.yaml")
    if path.exists():
        out.note(f"using the {path} that is here")
        return path
    template = "movielens.yaml"
    try:
        public.fetch("movielens-latest-small")
    except DataError as error:
        problem = error.problems[0]
        out.note(f"MovieLens cannot be had ({problem.place}: {problem.found}): simulating users instead")
        template = "simulated.yaml"
    write_text(path, (Path(__file__).parent / "_quickstart" / template).read_text(encoding="utf-8"))
    return path


def _show_users(pipeline: Pipeline, experiment: Experiment, out: Output) -> list[str]:
    """A table for each of a few held-out users: what they liked lately, and what is recommended to them."""
    from itertools import zip_longest

    from serving import Request

    held_out = experiment.prepared.held_out("test")
    names = experiment.prepared.users["user"]
    rows = [len(held_out.user_index) * (2 * n + 1) // (2 * USERS) for n in range(USERS)]
    users = [names[int(held_out.user_index[row])].as_py() for row in rows]
    for user in users:
        liked = [item.title or item.item for item in pipeline.history(user, ITEMS)]
        found = [item.title or item.item for item in pipeline.recommend(Request(user=user, k=ITEMS)).items]
        pairs = list(zip_longest(liked, found, fillvalue=""))
        out.table(f"User {user}", ["liked lately (newest first)", "recommended"], pairs, one_line=True)
    return users


def _next(config: Path, experiment: Experiment, user: str) -> list[tuple[str, str]]:
    table = next(iter(experiment.config.embeddings.tables))
    wider = f"--set name=wider --set embeddings.tables.{table}.dim=96"
    activate = Path(sys.executable).with_name("activate")
    hidden = shutil.which("recsys") is None and activate.exists()
    return [
        *([(f"source {os.path.relpath(activate)}", "puts the command recsys on your PATH")] if hidden else []),
        (f"recsys recommend {experiment.folder} --user {user}", "recommendations on the terminal"),
        (f"recsys serve {experiment.folder}", "the same over HTTP, with a page for looking around at /"),
        (f"recsys run {config} {wider}", "change one thing, run again"),
        ("recsys init YOUR_EVENTS.csv", "a starter YAML for your own data"),
    ]


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
