"""Trainees as processes of their own, forked from one that has imported everything and done nothing yet.

Importing TensorFlow costs more than such a training; a fork before its first operation has it for nothing.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.training.trainee"])


def start(world: Path, run: Path, *options: str, env: Mapping[str, str] | None = None) -> ForkServerProcess:
    """A training of `world` in the folder `run`, with OPTION=VALUE ... and variables of the environment."""
    run.mkdir(parents=True, exist_ok=True)
    process = CONTEXT.Process(target=_train, args=(world, run, options, dict(env or {})))
    process.start()
    return process


def finished(process: ForkServerProcess, run: Path, task: str = "") -> dict[str, Any]:
    """What it ended with."""
    process.join(timeout=300)
    assert process.exitcode == 0, (run / "trainee.log").read_text()[-3000:]
    result: dict[str, Any] = json.loads((run / f"result{task}.json").read_text())
    return result


def finish(world: Path, run: Path, *options: str) -> dict[str, Any]:
    return finished(start(world, run, *options), run)


def _train(world: Path, run: Path, options: tuple[str, ...], env: dict[str, str]) -> None:
    with (run / "trainee.log").open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.environ.update(env)
    from tests.training.trainee import main

    main(world, run, dict(option.split("=", 1) for option in options))
