"""What all contenders of `step_time.py` share: the batches, and a process that runs training steps when it is told to.

It needs only NumPy, since FBGEMM runs in an environment of its own.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

FIELDS, DIM, BATCH, HIDDEN, BATCHES = 26, 16, 4_096, (256, 128), 64
EXPONENT = 1.3
CORES = len(os.sched_getaffinity(0))

Law = Literal["zipf", "uniform"]
Steps = Callable[[int], None]
"""Runs that many training steps and returns when they are done."""


class Batches(NamedTuple):
    """All that a contender trains on, over and over."""

    rows: int
    """Of each field's vocabulary."""
    ids: NDArray[np.int32]
    """[batches, B, F] in 0 .. rows - 1; by falling frequency, as vocabularies are made."""
    labels: NDArray[np.float32]
    """[batches, B] 0 or 1."""


@cache
def make_batches(rows: int, law: Law, seed: int = 0) -> Batches:
    """The same batches in every process: `rows` are shared out equally among the fields."""
    rows //= FIELDS
    random = np.random.default_rng(seed)
    shape = (BATCHES, BATCH, FIELDS)
    if law == "zipf":
        cumulated = np.cumsum(np.arange(1, rows + 1) ** -EXPONENT)
        ids = np.searchsorted(cumulated / cumulated[-1], random.random(shape))
    else:
        ids = random.integers(0, rows, shape)
    return Batches(rows, ids.astype(np.int32), (random.random(shape[:2]) < 0.3).astype(np.float32))


def serve(make_steps: Callable[[int], Callable[[Batches], Steps]], versions: dict[str, str]) -> None:
    """Answers lines on stdin, {"rows", "law", "steps"} each, with {"seconds", "cpu"} a step, until stdin ends.

    `cpu` is the work of all threads, which depends less on what else runs on the machine.

    Args:
        make_steps: from the rows of all tables to a fresh model; that, from batches to its training steps.
        versions: of the libraries that do the work; the first line that is written.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes elsewhere
    models = cache(make_steps)

    @cache
    def steps_of(rows: int, law: Law) -> Steps:
        return models(rows)(make_batches(rows, law))

    print(json.dumps(versions), file=answers)
    for line in sys.stdin:
        asked = json.loads(line)
        steps = steps_of(asked["rows"], asked["law"])
        start, cpu = time.perf_counter(), time.process_time()
        steps(asked["steps"])
        took = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
        print(json.dumps({kind: value / asked["steps"] for kind, value in took.items()}), file=answers)
