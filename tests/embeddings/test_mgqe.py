"""Quantised tables: which centroids an id is made of, how rows and centroids learn, how many bytes are served."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys._compat import keras, tf
from recsys.data.dataset import CategoricalInfo, FeatureInfo
from recsys.embeddings.config import EmbeddingsConfig, MGQETable
from recsys.embeddings.mgqe import CodedRows, ServedCodes, head_and_tail
from recsys.embeddings.tables import Table, Vocabularies
from recsys.schema.config import SchemaConfig
from tests.embeddings.saved import looked_up, saved

FEATURES: dict[str, FeatureInfo] = {
    "viewer": CategoricalInfo(role="user", rows=6, oov_rows=1),
    "movie": CategoricalInfo(role="item", rows=5, oov_rows=2),
}
COUNTS = {"viewer": np.array([0, 0, 9, 8, 7, 6]), "movie": np.array([0, 0, 0, 5, 4])}
VOCABULARIES = Vocabularies(COUNTS.__getitem__, lambda name: np.empty(0, object))
# Heads of half a vocabulary: users 0..3 (two are not counted), movies 0..3 (three are not), which are rows 6..9.
TAIL = [False] * 4 + [True] * 2 + [False] * 4 + [True]
BETA = 0.5


def config(**table: object) -> EmbeddingsConfig:
    small = {"dim": 4, "parts": 2, "codes": 5, "tail_codes": 2, "head": 0.5, "commitment": BETA}
    raw = {"method": "mgqe", "initializer": {"range": 1.0}, **small, **table}
    return EmbeddingsConfig.model_validate(
        {"tables": {"t": raw}, "features": {name: {"table": "t"} for name in FEATURES}}
    )


@pytest.fixture
def table() -> Table:
    made = Table("t", config(), FEATURES, VOCABULARIES, seed=0)
    made({"viewer": tf.constant([0])})
    return made


def parts_of(table: Table) -> tuple[CodedRows, tf.Variable, tf.Variable]:
    """The store, its rows, its codebook."""
    store = table.store
    assert isinstance(store, CodedRows)
    return store, store.trained()[0].variable, store.codebook


def codes_by_hand(rows: NDArray[np.float32], codebook: NDArray[np.float32]) -> NDArray[np.int64]:
    """The definition, one row and one part at a time."""
    found = np.zeros((len(rows), 2), int)
    for n, row in enumerate(rows):
        for part in range(2):
            allowed = codebook[part, : 2 if TAIL[n] else 5]
            found[n, part] = np.argmin(((row[2 * part : 2 * part + 2] - allowed) ** 2).sum(1))
    return found


def decoded_by_hand(codes: NDArray[np.int64], codebook: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate([codebook[0][codes[:, 0]], codebook[1][codes[:, 1]]], 1)


def test_where_tails_begin() -> None:
    assert head_and_tail(COUNTS, 0.5).tolist() == [0, 4, 6, 10]
    assert head_and_tail(COUNTS, 0.0).tolist() == [0, 2, 6, 9]
    assert head_and_tail(COUNTS, 1.0).tolist() == [0, 6, 6, 11]
    assert head_and_tail({"x": np.concatenate([[0, 0], np.full(15, 3)])}, 0.1).tolist() == [0, 4]  # 1.5 of 15, up
    assert head_and_tail({"price": np.zeros(4, np.int64), "viewer": COUNTS["viewer"]}, 0.5).tolist() == [0, 4, 4, 8]


def test_every_row_is_made_of_its_nearest_centroids(table: Table) -> None:
    store, rows, codebook = parts_of(table)
    assert rows.shape == (11, 4)
    assert codebook.shape == (2, 5, 2)
    codes = codes_by_hand(rows.numpy(), codebook.numpy())
    assert codes[np.logical_not(TAIL)].max() > 1, "the head must be able to use what the tail may not"
    expected = decoded_by_hand(codes, codebook.numpy())
    groups, _ = table({"viewer": tf.constant([5, 0, 1, 2, 3, 4, 5]), "movie": tf.constant([0, 1, 2, 3, 4, 4, 0])})
    np.testing.assert_array_equal(groups[0].values[:, 0], expected[[5, 0, 1, 2, 3, 4, 5]])
    np.testing.assert_array_equal(groups[0].values[:, 1], expected[6:][[0, 1, 2, 3, 4, 4, 0]])
    served = store.serve()
    assert isinstance(served, ServedCodes)
    np.testing.assert_array_equal(served.codes, codes)


def test_a_tail_row_uses_the_first_codes_however_near_the_others_are(table: Table) -> None:
    _, rows, codebook = parts_of(table)
    rows.assign(tf.ones_like(rows))
    codebook.assign(tf.reshape(tf.repeat([[5.0, 3.0, 2.0, 1.5, 1.0]], 2, 0), [2, 5, 1]) * tf.ones([1, 1, 2]))
    groups, _ = table({"viewer": tf.range(6)})
    assert groups[0].values[:, 0, 0].numpy().tolist() == [1.0, 1.0, 1.0, 1.0, 3.0, 3.0]


def test_no_ids_give_no_vectors_and_no_gradient(table: Table) -> None:
    _, _, codebook = parts_of(table)
    with tf.GradientTape() as tape:
        groups, _ = table({"viewer": tf.zeros([0], tf.int32)})
        loss = tf.reduce_sum(groups[0].values)
    assert groups[0].values.shape == (0, 1, 4)
    np.testing.assert_array_equal(tape.gradient(loss, codebook), tf.zeros_like(codebook))


# User 3 twice, user 5 once, and user 2, from which the loss takes nothing.
READ, UPSTREAM = [3, 5, 3, 2], np.array([[1, 2, 3, 4], [5, 6, 7, 8], [-9, 1, 0, 1], [0, 0, 0, 0]], np.float32)


def gradients(table: Table, calls: int = 1) -> tuple[tf.IndexedSlices, tf.Tensor]:
    _, rows, codebook = parts_of(table)
    with tf.GradientTape() as tape:
        loss = 0.0
        for _ in range(calls):
            groups, _ = table({"viewer": tf.constant(READ)})
            loss += tf.reduce_sum(groups[0].values[:, 0] * UPSTREAM)
    of_rows, of_codebook = tape.gradient(loss, [rows, codebook])
    assert isinstance(of_rows, tf.IndexedSlices)
    assert set(of_rows.indices.numpy().tolist()) == {2, 3, 5}
    return tf.convert_to_tensor(of_rows), of_codebook


def expected_gradients(table: Table, replicas: int = 1) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """By automatic differentiation of the losses as the paper writes them: n = 4 lookups, of which 3 are read."""
    _, rows, codebook = parts_of(table)
    codes = tf.constant(codes_by_hand(rows.numpy(), codebook.numpy()))
    with tf.GradientTape() as tape:
        e = tf.gather(tf.identity(rows), READ)
        chosen = tf.gather(codes, READ)
        c = tf.concat([tf.gather(codebook[part], chosen[:, part]) for part in range(2)], 1)
        straight = e + tf.stop_gradient(c - e)
        used = tf.constant([1.0, 1.0, 1.0, 0.0])[:, tf.newaxis]
        of_codebook = tf.reduce_sum(used * (tf.stop_gradient(e) - c) ** 2) / (4 * replicas)
        of_rows = tf.reduce_sum(used * (e - tf.stop_gradient(c)) ** 2) / (4 * replicas)
        loss = tf.reduce_sum(straight * UPSTREAM) + of_codebook + BETA * of_rows
    found = tape.gradient(loss, [rows, codebook])
    return tf.convert_to_tensor(found[0]).numpy(), tf.convert_to_tensor(found[1]).numpy()


@pytest.mark.parametrize("calls", [1, 2])
def test_gradients_are_those_of_the_papers_losses(table: Table, calls: int) -> None:
    """Straight through for the task, both quantisation losses beside it; two towers' calls add up."""
    for found, expected in zip(gradients(table, calls), expected_gradients(table), strict=True):
        assert np.abs(expected).max() > 0.01
        np.testing.assert_allclose(found, calls * expected, rtol=1e-5, atol=1e-6)


