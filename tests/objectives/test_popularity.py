"""What corrections do to popularity, in a world whose truth is known: scores that go by taste and not by frequency."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys._compat import tf
from tests.objectives.losses import loss_over

QUERIES, ITEMS, BATCH, STEPS = 10, 100, 128, 2500
COUNTED: dict[str, Any] = {"log_q": {"kind": "counts"}}


@cache
def world() -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """P(item | query) [Q, N], and the cells (query, item) of each step's batch."""
    rng = np.random.default_rng(0)
    p = np.exp(-np.log(np.arange(1, ITEMS + 1)) + rng.normal(size=(QUERIES, ITEMS)))
    p /= p.sum(1, keepdims=True)
    cells = rng.choice(p.size, size=(STEPS, BATCH), p=(p / QUERIES).ravel()).astype(np.int32)
    return p, cells


def learned(**config: Any) -> tuple[float, float]:
    """(coefficient of log q, share of each query's ten likeliest items that are among its ten best) of the scores that
    training from 0 ends at, regressed on log P and log q; q is the mean of P over the queries. Only cells seen at least
    30 times are regressed: others have not converged.
    """
    p, cells = world()
    q = p.mean(0)
    step, state = tf.Variable(0, dtype=tf.int64), tf.Variable(tf.zeros([QUERIES, ITEMS]))
    loss = loss_over(tf.eye(ITEMS), np.round(q * 1e9), step=step, **config)

    @tf.function
    def train(cells: tf.Tensor) -> None:
        m, v = tf.zeros([QUERIES, ITEMS]), tf.zeros([QUERIES, ITEMS])
        for at in tf.range(STEPS):
            query, item = cells[at] // ITEMS, cells[at] % ITEMS
            with tf.GradientTape() as tape:
                s = tf.convert_to_tensor(state)
                tape.watch(s)
                mean = tf.reduce_mean(loss(tf.gather(s, query), {"id": item}, item, training=True))
            g = tf.convert_to_tensor(tape.gradient(mean, s))
            m, v, t = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g, tf.cast(at + 1, tf.float32)
            state.assign_sub(0.02 * (1.0 - t / STEPS) * m / (1.0 - 0.9**t) / (tf.sqrt(v / (1.0 - 0.999**t)) + 1e-8))
            step.assign_add(1)

    train(tf.constant(cells))
    scores, seen = state.numpy(), p * STEPS * BATCH / QUERIES >= 30

    def centred(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([row[kept] - row[kept].mean() for row, kept in zip(x, seen, strict=True)])

    causes = np.stack([centred(np.log(p)), centred(np.log(np.broadcast_to(q, p.shape)))], 1)
    taste, popularity = np.linalg.lstsq(causes, centred(scores), rcond=None)[0]
    assert abs(taste - 1) < 0.1
    best, likeliest = (np.argsort(-x, axis=1)[:, :10] for x in (scores, p))
    overlap = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(best, likeliest, strict=True)])
    return float(popularity), float(overlap)


def test_without_a_correction_popular_items_lose_their_frequency() -> None:
    """They are drawn as negatives more often. The wrong sign would lose 2 log q."""
    popularity, overlap = learned()
    assert popularity < -0.95
    assert overlap < 0.6


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"correct_positive": False},
        {"candidates": "unique"},
        {"candidates": "unique", "correct_positive": False},
        {"uniform_negatives": BATCH},
        {"kind": "sampled_softmax", "negatives": BATCH, "power": 1.0},
        {"log_q": {"kind": "streaming", "initial_interval": 1.0}},
    ],
    ids=str,
)
def test_the_correction_takes_popularity_out_of_the_scores(config: dict[str, Any]) -> None:
    popularity, overlap = learned(**(COUNTED if "kind" not in config else {}) | config)
    print(popularity, overlap)
    assert abs(popularity) < 0.05
    assert overlap >= 0.93
