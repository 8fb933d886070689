"""Losses of retrieval by hand: temperature, correction, accidental hits, the hardest, prefixes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys._compat import tf
from tests.objectives.losses import loss_over, losses_of

ODDS = np.array([[1.0, 2.0, 3.0], [4.0, 1.0, 1.0], [2.0, 2.0, 5.0]], np.float32)
COUNTS = [4, 2, 2]
COUNTED: dict[str, Any] = {"log_q": {"kind": "counts"}}


def losses(odds: NDArray[np.float32], items: tuple[int, ...] = (0, 1, 2), **config: Any) -> tf.Tensor:
    """Where exp(score of query i with the item in row j of the batch) is odds[i, j]: queries are unit vectors."""
    temperature = config.get("temperature", 1.0)
    vectors = np.zeros((1 + max(items), len(odds)), np.float32)
    vectors[list(items)] = temperature * np.log(odds.T)
    return losses_of(loss_over(tf.constant(vectors), **config), np.eye(len(odds)), items)


@pytest.mark.parametrize("temperature", [1.0, 0.05])
def test_by_hand_with_temperature_and_correction(temperature: float) -> None:
    """q = 1/2, 1/4, 1/4, so exp(s) = odds / (3 q): [[2, 8, 12], [8, 4, 4], [4, 8, 20]] / 3. The temperature does not
    divide the correction, and the positive is corrected like the others.
    """
    found = losses(ODDS, counts=COUNTS, temperature=temperature, **COUNTED)
    np.testing.assert_allclose(found, np.log([22 / 2, 16 / 4, 32 / 20]), rtol=1e-4)


def test_by_hand_with_the_others_corrected_alone() -> None:
    """In the other 2 rows they are expected 2 q times: once, a half, a half."""
    found = losses(ODDS, counts=COUNTS, correct_positive=False, **COUNTED)
    np.testing.assert_allclose(found, np.log([(1 + 4 + 6) / 1, (4 + 1 + 2) / 1, (2 + 4 + 5) / 5]), rtol=1e-5)


def test_by_hand_without_correction() -> None:
    np.testing.assert_allclose(losses(ODDS, counts=COUNTS, temperature=0.5), np.log([6, 6, 9 / 5]), rtol=1e-5)


def test_by_hand_with_each_item_once() -> None:
    """Items 0, 1, 0: there with probability 1 - (1 - q)^3, which is 26/27 for q = 2/3 and 19/27 for q = 1/3."""
    odds = np.array([[1.0, 2.0, 1.0], [4.0, 1.0, 4.0], [2.0, 2.0, 2.0]], np.float32)
    there = np.array([26 / 27, 19 / 27])
    found = losses(odds, (0, 1, 0), counts=[4, 2], candidates="unique", **COUNTED)
    zero, one = odds[:, 0] / there[0], odds[:, 1] / there[1]
    np.testing.assert_allclose(found, np.log((zero + one) / [zero[0], one[1], zero[2]]), rtol=1e-5)
    twice = losses(odds, (0, 1, 0))
    assert float(twice[1]) == pytest.approx(np.log(9)), "with duplicates kept, query 1 has item 0 against it twice"
    once = losses(odds, (0, 1, 0), candidates="unique")
    assert float(once[1]) == pytest.approx(np.log(5))


def test_scores_are_inner_products_of_queries_and_items() -> None:
    rng = np.random.default_rng(0)
    query, item = (rng.normal(size=(4, 3)).astype(np.float32) for _ in range(2))
    counts = np.array([5, 1, 2, 9])
    s = query @ item.T / 0.3 - np.log(counts / counts.sum())
    found = losses_of(loss_over(tf.constant(item), counts, temperature=0.3, **COUNTED), query, range(4))
    np.testing.assert_allclose(found, np.log(np.exp(s).sum(1)) - np.diag(s), rtol=1e-4)


EVERY = [
    {},
    COUNTED,
    {"candidates": "unique", **COUNTED},
    {"correct_positive": False, **COUNTED},
    {"hardest": 2},
    {"uniform_negatives": 40, **COUNTED},
    {"mined": {"ranks": [1, 4], "kept": 4, "count": 2}},
    {"kind": "sampled_softmax", "negatives": 40},
    {"kind": "full_softmax"},
    {"kind": "bpr", "negatives": 40},
]


@pytest.mark.parametrize("config", EVERY, ids=str)
def test_an_accidental_hit_has_probability_zero(config: dict[str, Any]) -> None:
    """Rows 0 and 2 of the batch hold one item, and so do draws from a catalogue of 3 items. It scores so high that the
    loss is exactly 0 if no copy of it is a negative, and at least log(1 + 1) if one is; and that row 1, which wants
    another item, has it against it.
    """
    vectors = tf.Variable([[100.0, 100.0], [0.5, 2.0], [0.2, 0.1]])
    loss = loss_over(vectors, counts=[4, 2, 2], users=3, **config)
    if "mined" in config:
        loss.listing.mined.items.assign(tf.constant([[0, 0, 0, 0], [2, 2, 2, 2], [0, 0, 0, 0]]))
    with tf.GradientTape() as tape:
        found = losses_of(loss, [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], (0, 1, 0), user_index=tf.range(3))
        hits = found[0] + found[2]
    assert found[0] == found[2] == 0.0
    np.testing.assert_array_equal(tf.convert_to_tensor(tape.gradient(hits, vectors)), np.zeros((3, 2)))
    assert found[1] > 40.0


@pytest.mark.parametrize("config", EVERY, ids=str)
def test_a_batch_and_catalogue_of_one_item_teach_nothing(config: dict[str, Any]) -> None:
    vectors = tf.Variable([[0.3, -0.2]])
    with tf.GradientTape() as tape:
        found = losses_of(
            loss_over(vectors, users=1, **config), np.ones((3, 2)), (0, 0, 0), user_index=tf.zeros(3, tf.int32)
        )
        loss = tf.reduce_sum(found)
    assert float(loss) == 0.0
    np.testing.assert_array_equal(tf.convert_to_tensor(tape.gradient(loss, vectors)), np.zeros((1, 2)))


def gradient_under(**config: Any) -> NDArray[np.float32]:
    vectors = tf.Variable(np.log(ODDS.T))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(losses_of(loss_over(vectors, **config), np.eye(3), (0, 1, 2)))
    return tf.convert_to_tensor(tape.gradient(loss, vectors)).numpy()


@pytest.mark.parametrize("candidates", ["all", "unique"])
def test_uniform_frequencies_correct_nothing(candidates: str) -> None:
    """Which holds only because the positive is corrected too."""
    plain = gradient_under()
    np.testing.assert_allclose(gradient_under(counts=[7, 7, 7], candidates=candidates, **COUNTED), plain, atol=1e-6)
    assert np.abs(gradient_under(counts=COUNTS, candidates=candidates, **COUNTED) - plain).max() > 0.05


def test_large_scores_do_not_overflow() -> None:
    vectors = tf.constant([[1.0, -1.0], [-1.0, 1.0]])
    right, wrong = (losses_of(loss_over(vectors, temperature=1e-3), sign * np.eye(2), (0, 1)) for sign in (1, -1))
    np.testing.assert_allclose(right, [0.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(wrong, [2000.0, 2000.0], rtol=1e-6)


def test_only_the_hardest_stay() -> None:
    """After the correction, and after accidental hits are gone: of odds / q, [2, 8, 12], [8, 4, 4], [4, 8, 20]."""
    found = losses(ODDS, counts=COUNTS, hardest=1, **COUNTED)
    np.testing.assert_allclose(found, np.log([14 / 2, 12 / 4, 28 / 20]), rtol=1e-5)
    np.testing.assert_allclose(losses(ODDS, hardest=50), losses(ODDS), rtol=1e-6)
    same = np.array([[1.0, 2.0, 1.0], [4.0, 1.0, 4.0], [2.0, 3.0, 2.0]], np.float32)  # rows 0 and 2 hold one item
    np.testing.assert_allclose(losses(same, (0, 1, 0), hardest=1), np.log([3 / 1, 5 / 1, 5 / 2]), rtol=1e-5)


def test_a_temperature_by_popularity() -> None:
    """Counts 1, 1, 4: their geometric mean over events is 4^(4/6); with g = 1 the temperatures are count / that."""
    loss = loss_over(tf.constant(np.log(ODDS.T)), [1, 1, 4], popularity_temperature=1.0, temperature=2.0)
    power = 4 ** (4 / 6) / 2 / np.array([1, 1, 4])
    odds = ODDS ** power[:, np.newaxis]
    np.testing.assert_allclose(losses_of(loss, np.eye(3), (0, 1, 2)), np.log(odds.sum(1) / np.diag(odds)), rtol=1e-5)
    unknown = losses_of(loss_over(tf.eye(2), [0, 0], popularity_temperature=0.5), np.eye(2), (0, 1))
    assert np.all(np.isfinite(unknown))


def test_full_softmax_by_hand() -> None:
    """Items that are in no batch count too."""
    vectors = tf.constant(np.log(np.array([[1.0, 2.0], [4.0, 1.0], [3.0, 7.0], [2.0, 2.0]])), tf.float32)
    found = losses_of(loss_over(vectors, kind="full_softmax"), np.eye(2), (0, 3))
    np.testing.assert_allclose(found, np.log([10 / 1, 12 / 2]), rtol=1e-5)


def test_bpr_by_hand() -> None:
    """Two items, so each example's negatives are copies of the other, but for draws of its own item."""
    vectors = tf.constant([[0.7, -0.2], [0.1, 0.4]])
    found = losses_of(loss_over(vectors, kind="bpr", negatives=9, temperature=0.5), np.eye(2), (0, 1))
    np.testing.assert_allclose(found, np.log1p(np.exp([-(0.7 - 0.1) / 0.5, -(0.4 + 0.2) / 0.5])), rtol=1e-5)


@pytest.mark.parametrize("normalize", [True, False])
def test_prefixes_add_their_losses(normalize: bool) -> None:
    rng = np.random.default_rng(1)
    query, item = (rng.normal(size=(5, 6)).astype(np.float32) for _ in range(2))
    query, item = ((x / np.linalg.norm(x, axis=1, keepdims=True) if normalize else x) for x in (query, item))

    def of(width: int) -> NDArray[np.float32]:
        q, v = query[:, :width], item[:, :width]
        if normalize:
            q, v = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, v))
        s = q @ v.T / 0.3
        return np.log(np.exp(s).sum(1)) - np.diag(s)

    loss = loss_over(tf.constant(item), prefixes=(2, 4), normalize=normalize, temperature=0.3)
    np.testing.assert_allclose(losses_of(loss, query, range(5)), of(2) + of(4) + of(6), rtol=1e-4)
