"""Items without training events: what content says of them reaches their vectors if ids are dropped in training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from recsys._compat import keras, tf
from recsys.data.catalogue import Catalogue
from recsys.data.dataset import CategoricalInfo, FeatureInfo
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.optimizers import TableOptimizers
from recsys.models.build import make_model
from recsys.models.config import TwoTowerConfig
from recsys.models.two_tower import TwoTower
from recsys.objectives.distillation import Distillation, Teacher

USERS, WARM, COLD, TOPICS = 60, 60, 30, 6
"""User u and item i belong to the topics u and i modulo 6; cold items come last."""
UNKNOWN = 5
"""Ids of values outside the vocabulary, 1 to 5: a hash gives each cold item one of them."""
FEATURES: dict[str, FeatureInfo] = {
    "user": CategoricalInfo(role="user", rows=2 + USERS, oov_rows=1),
    "item": CategoricalInfo(role="item", rows=1 + UNKNOWN + WARM, oov_rows=UNKNOWN),
    "topic": CategoricalInfo(role="item", rows=2 + TOPICS, oov_rows=1),
}
ITEM = np.arange(WARM + COLD, dtype=np.int32)
ITEMS = {
    "item": np.where(ITEM < WARM, 1 + UNKNOWN + ITEM, 1 + ITEM // TOPICS % UNKNOWN).astype(np.int32),
    "topic": (2 + ITEM % TOPICS).astype(np.int32),
}
BATCH = 64


def two_tower(dropout: float, **model: Any) -> TwoTower:
    """Ids are loud and learn fast, content is faint and learns slowly: what ids explain, content need not."""
    slow = {"kind": "lazy_adam", "learning_rate": 0.001}
    embeddings = EmbeddingsConfig.model_validate(
        {
            "tables": {
                "user": {"dim": 8},
                "item": {"dim": 8, "initializer": {"range": 1.0}},
                "topic": {"dim": 8, "optimizer": slow},
            },
            "features": {
                "user": {"table": "user"},
                "item": {"table": "item", "dropout": dropout},
                "topic": {"table": "topic"},
            },
            "optimizer": {"kind": "lazy_adam", "learning_rate": 0.05},
        }
    )
    towers = {"query": {"output_dim": 8}, "item": {"output_dim": 8}}
    config = TwoTowerConfig.model_validate({"kind": "two_tower", **towers, "loss": {"temperature": 0.2}, **model})
    counts = np.where(ITEM < WARM, 10, 0)
    found = make_model(config, embeddings, FEATURES, Catalogue(counts, ITEMS), seed=0)
    assert isinstance(found, TwoTower)
    dense = keras.optimizers.Adam(0.005, epsilon=1e-8, adaptive_epsilon=True, jit_compile=False)
    found.compile(TableOptimizers.of(embeddings), dense, BATCH)
    found.build_from(next(batches(1)))
    return found


def batches(count: int) -> Any:
    rng = np.random.default_rng(0)
    for _ in range(count):
        user = rng.integers(0, USERS, BATCH)
        item = (user % TOPICS + TOPICS * rng.integers(0, WARM // TOPICS, BATCH)).astype(np.int32)
        yield {
            "query": {"user": tf.constant(2 + user, tf.int32)},
            "item": {name: tf.constant(values[item]) for name, values in ITEMS.items()},
            "user_index": tf.constant(user, tf.int32),
            "item_index": tf.constant(item),
            "weight": tf.ones(BATCH),
        }


def train(model: TwoTower, steps: int = 300) -> TwoTower:
    step = tf.function(model.train_step)
    for batch in batches(steps):
        step(batch)
    return model


def share_of_own_topic(model: TwoTower, items: slice) -> float:
    """Of each user's five best among some items, how many are of the user's topic."""
    users = np.arange(USERS)
    vectors = model.item_vectors({name: values[items] for name, values in ITEMS.items()})
    scores = model.query_vectors({"user": (2 + users).astype(np.int32)}) @ vectors.T
    best = ITEM[items][np.argsort(-scores, axis=1)[:, :5]]
    return float((best % TOPICS == users[:, None] % TOPICS).mean())


WARM_ITEMS, COLD_ITEMS = slice(0, WARM), slice(WARM, None)


@pytest.fixture(scope="module")
def plain() -> TwoTower:
    """Ids say all that content could say."""
    return train(two_tower(0.0))


def test_cold_items_are_found_by_content_if_ids_are_dropped(plain: TwoTower) -> None:
    warm, cold, dropped = WARM_ITEMS, COLD_ITEMS, train(two_tower(0.5))
    assert share_of_own_topic(plain, warm) > 0.95
    assert share_of_own_topic(dropped, warm) > 0.95
    assert share_of_own_topic(plain, cold) < 0.6
    assert share_of_own_topic(dropped, cold) > 0.95


def test_a_teacher_makes_content_say_what_events_said(plain: TwoTower) -> None:
    """Without dropping ids. The teacher has met the warm items alone; what it would say of others is garbage."""
    vectors = plain.item_vectors(ITEMS)
    garbage = np.random.default_rng(0).normal(size=vectors.shape).astype(np.float32)
    known = ITEM < WARM
    student = two_tower(0.0, item={"output_dim": 8, "distill": {"teacher": "runs/t", "unknown": ["item"]}})
    student.taught_by(Teacher(np.where(known[:, None], vectors, garbage), known))
    train(student)
    assert share_of_own_topic(student, WARM_ITEMS) > 0.95
    assert share_of_own_topic(student, COLD_ITEMS) > 0.9
    assert share_of_own_topic(plain, COLD_ITEMS) < 0.6
    # It stands where the teacher stands, so queries of the one find items of the other.
    near = student.item_vectors(ITEMS) * vectors
    assert near.sum(1)[known].mean() > 0.9


def test_the_distance_from_a_teacher_by_hand() -> None:
    """The tower gives (id, content). Item 0: id 7, content 1, against (0, 2): with its id 1/√50 of the way, without, as
    unknown value 1, 1/√2. Item 1 is unknown to the teacher.
    """
    teacher = Teacher(np.array([[0, 2], [1, 1]], np.float32), np.array([True, False]))
    loss = Distillation(
        teacher, 3.0, {"id": 1}, lambda item, _: tf.cast(tf.stack([item["id"], item["content"]], 1), tf.float32)
    )
    item = {"id": tf.constant([7, 8]), "content": tf.constant([1, 1])}
    found = loss(item, tf.constant([0, 1]), training=True)
    np.testing.assert_allclose(found, [3 / 2 * (1 - 1 / np.sqrt(50) + 1 - 1 / np.sqrt(2)), 0.0], rtol=1e-6)
