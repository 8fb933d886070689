"""The two-tower model: what it learns, what a step touches, what repeats."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys._compat import keras, tf
from recsys.data.catalogue import Catalogue
from recsys.data.prepared import Prepared
from recsys.data.reader import Examples
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.optimizers import TableOptimizers
from recsys.models.base import Batch
from recsys.models.build import make_model
from recsys.models.config import TwoTowerConfig
from recsys.models.two_tower import TwoTower
from tests.worlds import EMBEDDINGS

BATCH = 64
WITH_LAYERS = {"query": {"hidden": [16], "output_dim": 8}, "item": {"hidden": [16], "output_dim": 8}}


ADAM = {"kind": "lazy_adam", "learning_rate": 0.02}


def two_tower(world: Prepared, seed: int = 0, optimizer: dict[str, Any] = ADAM, **config: Any) -> TwoTower:
    """Compiled and built."""
    embeddings = EmbeddingsConfig.model_validate(EMBEDDINGS | {"optimizer": optimizer})
    model = make_model(
        TwoTowerConfig.model_validate({"kind": "two_tower", **WITH_LAYERS, **config}),
        embeddings,
        world.info.features,
        Catalogue.of(world),
        seed,
    )
    assert isinstance(model, TwoTower)
    dense = keras.optimizers.Adam(0.01, epsilon=1e-8, adaptive_epsilon=True, jit_compile=False)
    model.compile(TableOptimizers.of(embeddings), dense, BATCH)
    model.build_from(Examples(world, "train", BATCH, seed=0).sample())
    return model


def batch(world: Prepared, size: int = BATCH, seed: int = 0) -> Batch:
    return next(iter(Examples(world, "train", size, seed).batches(0)))


def permuted(features: Batch) -> Batch:
    return {name: features[name] for name in sorted(features, reverse=True)}


def share_of_own_parity(model: TwoTower, world: Prepared, query: dict[str, NDArray]) -> float:
    """How many of each user's 15 best items (of 15 + 15) have the user's parity; chance gives a half."""
    items = model.item_vectors(world.item_features)
    scores = model.query_vectors(query) @ items.T
    best = np.argsort(-scores, axis=1)[:, :15]
    users = world.held_out("test").user_index
    return float((best % 2 == users[:, None] % 2).mean())


def train(model: TwoTower, world: Prepared, epochs: int) -> None:
    examples = Examples(world, "train", BATCH, seed=0)

    @tf.function
    def step(inputs: Batch) -> None:
        model.train_step(inputs)

    for epoch in range(epochs):
        for inputs in examples.batches(epoch):
            step(inputs)


def test_it_learns_who_likes_what(world: Prepared) -> None:
    model = two_tower(world)
    query = dict(world.held_out("test").query)
    assert 0.35 < share_of_own_parity(model, world, query) < 0.65
    train(model, world, epochs=15)
    assert share_of_own_parity(model, world, query) > 0.95
    # The history alone, of a user never seen, tells the taste: pooling and the shared table have learned too.
    unknown = {**query, "user_id": np.zeros_like(query["user_id"])}
    assert share_of_own_parity(model, world, unknown) > 0.85


def test_vectors_have_length_one_or_their_own(world: Prepared) -> None:
    for normalize in (True, False):
        model, query = two_tower(world, normalize=normalize), batch(world)["query"]
        for vectors in (model.query_vectors(query), model.item_vectors(world.item_features)):
            lengths = np.linalg.norm(vectors, axis=1)
            assert vectors.shape[1] == 8
            assert np.allclose(lengths, 1.0, rtol=1e-5) == normalize
        np.testing.assert_allclose(model.query_vectors(query), model.query_tower(query), rtol=1e-5, atol=1e-7)


def test_blocks_change_no_vector(world: Prepared) -> None:
    model = two_tower(world)
    whole = model.item_tower.vectors(world.item_features)
    np.testing.assert_allclose(model.item_tower.vectors(world.item_features, block=7), whole, rtol=1e-5, atol=1e-7)
    assert len(np.unique(whole, axis=0)) == 30
    none = {name: column[:0] for name, column in world.item_features.items()}
    assert model.item_vectors(none).shape == (0, 8)


def test_the_order_of_a_batchs_features_changes_no_vector(world: Prepared) -> None:
    """A served graph builds its batch in the schema's order, the reader with histories after the user's features."""
    model, inputs = two_tower(world), batch(world)
    for tower, features in ((model.query_tower, inputs["query"]), (model.item_tower, inputs["item"])):
        np.testing.assert_array_equal(tower(permuted(features)), tower(features))


def test_each_feature_reaches_its_tower(world: Prepared) -> None:
    model, inputs = two_tower(world), batch(world)
    for tower, features in ((model.query_tower, inputs["query"]), (model.item_tower, inputs["item"])):
        for name, value in features.items():
            changed = {
                **features,
                name: tf.reverse(value, [0]) * 2 if value.dtype.is_floating else tf.reverse(value, [0]),
            }
            assert np.abs(tower(changed) - tower(features)).max() > 1e-5, name


def test_initial_weights_and_a_trained_run_repeat_bitwise(world: Prepared) -> None:
    def weights(seed: int, epochs: int) -> list[NDArray[np.float32]]:
        tf.random.set_seed(np.random.default_rng().integers(1 << 30))
        query = {"hidden": [16], "output_dim": 8, "dropout": 0.2}
        model = two_tower(world, seed, query=query)
        train(model, world, epochs)
        return [variable.numpy() for variable in model.trainable_variables]

    for epochs in (0, 1):
        for one, again in zip(weights(0, epochs), weights(0, epochs), strict=True):
            np.testing.assert_array_equal(one, again)
    other = zip(weights(0, 0), weights(1, 0), strict=True)
    assert all(not np.array_equal(a, b) for a, b in other if a.ndim == 2)


def test_the_loss_is_the_weighted_mean_over_the_global_batch(world: Prepared) -> None:
    model, inputs = two_tower(world), batch(world)
    losses = model.example_losses(inputs, training=False)
    weight = tf.constant(np.random.default_rng(0).uniform(0, 2, BATCH), tf.float32)
    found = model.compute_loss({**inputs, "weight": weight})
    np.testing.assert_allclose(found, np.sum(weight * losses) / BATCH, rtol=1e-5)
    np.testing.assert_allclose(model.loss_metric.result(), found, rtol=1e-5)
    # A replica that holds half of the batch adds its share of the global mean.
    half = batch(world, BATCH // 2)
    np.testing.assert_allclose(
        model.compute_loss(half), np.sum(model.example_losses(half, training=False)) / BATCH, rtol=1e-5
    )


def test_a_query_of_weight_zero_teaches_nothing(world: Prepared) -> None:
    """Its item stays among the others' candidates."""
    model, inputs = two_tower(world), batch(world)
    weight = tf.tensor_scatter_nd_update(inputs["weight"], [[5]], [0.0])
    other = {**inputs["query"], "user_id": tf.tensor_scatter_nd_update(inputs["query"]["user_id"], [[5]], [1])}

    def gradients(query: Batch) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = model.compute_loss({**inputs, "query": query, "weight": weight})
        return [tf.convert_to_tensor(g) for g in tape.gradient(loss, model.trainable_variables)]

    for one, changed in zip(gradients(inputs["query"]), gradients(other), strict=True):
        np.testing.assert_allclose(one, changed, rtol=1e-4, atol=1e-8)


