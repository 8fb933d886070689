"""What all contenders of `ranker_throughput.py` share: the models' sizes, the batches, and a process that runs training
steps when it is told to.

It needs only NumPy, since the peers run in environments of their own.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

BATCH, BATCHES, DIM, NUMBERS, HISTORY = 4_096, 32, 16, 13, 50
HIDDEN, CROSSES, UNIT = (256, 128), 3, (80, 40)
"""The MLP of all models that have one, DCN-V2's cross layers, DIN's activation unit."""
LAYERS, HEADS, HEAD_DIM = 3, 2, 32
"""AutoInt's."""
EXPONENT = 1.1
CORES = len(os.sched_getaffinity(0))

# The published numbers of values of the 26 categorical fields of Criteo's Kaggle data, 33.8M in all.
CARDINALITIES = (
    *(1_460, 583, 10_131_227, 2_202_608, 305, 24, 12_517, 633, 3, 93_145, 5_683, 8_351_593, 3_194),
    *(27, 14_992, 5_461_306, 10, 5_652, 2_173, 4, 7_046_547, 18, 15, 286_181, 105, 142_572),
)
FIELDS = len(CARDINALITIES)
ITEM = 2
"""The field that stands for the item; DIN's history holds its values."""

Model = Literal["fm", "mlp", "dcn_v2", "din", "autoint"]
MODELS: tuple[Model, ...] = get_args(Model)


class Batches(NamedTuple):
    """All that a contender trains on, over and over."""

    rows: tuple[int, ...]
    """Of each categorical field: ids are 1 .. rows - 1, by falling frequency; 0 is padding."""
    ids: NDArray[np.int32]
    """[batches, B, F]"""
    numbers: NDArray[np.float32]
    """[batches, B, 13], standard normal."""
    history: NDArray[np.int32]
    """[batches, B, 50] ids of the item's field, padded at the end."""
    labels: NDArray[np.float32]
    """[batches, B] 0 or 1; every field has a say."""


class Case(NamedTuple):
    """What is trained."""

    model: Model
    rows: int
    """Of all categorical fields together."""


Run = Callable[[int], float]
"""Runs that many training steps, and returns a loss when they are done: that of the last of them, or the mean."""


def table_rows(total: int) -> tuple[int, ...]:
    """Rows of each field, `total` in all: small fields keep their values, large ones are cut to the same size."""
    low, high = 1, max(CARDINALITIES)
    while low < high:
        cap = (low + high + 1) // 2
        low, high = (cap, high) if sum(min(count, cap) + 1 for count in CARDINALITIES) <= total else (low, cap - 1)
    return tuple(min(count, low) + 1 for count in CARDINALITIES)


@lru_cache(1)
def make_batches(total: int, seed: int = 0) -> Batches:
    """The same batches in every process. Ids go by Zipf's law; each field's id and each number shift the log-odds."""
    rows = table_rows(total)
    random = np.random.default_rng(seed)
    shape = (BATCHES, BATCH)
    ids = np.stack([_zipf(random, count, shape) for count in rows], -1)
    history = _zipf(random, rows[ITEM], (*shape, HISTORY))
    history[np.arange(HISTORY) >= random.integers(1, HISTORY + 1, (*shape, 1))] = 0
    numbers = random.standard_normal((*shape, NUMBERS)).astype(np.float32)
    effects = random.normal(0.0, 0.3, (FIELDS, 1_009))
    log_odds = effects[np.arange(FIELDS), ids % 1_009].sum(-1) + numbers @ random.normal(0.0, 0.1, NUMBERS)
    labels = random.random(shape) < 1 / (1 + np.exp(1.0 - log_odds))
    return Batches(rows, ids, numbers, history, labels.astype(np.float32))


def _zipf(random: np.random.Generator, rows: int, shape: tuple[int, ...]) -> NDArray[np.int32]:
    cumulated = np.cumsum(np.arange(1.0, rows) ** -EXPONENT)
    drawn = np.searchsorted(cumulated, random.random(shape) * cumulated[-1])
    return (1 + np.minimum(drawn, rows - 2)).astype(np.int32)


def serve(make_run: Callable[[Model, Batches], Run], versions: dict[str, str]) -> None:
    """Answers lines on stdin, {"model", "rows", "steps"} each, with {"seconds", "cpu", "loss"}, until stdin ends.

    Seconds are those of a step; `cpu` is the work of all threads, which depends less on what else runs on the machine.

    Args:
        make_run: from a model's name and the batches to its training steps; only the latest is kept.
        versions: of the libraries that do the work; the first line that is written.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes elsewhere

    runs: dict[Case, Run] = {}
    print(json.dumps(versions), file=answers)
    for line in sys.stdin:
        asked = json.loads(line)
        case, steps = Case(asked["model"], asked["rows"]), asked["steps"]
        if case not in runs:
            runs.clear()  # first, so that two models never stand in memory
            runs[case] = make_run(case.model, make_batches(case.rows))
        start, cpu = time.perf_counter(), time.process_time()
        loss = runs[case](steps)
        took = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
        answer = {**{kind: value / steps for kind, value in took.items()}, "loss": loss}
        print(json.dumps(answer), file=answers)