def test_the_quantisation_losses_are_means_over_all_replicas(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: SimpleNamespace(num_replicas_in_sync=2))
    for found, expected in zip(gradients(table), expected_gradients(table, replicas=2), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_codebook_is_not_the_sparse_optimizers(table: Table) -> None:
    store, rows, codebook = parts_of(table)
    assert [(trained.table, trained.variable is rows) for trained in store.trained()] == [("t", True)]
    assert {id(variable) for variable in store.trainable_variables} == {id(rows), id(codebook)}


def test_initial_values_are_a_function_of_the_seed_and_of_one_scale() -> None:
    def values(seed: int) -> list[NDArray[np.float32]]:
        made = Table("t", config(dim=32, codes=256), FEATURES, VOCABULARIES, seed)
        made({"viewer": tf.constant([0])})
        return [variable.numpy() for variable in parts_of(made)[1:]]

    for first, again, other in zip(values(0), values(0), values(1), strict=True):
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)
        assert 0.9 < np.abs(first).max() <= 1.0
    rows, codebook = values(0)
    assert not np.array_equal(rows.ravel()[:100], codebook.ravel()[:100])


def test_learning_keeps_the_codes_in_use() -> None:
    """Rows grow to ten times their initial scale, and the centroids go with them: 64 targets for 1,000 ids."""
    rng = np.random.default_rng(0)
    counts = np.concatenate([[0, 0], np.full(998, 10)])
    table = MGQETable(method="mgqe", dim=8, parts=2, codes=64, tail_codes=64, head=1.0)
    store = CodedRows("t", 1000, table, head_and_tail({"x": counts}, 1.0), seed=0)
    store.build(None)
    centres = rng.normal(0, 0.5, (64, 8)).astype(np.float32)
    targets = centres[rng.integers(0, 64, 1000)]
    optimizer = keras.optimizers.Adam(0.005, jit_compile=False)

    @tf.function
    def step(rows: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(store.lookup(rows) - tf.gather(targets, rows)))
        variables = store.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    for _ in range(1000):
        step(tf.constant(rng.integers(0, 1000, 256), tf.int32))
    served = store.serve()
    assert isinstance(served, ServedCodes)
    in_use = [len(np.unique(served.codes.numpy()[:, part])) for part in range(2)]
    explained = 1 - np.mean((store.lookup(tf.range(1000)) - targets) ** 2) / np.mean(targets**2)
    assert min(in_use) > 32, in_use
    assert explained > 0.9, explained