def test_log_q_is_the_share_of_the_training_events(world: Prepared) -> None:
    """The loss with correction, from the model's own vectors and the counts of the training part, in numpy."""
    model, inputs = two_tower(world, loss={"temperature": 0.2}), batch(world)
    query, item = model.query_tower(inputs["query"]).numpy(), model.item_tower(inputs["item"]).numpy()
    index = inputs["item_index"].numpy()
    q = np.asarray(world.train_count) / np.sum(world.train_count)
    scores = query.astype(np.float64) @ item.T / 0.2 - np.log(q[index])
    hits = (index[:, None] == index) & ~np.eye(BATCH, dtype=bool)
    assert hits.any()
    expected = np.log(np.where(hits, 0.0, np.exp(scores)).sum(1)) - np.diag(scores)
    np.testing.assert_allclose(model.example_losses(inputs, training=False), expected, rtol=1e-4)


def test_items_without_training_events_keep_the_loss_finite(world: Prepared) -> None:
    embeddings = EmbeddingsConfig.model_validate(EMBEDDINGS)
    config = TwoTowerConfig.model_validate({"kind": "two_tower", **WITH_LAYERS})
    model = TwoTower(config, embeddings, world.info.features, Catalogue(np.zeros(30)))
    assert np.isfinite(model.example_losses(batch(world), training=False)).all()


