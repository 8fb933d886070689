"""Query towers over histories: examples alone and in windows are one model; what is served is what was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from recsys._compat import keras, tf
from recsys.data.catalogue import Catalogue
from recsys.data.prepared import Prepared
from recsys.data.reader import Examples
from recsys.data.sequences import Sequences
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.optimizers import TableOptimizers
from recsys.models.build import make_model
from recsys.models.config import TwoTowerConfig
from recsys.models.history import Moments
from recsys.models.two_tower import TwoTower
from recsys.training.warm_start import Known, warm_start
from tests.worlds import EMBEDDINGS, write_world

KEPT = {**EMBEDDINGS, "features": {**EMBEDDINGS["features"], "history": {"table": "ids", "pooling": "none"}}}
ENCODERS: dict[str, dict[str, Any]] = {
    "attention_pooling": {"kind": "attention_pooling"},
    "gru": {"kind": "gru", "units": 6},
    "transformer": {"kind": "transformer", "heads": 2, "dropout": 0.1},
}
TOWER = {"hidden": [16], "output_dim": 8}


def two_tower(world: Prepared, sequence: dict[str, Any], per_step: float = 64, learning_rate: float = 0.01) -> TwoTower:
    optimizer = {"kind": "lazy_adam", "learning_rate": learning_rate}
    embeddings = EmbeddingsConfig.model_validate(KEPT | {"optimizer": optimizer})
    config = {"kind": "two_tower", "query": {**TOWER, "sequence": sequence}, "item": TOWER}
    model = make_model(
        TwoTowerConfig.model_validate(config), embeddings, world.info.features, Catalogue.of(world), seed=0
    )
    assert isinstance(model, TwoTower)
    dense = keras.optimizers.Adam(learning_rate / 2, epsilon=1e-8, adaptive_epsilon=True, jit_compile=False)
    model.compile(TableOptimizers.of(embeddings), dense, per_step)
    model.build_from(Sequences(world, 2, 0).sample())
    return model


def scattered(model: TwoTower, seed: int = 1) -> None:
    """Every dense weight away from where it starts."""
    rng = np.random.default_rng(seed)
    for weight in model.dense_variables():
        weight.assign_add(rng.normal(size=weight.shape, scale=0.2))


def windows(world: Prepared) -> dict[str, Any]:
    (batch,) = Sequences(world, 1, None).once()
    return tf.nest.map_structure(tf.constant, batch)


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_state_in_a_window_is_that_of_the_example_by_itself(tmp_path: Path, kind: str) -> None:
    """Users with no more events than a window holds: whatever is one pass over the window is one pass for each example.
    A transformer's places are counted from the window's end, so there without them.
    """
    world = Prepared(write_world(tmp_path / "world", users=20, per_user=6))
    model = two_tower(world, ENCODERS[kind])
    scattered(model)
    if kind == "transformer":
        places = model.query_tower._history._encoder.places
        places.assign(tf.zeros_like(places))
    batch = windows(world)
    flat = model._by_example(batch)
    found = model.query_tower.at_moments(flat["query"], flat["moments"]).numpy()
    users = tf.gather(batch["user_index"], flat["moments"].row).numpy()
    parts = list(Examples(world, "train", 1, None, positives_only=True).once())
    examples = tf.nest.map_structure(lambda *each: np.concatenate(each), *parts)
    expected = model.query_tower(examples["query"]).numpy()
    assert len(found) == len(expected) == 80
    keys = np.stack([users, flat["item_index"], flat["query"]["device"]], 1)
    own = np.stack([examples["user_index"], examples["item_index"], examples["query"]["device"]], 1)
    order, other = np.lexsort([*found.T.round(3), *keys.T]), np.lexsort([*expected.T.round(3), *own.T])
    np.testing.assert_array_equal(keys[order], own[other])
    np.testing.assert_allclose(found[order], expected[other], rtol=1e-4, atol=1e-5)
    assert len(np.unique(found.round(4), axis=0)) > 60


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_newest_state_is_what_is_served(world: Prepared, kind: str) -> None:
    """The place of a window's last example is that of a served history of as many events, a transformer's too."""
    model = two_tower(world, ENCODERS[kind])
    scattered(model)
    batch = windows(world)
    full = np.flatnonzero((batch["place"].numpy().max(1) == 4) & (batch["query"]["history"].numpy() > 0).all(1))
    flat = model._by_example(batch)
    found = model.query_tower.at_moments(flat["query"], flat["moments"]).numpy()
    rows, places = (each.numpy() for each in flat["moments"])
    device = flat["query"]["device"].numpy()
    assert len(full) > 10
    for row in full:
        at = np.flatnonzero((rows == row) & (places == 4))[-1]
        request = {
            "user_id": batch["query"]["user_id"].numpy()[[row]],
            "history": batch["query"]["history"].numpy()[[row]],
            "device": device[[at]],
        }
        np.testing.assert_allclose(model.query_vectors(request)[0], found[at], rtol=1e-4, atol=1e-5)


def test_the_loss_of_windows_is_the_mean_over_their_examples(world: Prepared) -> None:
    sequences = Sequences(world, 8, 0)
    model = two_tower(world, ENCODERS["gru"], sequences.examples_per_step)
    batch = next(iter(sequences.batches(0)))
    losses = model.example_losses(batch, training=False)
    assert losses.shape == [np.sum(batch["place"].numpy() >= 0)]
    weight = tf.constant(np.random.default_rng(0).uniform(0, 2, batch["weight"].shape), tf.float32)
    kept = weight[batch["place"] >= 0]
    expected = np.sum(kept * losses) / sequences.examples_per_step
    np.testing.assert_allclose(model.compute_loss({**batch, "weight": weight}), expected, rtol=1e-5)


def test_padding_teaches_nothing(world: Prepared) -> None:
    model = two_tower(world, ENCODERS["transformer"])
    batch = next(iter(Sequences(world, 8, 0).batches(0)))
    empty = batch["place"] < 0
    filled = {**batch, "item_index": tf.where(empty, 3, batch["item_index"]), "weight": tf.where(empty, 9.0, 1.0)}
    np.testing.assert_allclose(model.compute_loss(filled), model.compute_loss(batch), rtol=1e-6)


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_warm_start_takes_over_the_encoder(world: Prepared, kind: str) -> None:
    """Every dense weight, and so the vectors of whoever asks."""
    earlier, new = two_tower(world, ENCODERS[kind]), two_tower(world, ENCODERS[kind])
    scattered(earlier)
    query = world.held_out("test").query
    expected = earlier.query_vectors(query)
    assert np.abs(new.query_vectors(query) - expected).max() > 1e-2
    taken = warm_start(Known(new, world.vocabulary), Known(earlier, world.vocabulary))
    assert not taken.fresh
    assert not taken.parts
    assert len(taken.whole) == len(new.dense_variables())
    np.testing.assert_array_equal(new.query_vectors(query), expected)


def test_those_without_a_history_have_a_vector_that_is_learned(world: Prepared) -> None:
    model = two_tower(world, ENCODERS["gru"])
    batch = next(iter(Sequences(world, 8, 0).batches(0)))
    unknown = model.query_tower._history.unknown
    before = unknown.numpy()
    assert np.any(batch["place"].numpy() == 0)
    model.train_step(batch)
    assert np.abs(unknown.numpy() - before).min() > 0


def test_a_missing_event_at_the_end_is_padding_when_served(world: Prepared) -> None:
    model = two_tower(world, ENCODERS["transformer"])
    scattered(model)
    query = {name: values[:1] for name, values in world.held_out("test").query.items()}
    batch = {**query, "history": tf.constant([[5, 7, 0, 9]])}

    def after(events: int) -> NDArray[np.float32]:
        moments = Moments(tf.constant([0]), tf.constant([events]))
        return model.query_tower.at_moments(batch, moments).numpy()

    np.testing.assert_array_equal(after(3), after(2))
    assert np.abs(after(4) - after(2)).max() > 1e-3


@pytest.mark.parametrize("kind", ENCODERS)
def test_it_learns_an_order_that_pooling_cannot_see(tmp_path: Path, kind: str) -> None:
    """What comes next depends on the newest event alone; the mean over the window hardly knows which that is."""
    world = Prepared(chain_world(tmp_path / "world"))
    sequences = Sequences(world, 32, seed=0)
    config = {**ENCODERS[kind], "dropout": 0.0} if kind != "attention_pooling" else ENCODERS[kind]
    model = two_tower(world, config, sequences.examples_per_step, learning_rate=0.03)
    step = tf.function(model.train_step)
    for epoch in range(20):
        for batch in sequences.batches(epoch):
            step(batch)
    held_out = world.held_out("test")
    scores = model.query_vectors(held_out.query) @ model.item_vectors(world.item_features).T
    assert (scores.argmax(1) == held_out.relevant.values).mean() > 0.8


def chain_world(path: Path, users: int = 96, items: int = 20, per_user: int = 9) -> Path:
    """Each event is a fixed permutation of the one before it, which has one cycle."""
    write_world(path, users=users, items=items, per_user=per_user)
    rng = np.random.default_rng(0)
    cycle = rng.permutation(items)
    start = rng.integers(0, items, users)
    item = cycle[(start[:, None] + 7 * np.arange(per_user)) % items].astype(np.int32)
    folder = path / "events"
    (events,) = folder.iterdir()
    _replace(events, "item_index", item.ravel())
    for name, part in {"train": range(per_user - 2), "valid": [per_user - 2], "test": [per_user - 1]}.items():
        (file,) = (path / name).iterdir()
        pq.write_table(
            pa.table(
                {
                    "user_index": np.repeat(np.arange(users, dtype=np.int32), len(part)),
                    "item_index": item[:, list(part)].ravel(),
                    "label": np.ones(users * len(part), np.float32),
                    "weight": np.ones(users * len(part), np.float32),
                    "time": np.tile(np.array(part, np.int64), users),
                    "history_stop": (np.arange(users)[:, None] * per_user + np.array(part)).ravel(),
                    "device": rng.integers(1, 4, users * len(part)).astype(np.int32),
                }
            ),
            file,
        )
    _replace(events, "time", np.tile(np.arange(per_user, dtype=np.int64), users))
    return path


def _replace(file: Path, name: str, values: NDArray[Any]) -> None:
    table = pq.read_table(file)
    pq.write_table(table.set_column(table.schema.get_field_index(name), name, pa.array(values)), file)
