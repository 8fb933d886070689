"""Self-supervised regularisation: its views, its items, and what planted twins tell of its masks."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chisquare

from recsys._compat import keras, tf
from recsys.data.catalogue import Catalogue
from recsys.data.dataset import CategoricalInfo, FeatureInfo
from recsys.data.prepared import Prepared
from recsys.embeddings.collection import EmbeddingCollection
from recsys.embeddings.config import EmbeddingsConfig
from recsys.models.config import TowerConfig
from recsys.models.two_tower import Tower, TwoTower
from recsys.objectives.config import SSLConfig
from recsys.objectives.ssl import SSLRegularizer
from tests.models.test_two_tower import batch, two_tower
from tests.worlds import write_world

TWINS = ["a", "a2", "b", "b2", "c", "c2"]


class Items:
    """A tower over categorical features of made-up items, and its regulariser."""

    def __init__(self, columns: NDArray[np.int32], dim: int, tower: dict[str, Any], **config: Any) -> None:
        names = TWINS[: columns.shape[1]]
        infos: dict[str, FeatureInfo] = {
            name: CategoricalInfo(role="item", rows=int(columns.max()) + 1, oov_rows=1) for name in names
        }
        tables = {name: {"dim": dim} for name in names}
        embeddings = EmbeddingsConfig.model_validate(
            {"tables": tables, "features": {name: {"table": name} for name in names}}
        )
        self.catalogue = Catalogue(np.ones(len(columns)), dict(zip(names, columns.T.copy(), strict=True)))
        self.step = tf.Variable(0, trainable=False, dtype=tf.int64)
        collection = EmbeddingCollection(embeddings, infos, 0)
        self.tower = Tower(TowerConfig.model_validate(tower), True, collection, 0, self.step, "item_tower")
        self.tower(self.catalogue.features(tf.range(2)))
        self.ssl = SSLRegularizer(
            SSLConfig.model_validate(config), self.catalogue, self.tower, collection.layout("item"), infos, 0, self.step
        )
        self.weights = [*self.tower.trainable_variables, *self.ssl.trainable_variables]


def held_out_loss(augmentation: str, steps: int) -> float:
    """Three pairs of features that tell all of each other: mean L_self of 2,048 items in batches of 256, over all masks
    that can be drawn, after training on uniform items from a catalogue so large that none is met twice.
    """
    half = np.stack(np.meshgrid(*[np.arange(100)] * 3, indexing="ij"), -1).reshape(-1, 3)
    permutation = np.random.default_rng(5).permutation(100)
    columns = np.stack([half, permutation[half]], -1).reshape(-1, 6).astype(np.int32) + 2
    items = Items(
        columns, 16, {"hidden": [128], "output_dim": 32}, augmentation=augmentation, temperature=0.1, batch_size=256
    )
    optimizer = keras.optimizers.Adam(3e-3, epsilon=1e-8, jit_compile=False)
    optimizer.build(items.weights)
    index = tf.range(256)

    @tf.function
    def run() -> None:
        for _ in tf.range(steps):
            with tf.GradientTape() as tape:
                loss = items.ssl(items.catalogue.features(index), index)
            gradients = [tf.convert_to_tensor(g) for g in tape.gradient(loss, items.weights)]
            optimizer.apply_gradients(zip(gradients, items.weights, strict=True))
            items.step.assign_add(1)

    @tf.function
    def measure(index: tf.Tensor, masked: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(items.ssl.losses(items.catalogue.features(index), index, masked))

    run()
    if augmentation == "random":
        masks = [np.isin(np.arange(6), chosen) for chosen in combinations(range(6), 3)]
    else:
        masks = list(items.ssl._groups.numpy())
        assert sorted(mask.sum() for mask in masks) == [4] * 6
        assert all(mask[0] == mask[1] and mask[2] == mask[3] and mask[4] == mask[5] for mask in masks)
    held_out = np.random.default_rng(9).integers(0, len(columns), (8, 256)).astype(np.int32)
    losses = [measure(tf.constant(b), tf.constant(np.stack([m, ~m]))) for m in masks for b in held_out]
    return float(np.mean(losses))


def test_random_masks_leave_a_twin_and_correlated_ones_do_not() -> None:
    """A random half always splits one pair at least, so that one view tells of the other; correlated masks keep pairs
    together, so that nothing is left to tell, and the loss stays at that of guessing.
    """
    assert held_out_loss("random", 800) < 2.0
    assert abs(held_out_loss("correlated", 500) - np.log(256)) < 0.02


def distinct(count: int = 40) -> NDArray[np.int32]:
    return np.random.default_rng(0).integers(2, 12, (count, 5)).astype(np.int32)


def test_the_loss_by_hand() -> None:
    """Views whose vectors are what is left of the concatenation: no layers, learned vectors in place of what is masked.
    Item 3 stands there twice, and is no negative of itself.
    """
    items = Items(distinct(), 2, {}, augmentation="random", temperature=0.5)
    index = tf.constant([3, 8, 3, 1])
    features = items.catalogue.features(index)
    masked = np.array([True, False, True, False, False])
    whole = items.tower.concatenated(features).numpy()
    columns = np.repeat(masked, 2)
    assert items.ssl.defaults is not None
    one, other = (np.where(at, items.ssl.defaults.numpy(), whole) for at in (columns, ~columns))
    one, other = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (one, other))
    odds = np.exp(one @ other.T / 0.5)
    counts = np.array([[1, 1, 0, 1], [1, 1, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]])
    expected = np.log((odds * counts).sum(1) / np.diag(odds))
    found = items.ssl.losses(features, index, tf.constant(np.stack([masked, ~masked])))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_without_augmentation_it_only_spreads_vectors_out() -> None:
    """The views are one: a vector is at cosine 1 to itself, whatever the layers drop. Trained, cosines go to 0."""
    items = Items(distinct(200), 4, {"hidden": [16], "output_dim": 8, "dropout": 0.5}, augmentation="none")
    assert items.ssl.masks() is None
    assert items.ssl.defaults is None
    index = tf.range(64)
    one, other = items.ssl._views(items.catalogue.features(index), None, True)
    np.testing.assert_array_equal(one, other)
    spread = items.tower(items.catalogue.features(index)).numpy()
    optimizer = keras.optimizers.Adam(0.01, jit_compile=False)

    @tf.function
    def run() -> None:
        for _ in tf.range(200):
            with tf.GradientTape() as tape:
                loss = items.ssl(items.catalogue.features(index), index)
            gradients = [tf.convert_to_tensor(g) for g in tape.gradient(loss, items.weights)]
            optimizer.apply_gradients(zip(gradients, items.weights, strict=True))
            items.step.assign_add(1)

    optimizer.build(items.weights)
    run()
    trained = items.tower(items.catalogue.features(index)).numpy()
    assert np.abs(trained @ trained.T).mean() < np.abs(spread @ spread.T).mean()


def test_masks_are_complementary_and_go_by_the_step() -> None:
    for augmentation, sizes in (("random", {2}), ("correlated", {3})):
        items = Items(distinct(), 2, {}, augmentation=augmentation)
        found = []
        for step in range(60):
            items.step.assign(step)
            masks = items.ssl.masks()
            np.testing.assert_array_equal(masks, items.ssl.masks())
            one, other = masks.numpy()
            np.testing.assert_array_equal(one, ~other)
            found.append(tuple(one))
        assert {sum(mask) for mask in found} == sizes
        assert len(set(found)) == (
            10 if augmentation == "random" else len({tuple(g) for g in items.ssl._groups.numpy()})
        )


def test_an_id_stands_outside_the_groups_and_goes_to_either_view() -> None:
    columns = np.concatenate([np.arange(40)[:, np.newaxis] + 2, distinct()], 1).astype(np.int32)
    items = Items(columns, 2, {}, augmentation="correlated")
    items.catalogue.ids = ("a",)
    layout = [(name, 2) for name in TWINS]
    infos = {name: CategoricalInfo(role="item", rows=50, oov_rows=1) for name in TWINS}
    outside = SSLRegularizer(SSLConfig(), items.catalogue, items.tower, layout, infos, 0, items.step)
    assert not outside._groups.numpy()[:, 0].any()
    assert outside._groups.shape == (5, 6)
    masked = []
    for step in range(40):
        items.step.assign(step)
        masked.append(outside.masks().numpy()[0, 0])
    assert 8 < sum(masked) < 32
    inside = SSLRegularizer(SSLConfig(ids="normalized"), items.catalogue, items.tower, layout, infos, 0, items.step)
    assert inside._groups.numpy()[0, 0]


def test_items_are_uniform_over_the_catalogue() -> None:
    """Whatever the training examples hold: nothing is known here of how often anybody had them."""
    items = Items(distinct(50), 2, {}, augmentation="random", batch_size=500)
    drawn = []
    original = items.ssl.losses

    def spy(item: Any, index: tf.Tensor, *more: Any) -> tf.Tensor:
        drawn.append(index.numpy())
        np.testing.assert_array_equal(item["a"], items.catalogue.columns["a"][index])
        return original(item, index, *more)

    items.ssl.losses = spy  # type: ignore[method-assign]
    some = tf.constant([1, 1, 1, 2])
    for step in range(5):
        items.step.assign(step)
        items.ssl(items.catalogue.features(some), some)
    assert chisquare(np.bincount(np.concatenate(drawn), minlength=50)).pvalue > 1e-3
    assert len(np.unique(np.stack(drawn), axis=0)) == 5


def test_training_items_are_the_control() -> None:
    items = Items(distinct(50), 2, {}, augmentation="random", items="training")
    some = tf.constant([1, 1, 7, 2])
    expected = tf.reduce_mean(items.ssl.losses(items.catalogue.features(some), some, items.ssl.masks(), True))
    np.testing.assert_allclose(items.ssl(items.catalogue.features(some), some), expected, rtol=1e-6)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(write_world(tmp_path_factory.mktemp("world") / "prepared"))


SSL = {"augmentation": "random", "weight": 0.3, "value_dropout": 0.3}


def test_values_of_sets_are_dropped_in_each_view_by_itself(world: Prepared) -> None:
    model = two_tower(world, ssl=SSL)
    assert model.ssl is not None
    features = model.ssl._catalogue.features(tf.tile(tf.range(30), [20]))
    dropped = {name: column.numpy() for name, column in model.ssl._without_some_values(features).items()}
    np.testing.assert_array_equal(dropped["movie_id"], np.tile(features["movie_id"], 2))
    there = np.tile(features["genres"].numpy() != 0, (2, 1))
    kept = dropped["genres"] != 0
    assert not kept[~there].any()
    assert kept[there].mean() == pytest.approx(0.7, abs=0.03)
    one, other = np.split(kept, 2)
    assert (one != other)[there[:600]].mean() == pytest.approx(2 * 0.3 * 0.7, abs=0.03)


def test_it_teaches_nothing_but_items(world: Prepared) -> None:
    """The gradient by what queries alone read is none; the items' layers and tables have one, and so do defaults."""
    model = two_tower(world, ssl=SSL)
    inputs = batch(world)
    with tf.GradientTape() as tape:
        loss = model.regularization(inputs)
    weights = {weight.name: weight for weight in model.trainable_variables}
    gradients = dict(zip(weights, tape.gradient(loss, list(weights.values())), strict=True))
    touched = {name for name, g in gradients.items() if g is not None and np.any(tf.convert_to_tensor(g))}
    of_queries = {
        name for name in weights if any(part in name for part in ("query_tower_mlp", "table_user", "age_decay"))
    }
    assert len(of_queries) == 6
    assert not touched & of_queries
    assert {name for name in weights if "item_tower" in name and "kernel" in name} <= touched
    assert any("ssl_defaults" in name for name in touched)


