"""The contenders of `full_catalogue.py`: given vectors, how well are the catalogue's items ranked for all users?

    python -m peers.ranking NAME USERS ITEMS

Started by `full_catalogue.py`, in its folder. Each line on stdin is a number of users or pairs to evaluate; each answer
tells the seconds, the seconds of all cores' work, and the peak memory of the process.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from recsys.evaluation.categories import Categories
from recsys.evaluation.config import EvaluationConfig
from recsys.evaluation.evidence import Evidence
from recsys.evaluation.recommenders import Nearest
from recsys.evaluation.record import peak_memory_mib
from recsys.evaluation.retrieval import SLICED, Task, evaluate_retrieval
from recsys.evaluation.slices import Slicing
from recsys.ragged import Ragged
from recsys.retrieval import ExactIndex

DIM, SEEN, MOST_RELEVANT, VALUES = 64, 50, 20, 12
KS = (10, 50, 100)
QUERIES = 4_096
"""TFRS' batch of pairs."""
Evaluate = Callable[[int], object]
"""Evaluates the first so many users or pairs."""


@dataclass(frozen=True)
class World:
    """Vectors of users and items, what each user has had and will want, and how both are sliced."""

    queries: NDArray[np.float32]
    """[Q, d] of length 1."""
    vectors: NDArray[np.float32]
    """[N, d] of length 1."""
    relevant: Ragged
    seen: Ragged
    gain: NDArray[np.float32]
    """Of each of `relevant.values`."""
    train_count: NDArray[np.int64]
    """[N]"""
    genres: NDArray[np.int32]
    """[N, 3] 0 for none."""
    items: list[Slicing]
    users: list[Slicing]

    @classmethod
    def make(cls, users: int, items: int, seed: int = 0) -> World:
        """The same in every process."""
        random = np.random.default_rng(seed)
        popularity = random.permutation(1 / np.arange(1, items + 1))
        chances = 1 / np.arange(1, MOST_RELEVANT + 1)
        lengths = random.choice(MOST_RELEVANT, users, p=chances / chances.sum()) + 1
        relevant = random.choice(items, lengths.sum(), p=popularity / popularity.sum())
        seen = random.choice(items, users * SEEN, p=popularity / popularity.sum())
        train_count = np.bincount(seen, minlength=items)
        frequency, activity = np.argsort(np.argsort(-train_count, kind="stable")), random.integers(0, 3, users)
        return cls(
            queries=_unit(random, users),
            vectors=_unit(random, items),
            relevant=Ragged(relevant, np.concatenate([[0], np.cumsum(lengths)])),
            seen=Ragged(seen, np.arange(users + 1) * SEEN),
            gain=random.integers(1, 6, len(relevant)).astype(np.float32),
            train_count=train_count,
            genres=random.integers(0, 20, (items, 3)).astype(np.int32),
            items=[
                _slicing("item_frequency", np.digitize(frequency, [items // 10, items // 2])),
                _slicing("item feature", random.integers(0, VALUES, items)),
            ],
            users=[
                _slicing("user_activity", activity),
                _slicing("returning", (activity > 0).astype(np.int64)),
                _slicing("user feature", random.integers(0, VALUES, users)),
            ],
        )


def _unit(random: np.random.Generator, count: int) -> NDArray[np.float32]:
    vectors = random.standard_normal((count, DIM), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _slicing(by: str, group: NDArray[np.integer]) -> Slicing:
    return Slicing(by, {str(value): group == value for value in np.unique(group)})


def engine(intervals: bool, world: World) -> Evaluate:
    """recsys, as `recsys evaluate` does it once the vectors are there: metrics, slices, and intervals around them."""
    config = EvaluationConfig(ks=KS)

    def evaluate(users: int) -> object:
        relevant = world.relevant.slice(0, users)
        task = Task(
            relevant,
            world.seen.slice(0, users),
            world.train_count,
            world.gain[: len(relevant.values)],
            Categories(world.genres),
            world.items,
        )
        result = evaluate_retrieval(Nearest(ExactIndex(world.vectors), world.queries[:users]), task, config)
        names = np.arange(users).astype(np.str_)[result.users]
        whole = Evidence.of(names, result.per_user)
        slices = [Evidence.of(names[each.rows], each.per_user) for each in result.slices]
        sliced = [f"{metric}@{k}" for metric in SLICED for k in KS]
        for slicing in world.users:
            members = slicing.take(result.users).members.values()
            slices += [whole.take(np.flatnonzero(member), sliced) for member in members]
        around = [each.intervals() for each in (whole, *slices)] if intervals else []
        return (
            result.summary(),
            [{name: array.mean() for name, array in each.values.items()} for each in slices],
            around,
        )

    return evaluate


def streaming(batch: int, world: World) -> Evaluate:
    """FactorizedTopK over the Streaming layer, with so many candidates in a batch."""
    from recsys._compat import tf, tfrs

    candidates = tf.data.Dataset.from_tensor_slices(world.vectors).batch(batch).cache()
    layer = tfrs.layers.factorized_top_k.Streaming(k=max(KS)).index_from_dataset(candidates)
    return _factorized_top_k(layer, world)


def brute_force(world: World) -> Evaluate:
    """FactorizedTopK over the BruteForce layer, which holds the scores of all candidates at once."""
    from recsys._compat import tfrs

    return _factorized_top_k(tfrs.layers.factorized_top_k.BruteForce(k=max(KS)).index(world.vectors), world)


def _factorized_top_k(layer: object, world: World) -> Evaluate:
    from recsys._compat import tf, tfrs

    metric = tfrs.metrics.FactorizedTopK(candidates=layer, ks=KS)
    vectors = tf.TensorSpec([None, DIM])

    @tf.function(input_signature=[vectors, vectors])
    def update(queries: tf.Tensor, candidates: tf.Tensor) -> None:
        metric.update_state(queries, candidates)

    rows, items = world.relevant.row_of_value, world.relevant.values

    def evaluate(pairs: int) -> object:
        metric.reset_states()
        for start in range(0, pairs, QUERIES):
            some = slice(start, min(start + QUERIES, pairs))
            update(world.queries[rows[some]], world.vectors[items[some]])
        return metric.result()

    return evaluate


RECSYS, INTERVALS = "recsys", "recsys, intervals too"
STREAMING, BRUTE_FORCE = "TFRS Streaming", "TFRS BruteForce"
BATCHES = (128, 1_024, 4_096, 16_384, 65_536)
"""Of candidates; TFRS' tutorials use the first."""
TUTORIAL = f"{STREAMING}, {BATCHES[0]}"
CONTENDERS: dict[str, Callable[[World], Evaluate]] = {
    RECSYS: partial(engine, False),
    INTERVALS: partial(engine, True),
    **{f"{STREAMING}, {batch}": partial(streaming, batch) for batch in BATCHES},
    BRUTE_FORCE: brute_force,
}


def main() -> None:
    name, users, items = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes elsewhere
    world = World.make(users, items)
    evaluate = CONTENDERS[name](world)
    for line in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        evaluate(int(line))
        took = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
        answer = {**took, "memory_gib": peak_memory_mib() / 1024}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
