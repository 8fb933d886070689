"""From a batch's features to vectors: every kind of feature at once."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from recsys._compat import tf
from recsys.data.dataset import (
    CategoricalInfo,
    FeatureInfo,
    FingerprintInfo,
    NumericInfo,
    SequenceInfo,
    VectorInfo,
)
from recsys.embeddings.collection import EmbeddingCollection
from recsys.embeddings.config import EmbeddingsConfig

# The history stands before the item feature it repeats, and the schema's order is not the alphabet's.
FEATURES: dict[str, FeatureInfo] = {
    "watched": SequenceInfo(of="movie", max_length=3, age=True),
    "user": CategoricalInfo(role="user", rows=6, oov_rows=1),
    "movie": CategoricalInfo(role="item", rows=5, oov_rows=1),
    "genres": CategoricalInfo(role="item", rows=4, oov_rows=1, max_length=2),
    "price": NumericInfo(role="item", transform="bucketize", mean=0.0, std=1.0, boundaries=(1.0, 2.0)),
    "year": NumericInfo(role="item", transform="standardize", mean=2000.0, std=10.0),
    "tags": FingerprintInfo(role="item", max_length=2),
    "image": VectorInfo(role="item", dim=3),
}
CONFIG = EmbeddingsConfig.model_validate(
    {
        "tables": {"small": {"dim": 2}, "ids": {"dim": 4}, "hashed": {"method": "hashed", "rows": 50, "dim": 3}},
        "features": {
            "movie": {"table": "ids"},
            "watched": {"table": "ids"},
            "user": {"table": "ids"},
            "genres": {"table": "small", "pooling": "sum"},
            "price": {"table": "small"},
            "tags": {"table": "hashed", "pooling": "sqrtn"},
        },
    }
)
WIDTHS = {"watched": 4, "user": 4, "movie": 4, "genres": 2, "price": 2, "year": 1, "tags": 3, "image": 3}
FULL = {
    "image": [[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]],
    "tags": np.array([[2**62 + 1, 5], [7, 0]], np.int64),
    "year": [1990.0, np.nan],
    "price": [1.5, np.nan],
    "genres": [[1, 2], [3, 0]],
    "movie": [1, 4],
    "user": [5, 2],
    "watched.age": [[7200.0, 3600.0, 0.0], [0.0, 0.0, 0.0]],
    "watched": [[4, 2, 0], [0, 0, 0]],
}
MISSING = {
    "watched": np.zeros((2, 3), np.int32),
    "watched.age": np.zeros((2, 3), np.float32),
    "user": np.zeros(2, np.int32),
    "movie": np.zeros(2, np.int32),
    "genres": np.zeros((2, 2), np.int32),
    "price": np.full(2, np.nan, np.float32),
    "year": np.full(2, np.nan, np.float32),
    "tags": np.zeros((2, 2), np.int64),
    "image": np.zeros((2, 3), np.float32),
}

Batch = dict[str, tf.Tensor]


def batch(values: dict[str, object]) -> Batch:
    return {
        name: tf.constant(value, tf.float32) if np.asarray(value).dtype.kind == "f" else tf.constant(value)
        for name, value in values.items()
    }


@pytest.fixture
def collection() -> EmbeddingCollection:
    made = EmbeddingCollection(CONFIG, FEATURES, seed=0)
    made(batch(FULL))
    return made


def test_every_kind_of_feature_by_hand(collection: EmbeddingCollection) -> None:
    found = {name: value.numpy() for name, value in collection(batch(FULL)).items()}
    ids, small = (collection.tables[name].embeddings.numpy() for name in ("ids", "small"))
    # In the table `ids` the movies stand first (row = id), then the users (row = 5 + id); in `small` the genres, then
    # the buckets of the price (4 + id).
    np.testing.assert_array_equal(found["movie"], ids[[1, 4]])
    np.testing.assert_array_equal(found["user"], ids[[5 + 5, 5 + 2]])
    np.testing.assert_allclose(found["genres"], [small[1] + small[2], small[3]], rtol=1e-6)
    np.testing.assert_array_equal(found["price"], small[[4 + 2, 4 + 0]])
    np.testing.assert_allclose(found["year"], [[-1.0], [0.0]])
    np.testing.assert_array_equal(found["image"], FULL["image"])
    weight_2, weight_1 = 3**-0.126928, 2**-0.126928  # (1 + hours)^-softplus(-2)
    history = (weight_2 * ids[4] + weight_1 * ids[2]) / (weight_2 + weight_1)
    np.testing.assert_allclose(found["watched"], [history, np.zeros(4)], rtol=1e-5)
    hashed = collection.tables["hashed"]({"tags": tf.constant(FULL["tags"])})["tags"].numpy()
    np.testing.assert_allclose(found["tags"], [hashed[0].sum(0) / np.sqrt(2), hashed[1, 0]], rtol=1e-6)


def test_widths_are_as_announced(collection: EmbeddingCollection) -> None:
    assert {name: value.shape[1] for name, value in collection(batch(FULL)).items()} == WIDTHS


def test_vectors_come_in_the_schemas_order_whatever_the_batchs(collection: EmbeddingCollection) -> None:
    """Towers concatenate: a served graph that builds its batch in another order must not permute its inputs."""
    for order in (list(FULL), list(FULL)[::-1], sorted(FULL)):
        assert list(collection(batch({name: FULL[name] for name in order}))) == list(FEATURES)


def test_a_part_of_the_features_gives_the_same_vectors(collection: EmbeddingCollection) -> None:
    everything = collection(batch(FULL))
    some = collection(batch({name: FULL[name] for name in ("user", "watched", "watched.age")}))
    assert list(some) == ["watched", "user"]
    for name, value in some.items():
        np.testing.assert_array_equal(value, everything[name])


def test_one_gather_per_table_that_is_read(collection: EmbeddingCollection) -> None:
    def gathers(names: list[str]) -> Counter[str]:
        specs = {name: tf.TensorSpec([None, *value.shape[1:]], value.dtype) for name, value in batch(FULL).items()}
        graph = tf.function(lambda values: collection(values)).get_concrete_function({n: specs[n] for n in names})
        assert not graph.graph.as_graph_def().library.function, "gathers could hide in a nested function"
        found = [op for op in graph.graph.get_operations() if "Gather" in op.type]
        return Counter(op.type for op in found if op.outputs[0].dtype.is_floating)  # not those that place the ids

    assert gathers(list(FULL)) == {"ResourceGather": 3}
    assert gathers(["movie", "user", "watched", "watched.age"]) == {"ResourceGather": 1}
    assert gathers(["year", "image"]) == {}


def test_every_gradient_flows(collection: EmbeddingCollection) -> None:
    variables = collection.trainable_variables
    names = {variable.name for variable in variables}
    assert len(names) == len(variables) == 3 + 1, names
    for name, features in {
        "ids": ["movie", "user", "watched"],
        "small": ["genres", "price"],
        "hashed": ["tags"],
    }.items():
        for feature in features:
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(collection(batch(FULL))[feature])
            gradient = tape.gradient(loss, collection.tables[name].embeddings)
            assert gradient is not None
            assert tf.reduce_sum(tf.abs(gradient.values)) > 0, feature
    decay = next(v for v in variables if "raw_decay" in v.name)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(collection(batch(FULL))["watched"])
    gradient = tape.gradient(loss, decay)
    assert gradient is not None
    assert np.isfinite(gradient)
    assert abs(float(gradient)) > 0


def test_all_missing_is_finite_with_finite_gradients(collection: EmbeddingCollection) -> None:
    with tf.GradientTape() as tape:
        found = collection(batch(MISSING))
        loss = tf.add_n([tf.reduce_sum(value) for value in found.values()])
    for name in ("watched", "genres", "tags", "year", "image"):
        np.testing.assert_array_equal(found[name], np.zeros((2, WIDTHS[name])))
    for name in ("user", "movie", "price"):
        assert np.abs(found[name]).min() > 0, "a missing value is a row of its own, and learns"
    for gradient in tape.gradient(loss, collection.trainable_variables, unconnected_gradients="zero"):
        assert np.isfinite(tf.convert_to_tensor(gradient)).all()


def test_a_batch_without_rows_gives_vectors_without_rows(collection: EmbeddingCollection) -> None:
    empty = {name: value[:0] for name, value in batch(FULL).items()}
    found = collection(empty)
    assert {name: tuple(value.shape) for name, value in found.items()} == {n: (0, width) for n, width in WIDTHS.items()}


def test_one_more_table_leaves_the_others_initial_rows(collection: EmbeddingCollection) -> None:
    raw = CONFIG.model_dump()
    raw["tables"] = {"new": {"dim": 4}, **raw["tables"]}
    raw["features"]["user"] = {"table": "new"}
    other = EmbeddingCollection(EmbeddingsConfig.model_validate(raw), FEATURES, seed=0)
    other(batch(FULL))
    for name in ("small", "hashed"):
        np.testing.assert_array_equal(other.tables[name].embeddings, collection.tables[name].embeddings)
    assert other.tables["ids"].rows == 5


def test_the_sparse_optimizer_gets_the_tables_and_nothing_else(collection: EmbeddingCollection) -> None:
    shapes = sorted(tuple(variable.shape) for variable in collection.table_variables())
    assert shapes == [(8, 2), (11, 4), (50, 3)]
