"""In-batch softmax: by hand, its gradients, and what it does against popularity."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.objectives.config import InBatchSoftmaxConfig
from recsys.objectives.in_batch_softmax import in_batch_softmax

DISTINCT = tf.constant([7, 8, 9])


def losses(
    scores: tf.Tensor,
    log_q: object = (0.0, 0.0, 0.0),
    index: tf.Tensor = DISTINCT,
    temperature: float = 1.0,
    correct: bool = True,
) -> tf.Tensor:
    """Of a matrix of inner products: the queries are unit vectors, so that items are its columns."""
    return in_batch_softmax(
        InBatchSoftmaxConfig(temperature=temperature, log_q=correct),
        tf.eye(scores.shape[0]),
        tf.transpose(scores),
        index,
        tf.constant(log_q, tf.float32),
    )


ODDS = tf.constant([[1.0, 2.0, 3.0], [4.0, 1.0, 1.0], [2.0, 2.0, 5.0]])
Q = [0.5, 0.25, 0.25]


@pytest.mark.parametrize("temperature", [1.0, 0.05])
def test_by_hand_with_temperature_and_correction(temperature: float) -> None:
    """exp(score / temperature) = odds, so exp(s) = odds / q: [[2, 8, 12], [8, 4, 4], [4, 8, 20]]. The temperature does
    not divide the correction, and the positive is corrected like the others.
    """
    found = losses(temperature * tf.math.log(ODDS), np.log(Q), temperature=temperature)
    np.testing.assert_allclose(found, np.log([22 / 2, 16 / 4, 32 / 20]), rtol=1e-4)


def test_by_hand_without_correction() -> None:
    found = losses(0.5 * tf.math.log(ODDS), np.log(Q), temperature=0.5, correct=False)
    np.testing.assert_allclose(found, np.log([6 / 1, 6 / 1, 9 / 5]), rtol=1e-5)


def test_scores_are_inner_products_of_queries_and_items() -> None:
    rng = np.random.default_rng(0)
    query, item = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    log_q = np.log(rng.dirichlet(np.ones(4)))
    s = query @ item.T / 0.3 - log_q
    expected = np.log(np.exp(s).sum(1)) - np.diag(s)
    found = in_batch_softmax(
        InBatchSoftmaxConfig(temperature=0.3),
        *(tf.constant(x, tf.float32) for x in (query, item)),
        tf.range(4),
        tf.constant(log_q, tf.float32),
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_an_accidental_hit_has_probability_zero_and_gets_no_gradient() -> None:
    """Rows 0 and 2 hold the same item: neither is a negative of the other, however high it scores; row 1 has both."""
    scores = tf.Variable(tf.math.log([[1.0, 2.0, 1e9], [4.0, 1.0, 1.0], [1e9, 2.0, 5.0]]))
    with tf.GradientTape() as tape:
        found = losses(scores, index=tf.constant([7, 8, 7]))
        loss = tf.reduce_sum(found)
    np.testing.assert_allclose(found, np.log([3 / 1, 6 / 1, 7 / 5]), rtol=1e-5)
    gradient = tape.gradient(loss, scores).numpy()
    assert gradient[0, 2] == 0.0
    assert gradient[2, 0] == 0.0
    np.testing.assert_allclose(gradient[1], [4 / 6, 1 / 6 - 1, 1 / 6], rtol=1e-5)


def test_a_batch_of_one_item_teaches_nothing_and_stays_finite() -> None:
    scores = tf.Variable(tf.random.stateless_normal([3, 3], [0, 0]))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(losses(scores, index=tf.constant([7, 7, 7])))
    assert float(loss) == 0.0
    np.testing.assert_array_equal(tape.gradient(loss, scores), np.zeros((3, 3)))


def gradient_under(log_q: object, correct: bool = True) -> NDArray[np.float32]:
    scores = tf.Variable(tf.math.log(ODDS))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(losses(scores, log_q, correct=correct))
    return tape.gradient(loss, scores).numpy()


def test_uniform_frequencies_correct_nothing() -> None:
    """Which holds only because the positive is corrected too."""
    plain = gradient_under((0.0, 0.0, 0.0), correct=False)
    for constant in (0.0, -3.0, -12.0):
        np.testing.assert_allclose(gradient_under((constant,) * 3), plain, atol=1e-6)
    assert np.abs(gradient_under(np.log(Q)) - plain).max() > 0.05


def test_large_scores_do_not_overflow() -> None:
    found = losses(tf.constant([[1.0, -1.0], [-1.0, 1.0]]), (0.0, 0.0), tf.constant([1, 2]), temperature=1e-3)
    np.testing.assert_allclose(found, [0.0, 0.0], atol=1e-6)
    found = losses(tf.constant([[-1.0, 1.0], [1.0, -1.0]]), (0.0, 0.0), tf.constant([1, 2]), temperature=1e-3)
    np.testing.assert_allclose(found, [2000.0, 2000.0], rtol=1e-6)


def learned(correct: bool, queries: int = 10, items: int = 100, steps: int = 4000) -> NDArray[np.float64]:
    """(coefficient of log P, coefficient of log q) in the scores S that training from S = 0 ends at, where P(item |
    query) is known and q is its mean over the queries. Only cells seen at least 30 times are regressed: others have
    not converged.
    """
    rng, batch = np.random.default_rng(0), 128
    p = np.exp(-np.log(np.arange(1, items + 1)) + rng.normal(size=(queries, items)))
    p /= p.sum(1, keepdims=True)
    q = np.broadcast_to(p.mean(0), p.shape)
    cells = rng.choice(p.size, size=(steps, batch), p=(p / queries).ravel()).astype(np.int32)
    log_q, config = tf.constant(np.log(q[0]), tf.float32), InBatchSoftmaxConfig(temperature=1.0, log_q=correct)

    @tf.function
    def train(cells: tf.Tensor) -> tf.Tensor:
        s, m, v = (tf.zeros([queries, items]) for _ in range(3))
        for step in tf.range(steps):
            query, item = cells[step] // items, cells[step] % items
            with tf.GradientTape() as tape:
                tape.watch(s)
                loss = tf.reduce_mean(
                    in_batch_softmax(config, tf.gather(s, query), tf.one_hot(item, items), item, tf.gather(log_q, item))
                )
            g = tf.convert_to_tensor(tape.gradient(loss, s))
            m, v, t = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g, tf.cast(step + 1, tf.float32)
            s -= 0.02 * (1.0 - t / steps) * m / (1.0 - 0.9**t) / (tf.sqrt(v / (1.0 - 0.999**t)) + 1e-8)
        return s

    seen = p * steps * batch / queries >= 30

    def centred(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([row[kept] - row[kept].mean() for row, kept in zip(x, seen, strict=True)])

    causes = np.stack([centred(np.log(p)), centred(np.log(q))], 1)
    return np.linalg.lstsq(causes, centred(train(tf.constant(cells)).numpy()), rcond=None)[0]


def test_the_correction_takes_popularity_out_of_the_scores() -> None:
    """Without it, popular items are drawn as negatives more often and lose log q; the wrong sign would lose 2 log q."""
    taste, popularity = learned(correct=False)
    assert abs(taste - 1) < 0.1
    assert popularity < -0.95
    taste, popularity = learned(correct=True)
    assert abs(taste - 1) < 0.1
    assert abs(popularity) < 0.05