@pytest.mark.parametrize("kind", ["lazy_adam", "rowwise_adagrad", "adagrad"])
def test_a_step_moves_the_rows_looked_up_alone(world: Prepared, kind: str) -> None:
    model = two_tower(world, optimizer={"kind": kind})
    train(model, world, epochs=1)  # every row that occurs has a momentum now
    users, ids = (model.embeddings.tables[name].store.embeddings for name in ("user", "ids"))
    before = users.numpy(), ids.numpy()
    inputs = batch(world, 8, seed=5)
    model.train_step(inputs)
    assert_moved(before[0], users.numpy(), set(inputs["query"]["user_id"].numpy().tolist()))
    movies = {*inputs["item"]["movie_id"].numpy().tolist(), *inputs["query"]["history"].numpy().ravel().tolist()}
    assert_moved(before[1], ids.numpy(), movies - {0})


def assert_moved(before: NDArray[np.float32], after: NDArray[np.float32], expected: set[int]) -> None:
    moved = set(np.flatnonzero((before != after).any(1)).tolist())
    assert moved == expected
    assert len(expected) < len(before) - 3


def test_a_step_trains_every_variable_and_counts(world: Prepared) -> None:
    model = two_tower(world)
    before = [variable.numpy() for variable in model.trainable_variables]
    for _ in range(2):
        logs = model.train_step(batch(world))
    assert np.isfinite(logs["loss"])
    for old, variable in zip(before, model.trainable_variables, strict=True):
        assert not np.array_equal(old, variable.numpy()), variable.name
    assert int(model.global_step) == 2
    assert int(model.table_optimizers.optimizer_of("ids").iterations) == int(model.optimizer.iterations) == 2


def test_sizes(world: Prepared) -> None:
    tables = 32 * 8 + 42 * 8 + 16 * 4
    # Query: user 8, device 4, history 8; item: movie 8, genres 4, price 1; two layers each, and the decay of ages.
    dense = (20 * 16 + 16 + 16 * 8 + 8) + (13 * 16 + 16 + 16 * 8 + 8) + 1
    expected = {"table_parameters": tables, "dense_parameters": dense, "table_bytes": 4 * tables}
    assert two_tower(world).sizes() == expected


def test_a_model_without_dense_weights_trains(world: Prepared) -> None:
    """One table per tower and nothing else: matrix factorisation."""
    features = {name: world.info.features[name] for name in ("user_id", "movie_id")}
    config = {"tables": {"t": {"dim": 8}}, "features": {"user_id": {"table": "t"}, "movie_id": {"table": "t"}}}
    embeddings = EmbeddingsConfig.model_validate(config)
    model = TwoTower(TwoTowerConfig(kind="two_tower"), embeddings, features, Catalogue.of(world))
    model.compile(TableOptimizers.of(embeddings), keras.optimizers.Adam(jit_compile=False), BATCH)
    inputs = batch(world)
    model.build_from(inputs)
    assert model.dense_variables() == []
    losses = [float(tf.reduce_mean(model.example_losses(inputs, training=False)))]
    for _ in range(20):
        model.train_step(inputs)
    losses.append(float(tf.reduce_mean(model.example_losses(inputs, training=False))))
    assert losses[1] < losses[0]


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_stays_close_to_float32(world: Prepared, policy: str) -> None:
    """Ages of days overflow float16, so they must not be cast; what comes out is float32."""
    inputs = batch(world)
    expected = two_tower(world).query_tower(inputs["query"])
    keras.mixed_precision.set_global_policy(policy)
    try:
        model = two_tower(world)
        found = model.query_tower(inputs["query"])
        assert np.isfinite(model.train_step(inputs)["loss"])
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, expected, atol=0.05)
