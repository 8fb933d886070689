"""Input and output vectors: the loss by hand, what is drawn, and a planted shop with things that go together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.data.pairs import Pairs
from recsys.models.config import ComplementsConfig
from recsys.training.complements import DualEmbeddings, DualVectors, dual_vectors

BRANDS, EACH = 6, 5
"""Each brand makes five phones, five cases and five chargers; who buys a phone buys a case of the brand next, then a
charger of it.
"""
KINDS = 3
ITEM = np.arange(KINDS * BRANDS * EACH)
KIND, BRAND = ITEM // (BRANDS * EACH), ITEM // EACH % BRANDS


def config(**changes: Any) -> ComplementsConfig:
    values = {"dim": 16, "window": 1, "negatives": 5, "epochs": 12, "batch_size": 256, "min_count": 3}
    return ComplementsConfig.model_validate(values | changes)


def planted_pairs(users: int = 1_500) -> Pairs:
    rng = np.random.default_rng(0)
    brand = rng.integers(0, BRANDS, users)
    phone, case, charger = (
        (kind * BRANDS * EACH + brand * EACH + rng.integers(0, EACH, users)).astype(np.int32) for kind in range(KINDS)
    )
    return Pairs(np.concatenate([phone, case]), np.concatenate([case, charger]))


@pytest.fixture(scope="module")
def vectors() -> DualVectors:
    return dual_vectors(planted_pairs(), len(ITEM), config(), seed=0)


def best(scores: NDArray[np.floating], count: int = EACH) -> NDArray[np.intp]:
    """[n, count] of each row, without the item itself."""
    scores = scores.copy()
    np.fill_diagonal(scores, -np.inf)
    return np.argsort(-scores, axis=1)[:, :count]


def cosine(x: NDArray[np.floating]) -> NDArray[np.floating]:
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
    return unit @ unit.T


def test_what_goes_with_an_item_is_of_another_kind_and_what_is_like_it_is_not(vectors: DualVectors) -> None:
    buys_next = np.flatnonzero(KIND < 2)
    beside = best(vectors.inputs @ vectors.outputs.T)[buys_next]
    like = best(cosine(vectors.inputs))[buys_next]
    same_kind = (KIND[beside] == KIND[buys_next][:, None]).mean(), (KIND[like] == KIND[buys_next][:, None]).mean()
    assert same_kind[0] < 0.05
    assert same_kind[1] > 0.7
    assert (KIND[beside] == KIND[buys_next][:, None] + 1).mean() > 0.95
    assert (BRAND[beside] == BRAND[buys_next][:, None]).mean() > 0.95


def test_going_together_has_a_direction(vectors: DualVectors) -> None:
    """A case goes with a phone, and no phone with a case."""
    scores = vectors.inputs @ vectors.outputs.T
    phones, cases = np.flatnonzero(KIND == 0), np.flatnonzero(KIND == 1)
    same = BRAND[phones][:, None] == BRAND[cases]
    there, back = scores[np.ix_(phones, cases)][same], scores[np.ix_(cases, phones)].T[same]
    assert (there > back).all()
    assert there.mean() > back.mean() + 0.5


def test_what_is_known_too_little_of(vectors: DualVectors) -> None:
    """Chargers begin no pair, and phones end none."""
    assert (vectors.inputs.any(1) == (KIND < 2)).all()
    assert (vectors.indexed == (KIND > 0)).all()


def test_the_same_seed_gives_the_same_numbers() -> None:
    one, again, other = (dual_vectors(planted_pairs(100), len(ITEM), config(epochs=1), seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.inputs, again.inputs)
    np.testing.assert_array_equal(one.outputs, again.outputs)
    assert np.abs(one.outputs - other.outputs).max() > 1e-3


def test_the_loss_by_hand() -> None:
    """u = (1, 2), v = (3, 0.5): s = 4; negatives score 0 and -1, and the pair's own item among them counts nothing."""
    model = DualEmbeddings(config(dim=2), np.array([1, 1, 1, 1]), seed=0)
    inputs, outputs = model.sides
    inputs.embeddings.assign([[1.0, 2.0], [0, 0], [0, 0], [0, 0]])
    outputs.embeddings.assign([[9.0, 9.0], [3.0, 0.5], [2.0, -1.0], [-1.0, 0.0]])
    found = model.losses(tf.constant([0]), tf.constant([1]), tf.constant([[2, 1, 3]]))
    np.testing.assert_allclose(found, [np.log1p(np.exp(-4)) + np.log(2) + np.log1p(np.exp(-1))], rtol=1e-6)


def test_a_step_moves_the_rows_of_its_pairs_alone() -> None:
    """And negatives are drawn among what ends pairs."""
    ends = np.zeros(1_000, np.int64)
    ends[[7, 8]] = 5
    model = DualEmbeddings(config(), ends, seed=0)
    before = [side.embeddings.numpy() for side in model.sides]
    model.fit(Pairs(np.array([3, 4], np.int32), np.array([7, 7], np.int32)), seed=0)
    moved = [
        np.flatnonzero((side.embeddings.numpy() != old).any(1)).tolist()
        for side, old in zip(model.sides, before, strict=True)
    ]
    assert moved == [[3, 4], [7, 8]]
