"""Unified Embedding (Coleman et al. 2023): what makes one table serve all features, and what would only look like it.

Tables are smaller than vocabularies throughout: where every id has a row, nothing here could fail. The study at equal
bytes is benchmarks/unified_embedding.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from recsys._compat import keras, tf
from recsys.data import public
from recsys.data.dataset import CategoricalInfo, FeatureInfo
from recsys.embeddings.collection import EmbeddingCollection
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.optimizers import LazyAdam
from tests.embeddings import golden

GOLDEN = {
    "user_id": [[1033, 961], [10, 123], [369, 311], [1107, 488], [1033, 763]],
    "genres": [[1290, 511], [963, 878], [41, 984], [539, 341], [1251, 495]],
    "movie_id": [[1056, 968], [413, 142], [851, 1163], [651, 771], [1019, 567]],
}
FIRST_TABLE = {"user_id": 0, "movie_id": 0}
VOCABULARY = {"user": 3000, "movie": 2000, "zip": 1500, "age": 1000, "device": 700}


def features(*names: str) -> dict[str, FeatureInfo]:
    return {name: CategoricalInfo(role="item", rows=VOCABULARY[name], oov_rows=1) for name in names}


def unified(
    *names: str, rows: int = 200, dim: int = 4, tables: int = 1, chunks: int | dict[str, int] = 1, seed: int = 0
) -> EmbeddingCollection:
    """One multiplexed table of so many rows, read by the features."""
    number = {name: chunks if isinstance(chunks, int) else chunks.get(name, 1) for name in names}
    config = EmbeddingsConfig.model_validate(
        {
            "tables": {"one": {"method": "multiplexed", "rows": rows, "dim": dim, "tables": tables}},
            "features": {name: {"table": "one", "chunks": number[name]} for name in names},
        }
    )
    made = EmbeddingCollection(config, features(*names), seed)
    made({name: tf.constant([0]) for name in names})
    return made


def table_of(collection: EmbeddingCollection) -> tf.Variable:
    (trained,) = collection.trained()
    return trained.variable


def rows_of(collection: EmbeddingCollection, name: str, ids: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """[n, chunks] the rows that ids read (all ids of the vocabulary, if left out), seen from outside: every row of the
    table holds its own number, so a vector tells its rows.
    """
    ids = np.arange(VOCABULARY[name]) if ids is None else ids
    table = table_of(collection)
    start, dim = table.numpy(), int(table.shape[1])
    table.assign(tf.tile(tf.range(table.shape[0], dtype=tf.float32)[:, tf.newaxis], [1, dim]))
    vectors = collection({name: tf.constant(ids)}).concat().numpy().reshape(len(ids), -1, dim)
    table.assign(start)
    assert (vectors == vectors[:, :, :1]).all(), "a chunk is one whole row, not a part of several"
    return vectors[:, :, 0].astype(np.int64)


# (a) Features may come and go.


def test_more_features_and_another_order_leave_all_other_rows_and_the_number_of_parameters() -> None:
    chunks = {"user": 2, "movie": 1, "zip": 3, "age": 1, "device": 2}
    few = unified("user", "movie", tables=2, chunks=chunks)
    many = unified("zip", "movie", "age", "user", "device", tables=2, chunks=chunks)
    for made in (few, many):
        assert [tuple(weight.shape) for weight in made.weights] == [(2 * 200, 4)], "one variable, whoever reads it"
    np.testing.assert_array_equal(table_of(few), table_of(many))
    for name in ("user", "movie"):
        np.testing.assert_array_equal(rows_of(few, name), rows_of(many, name))
        ids = {name: tf.range(VOCABULARY[name])}
        np.testing.assert_array_equal(few(ids).concat(), many(ids).concat())


def test_more_chunks_leave_the_first_ones_rows() -> None:
    few, many = unified("user", chunks=2), unified("user", chunks=4)
    np.testing.assert_array_equal(rows_of(many, "user")[:, :2], rows_of(few, "user"))


# (b) Rows look random, and differ between features and chunks, but are the same everywhere.


def test_golden_rows() -> None:
    """By a hash written in plain Python: splitmix64 of id xor BLAKE2b of feature and chunk. Stored models rely on them;
    where one changes, all tables trained before are worthless.
    """
    found = golden.rows({"user_id": 2, "genres": 2, "movie_id": 2})
    assert found == GOLDEN
    # In several tables a chunk reads the same row of its own.
    backed = golden.rows({"movie_id": 2, "user_id": 2}, tables=3)
    for name, first in FIRST_TABLE.items():
        expected = [[(first + c) % 3 * 1_318 + row for c, row in enumerate(rows)] for rows in GOLDEN[name]]
        assert backed[name] == expected


def test_a_process_with_another_hash_seed_reads_the_same_rows() -> None:
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(sys.path)}
    script = [sys.executable, str(Path(golden.__file__))]
    out = subprocess.run(script, env=environment, capture_output=True, text=True, check=True).stdout
    assert json.loads(out) == GOLDEN


def test_one_id_of_two_features_or_chunks_reads_one_row_as_often_as_chance_has_it() -> None:
    """Salting is seen by ids alone: a hash that all features share gives 1 here, and costs .005 of AUC."""
    size = 50
    made = unified("user", "movie", "zip", rows=size, chunks=3)
    ids = np.arange(VOCABULARY["zip"])
    columns = [column for name in ("user", "movie", "zip") for column in rows_of(made, name, ids).T]
    assert len(columns) == 9
    spread = np.sqrt(len(ids) / size * (1 - 1 / size))
    for one, other in combinations(columns, 2):
        assert abs((one == other).sum() - len(ids) / size) < 5 * spread
        # Nor is one a shifted copy of the other.
        assert_uniform((one - other) % size, size)


def test_rows_are_filled_evenly_but_no_more_evenly_than_by_chance() -> None:
    """Ids in sequence plus an offset would fill them all alike, and ids would not meet where chance lets them."""
    size = 200
    made = unified(*VOCABULARY, rows=size, chunks={"movie": 2})
    together = []
    for name in VOCABULARY:
        rows = rows_of(made, name)
        for column in rows.T:
            assert_uniform(column, size)
            distinct, expected = len(set(column[:size].tolist())), size * (1 - np.exp(-1))
            assert abs(distinct - expected) < 30, "of as many ids as rows, 37% of the rows stay empty"
        together.append(rows.ravel())
    assert_uniform(np.concatenate(together), size)


def assert_uniform(values: NDArray[np.int64], size: int) -> None:
    """Chi-square within five standard deviations of what chance gives, on both sides."""
    counts = np.bincount(values, minlength=size)
    expected = len(values) / size
    assert len(counts) == size
    assert abs(((counts - expected) ** 2 / expected).sum() - (size - 1)) < 5 * np.sqrt(2 * (size - 1))


def test_chunks_make_ids_distinguishable_that_share_a_row() -> None:
    """Two rows of 200 in an order: 3,000 ids hardly share both. Chunks cut out of one row would share all."""
    rows = rows_of(unified("user", chunks=2), "user")
    pairs = len({tuple(pair) for pair in rows.tolist()})
    assert len(set(rows[:, 0].tolist())) <= 200
    assert pairs > 2850  # 3000 - 3000² / (2 * 40,000) = 2,888 by chance


# (c) Features that meet in a row.


def test_a_row_that_two_features_share_gets_the_gradient_of_both() -> None:
    """Against central differences of the theory's model: Σ_t <E[h_t(x_t)], θ_t> + b, cross-entropy, in float64."""
    made = unified("user", "movie", rows=200, dim=4, chunks={"movie": 2})
    of_user, of_movie = rows_of(made, "user")[:, 0], rows_of(made, "movie")[:, 1]
    user = 17
    movie = int(np.flatnonzero((of_movie == of_user[user]) & (rows_of(made, "movie")[:, 0] != of_user[user]))[0])
    row = int(of_user[user])
    other = np.flatnonzero(of_user != row)[:5]
    batch = {
        "user": tf.constant([user, *other[:3], user], tf.int32),
        "movie": tf.constant([5, movie, 9, movie, movie], tf.int32),
    }
    theta = tf.constant(np.random.default_rng(0).normal(size=12))
    label = tf.constant([1.0, 0.0, 1.0, 1.0, 0.0], tf.float64)
    table = table_of(made)
    table.assign(tf.random.stateless_normal(table.shape, [3, 4]))

    def loss(which: dict[str, tf.Tensor] = batch) -> tf.Tensor:
        logit = tf.linalg.matvec(tf.cast(made(which).concat(), tf.float64), theta)
        return tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(label, logit))

    with tf.GradientTape() as tape:
        value = loss()
    found = tf.convert_to_tensor(tape.gradient(value, made.trained()[0].source)).numpy()[row]
    slopes = []
    start, step = table.numpy(), 2.0**-9
    for k in range(4):
        moved = [start.copy(), start.copy()]
        moved[0][row, k] += step
        moved[1][row, k] -= step
        up, down = (assign_and(table, values, loss) for values in moved)
        slopes.append((up - down) / float(moved[0][row, k] - moved[1][row, k]))
    table.assign(start)
    np.testing.assert_allclose(found, slopes, rtol=2e-4)
    # By the formula, feature by feature: both have their part, along different θ.
    logit = tf.linalg.matvec(tf.cast(made(batch).concat(), tf.float64), theta).numpy()
    error = 1 / (1 + np.exp(-logit)) - label.numpy()
    parts = [
        error[np.isin(batch["user"], np.flatnonzero(of_user == row))].sum() * theta.numpy()[:4],
        error[np.isin(batch["movie"], np.flatnonzero(of_movie == row))].sum() * theta.numpy()[8:],
    ]
    assert min(np.abs(part).min() for part in parts) > 1e-3
    np.testing.assert_allclose(found, parts[0] + parts[1], rtol=1e-4)


