"""Which items an example's own is told from: of the batch, drawn from the catalogue, of the user's ranking."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chisquare

from recsys._compat import tf
from recsys.objectives.listing import Listing
from recsys.objectives.retrieval import RetrievalLoss
from tests.objectives.losses import loss_over

ITEMS = 20
COUNTS = np.array([0] * 5 + [1] * 5 + [4] * 5 + [16] * 5)
"""A quarter of the items has no training event."""
VECTORS = np.arange(ITEMS, dtype=np.float32)[:, np.newaxis]


def made(step: int = 0, **config: Any) -> tuple[RetrievalLoss, tf.Variable]:
    at = tf.Variable(step, dtype=tf.int64)
    return loss_over(tf.constant(VECTORS), COUNTS, users=6, step=at, **config), at


def listed(loss: RetrievalLoss, items: tuple[int, ...] = (7, 9, 7), training: bool = True) -> Listing:
    index = tf.constant(items)
    return loss.listing({"id": index}, index, tf.range(len(items)), training)


def drawn(steps: int, **config: Any) -> NDArray[np.int32]:
    """What the catalogue gave in each step, beside a batch of one."""
    loss, at = made(**config)
    found = []
    for step in range(steps):
        at.assign(step)
        index = listed(loss, (7,)).negatives[0].index.numpy()
        found.append(index[1:] if config.get("kind") is None else index.ravel())
    return np.stack(found)


@pytest.mark.parametrize(
    "config",
    [{"uniform_negatives": 100}, {"kind": "sampled_softmax", "negatives": 100}, {"kind": "bpr", "negatives": 100}],
    ids=str,
)
def test_draws_are_uniform_over_the_catalogue_and_go_by_the_step(config: dict[str, Any]) -> None:
    found = drawn(50, **config)
    assert chisquare(np.bincount(found.ravel(), minlength=ITEMS)).pvalue > 1e-3
    np.testing.assert_array_equal(drawn(50, **config), found)
    assert len(np.unique(found, axis=0)) == 50


def test_draws_by_popularity() -> None:
    found = drawn(50, kind="sampled_softmax", negatives=100, power=0.5)
    share = np.sqrt(COUNTS) / np.sqrt(COUNTS).sum()
    counts = np.bincount(found.ravel(), minlength=ITEMS)
    assert counts[:5].sum() == 0
    assert chisquare(counts[5:], 5000 * share[5:]).pvalue > 1e-3
    (negatives,) = listed(made(kind="sampled_softmax", negatives=100, power=0.5)[0]).negatives
    np.testing.assert_allclose(negatives.log_presence, np.log(100 * share[negatives.index.numpy()]), rtol=1e-5)


def test_vectors_are_those_of_the_items() -> None:
    mined = {"ranks": [1, 4], "kept": 4, "count": 2}
    for config in ({"uniform_negatives": 9, "mined": mined}, {"kind": "bpr", "negatives": 4}, {"kind": "full_softmax"}):
        loss, _ = made(**config)
        if "mined" in config:
            loss.listing.mined.items.assign(np.arange(24).reshape(6, 4) % ITEMS)  # type: ignore[union-attr]
        found = listed(loss)
        np.testing.assert_array_equal(found.positive[:, 0], [7, 9, 7])
        for negatives in found.negatives:
            np.testing.assert_array_equal(negatives.vectors[..., 0], negatives.index)


def test_duplicates_are_listed_as_they_are_or_once() -> None:
    for candidates, expected in (("all", [7, 9, 7]), ("unique", [7, 9])):
        (negatives,) = listed(made(candidates=candidates)[0]).negatives
        np.testing.assert_array_equal(negatives.index, expected)
        np.testing.assert_array_equal(negatives.vectors[:, 0], expected)
    (negatives,) = listed(made(candidates="unique", uniform_negatives=500)[0]).negatives
    np.testing.assert_array_equal(np.sort(negatives.index), np.arange(ITEMS))


def test_frequencies_take_notice_of_training_alone_and_once_a_step() -> None:
    loss, _ = made(log_q={"kind": "streaming", "learning_rate": 0.5}, prefixes=(), uniform_negatives=3)
    interval = loss.listing.frequencies.interval  # type: ignore[union-attr]
    listed(loss, training=False)
    assert np.all(interval.numpy() == 100.0)
    listed(loss, training=True)
    changed = interval.numpy()[interval.numpy() != 100.0]
    np.testing.assert_allclose(np.sort(changed), [25.25] * 4 + [50.5] * 4)  # item 7 twice, item 9 once, by 4 hashes


def test_mined_negatives_are_each_users_own_and_distinct() -> None:
    loss, at = made(mined={"ranks": [1, 10], "kept": 5, "count": 2})
    table = loss.listing.mined.items  # type: ignore[union-attr]
    assert table.shape == (6, 5)
    np.testing.assert_array_equal(listed(loss).negatives[1].index, [[7, 7], [9, 9], [7, 7]])  # none yet: hits
    table.assign([[0, 1, 2, 3, 4], [10, 11, 12, 13, 14], [15, 16, 17, 18, -1], *[[-1] * 5] * 3])
    counts = np.zeros(ITEMS)
    for step in range(60):
        at.assign(step)
        index = listed(loss).negatives[1].index.numpy()
        assert np.all(index[:, 0] != index[:, 1])
        np.add.at(counts, index, 1)
    assert np.all(counts[[0, 1, 2, 3, 4, 10, 11, 12, 13, 14, 15, 16, 17, 18]] > 5)
    assert counts[7] > 5, "the place of the third user's missing one"
    assert counts[[5, 6, 8, 9, 19]].sum() == 0


def test_mined_negatives_are_corrected_for_both_ways_to_be_drawn() -> None:
    """2 of 10 ranks beside 3 q of the batch; without a correction, for none."""
    mined = {"ranks": [1, 10], "kept": 5, "count": 2}
    loss, _ = made(mined=mined, log_q={"kind": "counts"})
    hard = listed(loss).negatives[1]
    share = COUNTS[hard.index.numpy()] / COUNTS.sum()
    np.testing.assert_allclose(hard.log_presence, np.log(3 * share + 0.2), rtol=1e-5)
    assert listed(made(mined=mined)[0]).negatives[1].log_presence == 0.0