def weights_of(model: TwoTower) -> dict[str, NDArray[np.float32]]:
    return {weight.name: tf.convert_to_tensor(weight).numpy() for weight in model.trainable_variables}


def test_a_weight_of_zero_is_no_regulariser_bit_for_bit(world: Prepared) -> None:
    trained = []
    for config in ({}, {"ssl": SSL | {"weight": 0.0}}):
        model = two_tower(world, item={"hidden": [16], "output_dim": 8, "dropout": 0.2}, **config)
        for seed in range(3):
            model.train_step(batch(world, seed=seed))
        trained.append(weights_of(model))
    plain, zero = trained
    assert plain.keys() == zero.keys()
    for name, weight in plain.items():
        np.testing.assert_array_equal(zero[name], weight)


def test_it_is_added_with_its_weight_and_logged_without(world: Prepared) -> None:
    model, plain = two_tower(world, ssl=SSL), two_tower(world)
    inputs = batch(world)
    both, alone = model.compute_loss(inputs, training=True), plain.compute_loss(inputs, training=True)
    logs = model.training_logs()
    assert float(both) == pytest.approx(float(alone) + 0.3 * logs["ssl_loss"], rel=1e-5)
    assert logs["loss"] == pytest.approx(float(alone), rel=1e-5)
    assert "ssl_loss" not in plain.training_logs()