def assign_and(table: tf.Variable, values: NDArray[np.float32], loss: object) -> float:
    table.assign(values)
    assert callable(loss)
    return float(loss())


# (f) What is stored.


@pytest.mark.parametrize(("tables", "chunks"), [(1, 1), (2, 3)])
def test_a_reloaded_graph_gives_the_same_logits_from_a_file_of_four_bytes_a_number(
    tables: int, chunks: int, tmp_path: Path
) -> None:
    """The size knows nothing of the vocabularies."""
    rows, dim = 4000, 8
    for names in (("user",), tuple(VOCABULARY)):
        made = unified(*names, rows=rows, dim=dim, tables=tables, chunks=chunks)
        theta = tf.Variable(tf.random.stateless_normal([len(names) * chunks * dim, 1], [1, 2]))
        path = tmp_path / str(len(names))
        save_logits(made, theta, path)
        batch = {name: tf.range(100) for name in names}
        (found,) = tf.saved_model.load(str(path)).signatures["serving_default"](**batch).values()
        np.testing.assert_array_equal(found, made(batch).concat() @ theta)
        size = sum(file.stat().st_size for file in (path / "variables").glob("variables.data-*"))
        assert abs(size / (4 * tables * rows * dim) - 1) < 0.05


def save_logits(made: EmbeddingCollection, theta: tf.Variable, path: Path) -> None:
    served = made.serve()
    graph = tf.function(lambda batch: made(batch, served=served).concat() @ theta, autograph=False)
    specs = {name: tf.TensorSpec([None], tf.int32, name) for name in made.config.features}
    module = tf.Module()
    module.serve = graph.get_concrete_function(specs)
    module.read = list(module.serve.variables)
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.serve})