def test_a_bundle_holds_codes_and_codebook_and_nothing_else(tmp_path: Path) -> None:
    """More rows than are coded at a time; read in another graph."""
    counts = {"x": np.concatenate([[0, 0], np.arange(20_000)[::-1] + 1])}
    table = MGQETable(method="mgqe", dim=16, parts=8, codes=256, tail_codes=64)
    store = CodedRows("t", 20_002, table, head_and_tail(counts, 0.1), seed=0)
    store.build(None)
    served = store.serve()
    assert isinstance(served, ServedCodes)
    assert served.codes.dtype == tf.uint8
    assert served.codes[:2002].numpy().max() > 127, "codes are not signed"
    assert served.codes[2002:].numpy().max() < 64
    assert saved(served, tmp_path / "model") == pytest.approx(20_002 * 8 + 4 * 256 * 16, rel=0.05)
    rows = np.random.default_rng(1).permutation(20_002)[:5000].astype(np.int32)
    np.testing.assert_array_equal(looked_up(tmp_path / "model", rows), store.lookup(rows))


def test_the_config_survives_a_round_trip() -> None:
    made = config()
    assert EmbeddingsConfig.model_validate(made.model_dump(mode="json")) == made


def test_what_does_not_fit_is_said() -> None:
    features = {
        "viewer": {"kind": "categorical", "role": "user"},
        "movie": {"kind": "categorical", "role": "item"},
    }
    schema = SchemaConfig.model_validate({"user": "user_id", "item": "movie_id", "features": features})
    wrong = config(parts=3, tail_codes=6, served_precision="float16")
    assert {key for key, _ in wrong.problems(schema)} == {
        "tables.t.parts",
        "tables.t.tail_codes",
        "tables.t.served_precision",
    }
    assert config().problems(schema) == []
