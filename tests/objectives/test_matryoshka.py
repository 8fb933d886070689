"""Prefixes of trained vectors serve by themselves only where they were trained to: Matryoshka representations (Kusupati
et al., NeurIPS 2022).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys._compat import keras, tf
from recsys.retrieval import ExactIndex, ScannConfig, ScannIndex
from tests.objectives.losses import loss_over

USERS, ITEMS, DIM, PREFIX, TASTES = 256, 1_200, 32, 8, 24
Trained = tuple[NDArray[np.float32], NDArray[np.float32]]


def trained(prefixes: Sequence[int]) -> Trained:
    """Vectors of users and items: a user wants one item, by one of many tastes, which a few numbers can hold."""
    rng = np.random.default_rng(0)
    tastes = rng.normal(size=(TASTES, PREFIX))
    wanted = tastes[rng.integers(TASTES, size=USERS)] @ rng.normal(size=(PREFIX, ITEMS))
    drawn = [rng.choice(ITEMS, size=40, p=np.exp(row) / np.exp(row).sum()) for row in 2.0 * wanted]
    positives = tf.constant(np.stack(drawn), tf.int32)
    query, item = (tf.Variable(0.3 * rng.normal(size=(n, DIM)), dtype=tf.float32) for n in (USERS, ITEMS))
    loss = loss_over(item, prefixes=prefixes, kind="full_softmax")
    optimizer = keras.optimizers.Adam(0.03)

    @tf.function
    def step(number: tf.Tensor) -> None:
        index = positives[:, number]
        with tf.GradientTape() as tape:
            value = tf.reduce_mean(loss(query, {"id": index}, index))
        optimizer.apply_gradients(zip(tape.gradient(value, [query, item]), [query, item], strict=True))

    optimizer.build([query, item])
    for number in range(160):
        step(tf.constant(number % 40))
    return query.numpy(), item.numpy()


@pytest.fixture(scope="module")
def plain() -> Trained:
    return trained(())


@pytest.fixture(scope="module")
def nested() -> Trained:
    return trained((PREFIX,))


def overlap(found: NDArray[np.int32], truth: NDArray[np.int32]) -> float:
    """Mean share of each row of `truth` that the same row of `found` holds."""
    return float(np.mean([np.isin(truth[row], found[row]).mean() for row in range(len(truth))]))


def by_prefix(vectors: Trained, k: int) -> NDArray[np.int32]:
    query, item = (np.ascontiguousarray(each[:, :PREFIX]) for each in vectors)
    return ExactIndex(item).search(query, k).ids


def whole(vectors: Trained, k: int) -> NDArray[np.int32]:
    query, item = vectors
    return ExactIndex(item).search(query, k).ids


def test_a_trained_prefix_ranks_nearly_as_all_numbers_do(plain: Trained, nested: Trained) -> None:
    assert overlap(by_prefix(nested, 10), whole(nested, 10)) > 0.55
    assert overlap(by_prefix(plain, 10), whole(plain, 10)) < 0.5


def test_an_index_of_prefixes_finds_with_few_candidates_what_all_numbers_rank(plain: Trained, nested: Trained) -> None:
    config = ScannConfig(leaves=0, reorder=60, prefix=PREFIX)
    found = {
        name: overlap(ScannIndex.build(vectors[1], config).search(vectors[0], 10).ids, whole(vectors, 10))
        for name, vectors in (("plain", plain), ("nested", nested))
    }
    assert found["nested"] > 0.93
    assert found["plain"] < 0.88