# (e) What lets features share rows.


@dataclass(frozen=True)
class Clicks:
    """Examples of several features: ids [n, F] and a label [n]."""

    ids: NDArray[np.int32]
    label: NDArray[np.float32]

    @cached_property
    def features(self) -> dict[str, FeatureInfo]:
        sizes = self.ids.max(0) + 1
        return {f"f{t}": CategoricalInfo(role="item", rows=int(size), oov_rows=1) for t, size in enumerate(sizes)}


@pytest.fixture(scope="module")
def planted() -> Clicks:
    """20,000 examples, frequent ids first; each id has an effect of its own on the odds."""
    rng = np.random.default_rng(0)
    sizes = (1000, 500, 200, 50)
    ids = np.stack([2 + (size * rng.random(20_000) ** 2).astype(np.int32) for size in sizes], 1)
    odds = sum(rng.normal(size=size + 2)[ids[:, f]] for f, size in enumerate(sizes))
    return Clicks(ids, (rng.random(20_000) < 1 / (1 + np.exp(-odds))).astype(np.float32))


def movielens(count: int) -> Clicks:
    """So many ratings of MovieLens-1M, by chance: 1 and 2 against 4 and 5, with the study's six features."""
    files = public.tables("movielens-1m")
    assert files.users is not None
    ratings, users = pd.read_parquet(files.events[0]), pd.read_parquet(files.users[0])
    table = ratings[ratings["rating"] != 3].sample(count, random_state=0).merge(users, on="user_id")
    names = ("user_id", "movie_id", "gender", "age", "occupation", "zip")
    ids = np.stack([2 + pd.factorize(table[name])[0] for name in names], 1).astype(np.int32)
    return Clicks(ids, (table["rating"] >= 4).to_numpy(np.float32))


