"""K candidates of one user, whose features and history are worked on once: the numbers of as many pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from recsys._compat import tf
from recsys.data.prepared import Prepared
from recsys.models.base import Batch
from recsys.models.ranker import Ranker
from tests.models.test_composed_ranker import INTERACTIONS, SEQUENCES, examples, ranker

CANDIDATES = 9


def one_user(batch: Batch, row: int) -> Batch:
    """A user of the batch, and all its items."""
    return {"query": {name: values[row : row + 1] for name, values in batch["query"].items()}, "item": batch["item"]}


def pairs(batch: Batch) -> Batch:
    """The same, user and history repeated for every item."""
    count = len(next(iter(batch["item"].values())))
    return {"query": {name: np.repeat(values, count, 0) for name, values in batch["query"].items()}} | {
        "item": batch["item"]
    }


def spread(model: Ranker) -> None:
    """Weights of sizes that matter."""
    rng = np.random.default_rng(2)
    for weight in model.trainable_variables:
        weight.assign(rng.normal(0.0, 0.5, weight.shape))


STACKED = [(sequence, interaction, "stacked") for sequence in SEQUENCES for interaction in INTERACTIONS]
PARALLEL = [("dare", interaction, "parallel") for interaction in ("cross", "autoint")]


@pytest.mark.parametrize(("sequence", "interaction", "structure"), STACKED + PARALLEL)
def test_candidates_get_the_logits_of_pairs(world: Prepared, sequence: str, interaction: str, structure: str) -> None:
    model, batch = ranker(world, sequence, interaction, structure), examples(world, CANDIDATES)
    spread(model)
    history = batch["query"]["history"].numpy()
    history[1:3] = [[5, 7, 0, 0], [0, 0, 0, 0]]
    batch["query"]["history"] = tf.constant(history)
    for row in range(3):
        user = one_user(batch, row)
        expected = model.logits(pairs(user)).numpy()
        assert np.std(expected) > 0.01, "or the comparison could not fail"
        np.testing.assert_allclose(model.candidate_logits(user)["label"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sequence", ["twin", "dare"])
def test_the_history_is_looked_up_once(world: Prepared, sequence: str) -> None:
    """No array over candidates and events is wider than the scores: attention's products are all that grows."""
    model, batch = ranker(world, sequence, "none"), examples(world, CANDIDATES)
    user, length, width = one_user(batch, 0), 4, 8

    def shapes(function: Any, batch: Batch) -> set[tuple[int, ...]]:
        graph = tf.function(function).get_concrete_function(tf.nest.map_structure(tf.constant, batch)).graph
        outputs = (out for op in graph.get_operations() for out in op.outputs if op.type != "Placeholder")
        return {tuple(out.shape.as_list()) for out in outputs if out.shape.rank is not None}

    assert (CANDIDATES, length, width) in shapes(model.logits, pairs(user))
    found = shapes(lambda batch: model.candidate_logits(batch), user)
    assert (1, length, width) in found
    assert not any(shape[:2] == (CANDIDATES, length) and len(shape) > 2 for shape in found)


def test_no_candidates_get_no_logits(world: Prepared) -> None:
    model, batch = ranker(world, "dare", "cross"), examples(world, CANDIDATES)
    user = one_user(batch, 0)
    none = {"query": user["query"], "item": {name: values[:0] for name, values in user["item"].items()}}
    assert model.candidate_logits(none)["label"].shape == (0,)