def angle_after_training(clicks: Clicks, table: dict[str, object], epochs: int, rate: float) -> float:
    """Mean angle in degrees between the features' weights in the theory's model Σ_t <E[h_t(x_t)], θ_t> + b; 0 at the
    start.
    """
    names, dim = list(clicks.features), int(str(table["dim"]))
    config = {"tables": {"t": table}, "features": {name: {"table": "t"} for name in names}}
    made = EmbeddingCollection(EmbeddingsConfig.model_validate(config), clicks.features, seed=0)
    made({name: tf.constant([0]) for name in names})
    theta, bias = tf.Variable(tf.fill([len(names), dim], dim**-0.5)), tf.Variable(0.0)
    (trained,) = made.trained()
    sparse = LazyAdam(rate)
    dense = keras.optimizers.Adam(rate, epsilon=1e-8, adaptive_epsilon=True, jit_compile=False)
    sparse.build([trained.variable])
    dense.build([theta, bias])
    ids, label = tf.constant(clicks.ids), tf.constant(clicks.label)

    @tf.function
    def train(order: tf.Tensor) -> None:
        for rows in order:
            x = tf.ensure_shape(tf.gather(ids, rows), [500, len(names)])
            with tf.GradientTape() as tape:
                fields = made({name: x[:, t] for t, name in enumerate(names)}).fields()
                logit = tf.einsum("btd,td->b", fields, theta) + bias
                losses = tf.nn.sigmoid_cross_entropy_with_logits(tf.gather(label, rows), logit)
                loss = tf.reduce_mean(losses)
            to_table, *others = tape.gradient(loss, [trained.source, theta, bias])
            sparse.apply_gradients([(to_table, trained.variable)])
            dense.apply_gradients(zip(others, [theta, bias], strict=True))

    rng = np.random.default_rng(1)
    for _ in range(epochs):
        train(tf.constant(rng.permutation(len(clicks.label)).reshape(-1, 500)))
    directions = tf.math.l2_normalize(theta, 1).numpy()
    cosines = (directions @ directions.T)[np.triu_indices(len(names), 1)]
    return float(np.degrees(np.arccos(np.clip(cosines, -1, 1))).mean())


def test_features_turn_away_from_each_other_the_more_the_more_they_collide(planted: Clicks) -> None:
    """All weights start in one direction. Gradients that meet in a row come along them: features that share it learn to
    read other directions of it. In parts of their own, of as many rows, they need not.
    """
    crowded = angle_after_training(planted, {"method": "multiplexed", "rows": 40, "dim": 8}, 4, 0.01)
    roomy = angle_after_training(planted, {"method": "multiplexed", "rows": 800, "dim": 8}, 4, 0.01)
    apart = angle_after_training(planted, {"method": "hashed", "rows": 40, "dim": 8}, 4, 0.01)
    # 89, 62 and 30 degrees.
    assert crowded > 60
    assert crowded > roomy + 10
    assert crowded > apart + 10


@pytest.mark.usefixtures("data_dir")
def test_and_do_so_on_movielens() -> None:
    """100,000 ratings, 5 epochs: 71 and 54 degrees."""
    clicks = movielens(100_000)
    small, large = (
        angle_after_training(clicks, {"method": "multiplexed", "rows": rows, "dim": 30}, 5, 0.005)
        for rows in (1_365, 10_000)
    )
    assert large > 30
    assert small > large + 10
