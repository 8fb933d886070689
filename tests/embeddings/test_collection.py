"""From a batch's features to vectors: every kind of feature at once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

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
from recsys.embeddings.hashing import hash_rows, salt
from recsys.embeddings.rows import FloatRows
from recsys.schema.config import SchemaConfig

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
SCHEMA = SchemaConfig.model_validate(
    {
        "user": "u",
        "item": "i",
        "timestamp": "t",
        "features": {
            "watched": {"kind": "sequence", "of": "movie", "max_length": 3, "age": True},
            "user": {"kind": "categorical", "role": "context"},
            "movie": {"kind": "categorical", "role": "item"},
            "genres": {"kind": "multi_valued", "role": "item", "max_length": 2},
            "price": {"kind": "numeric", "role": "item", "transform": "bucketize"},
            "year": {"kind": "numeric", "role": "item"},
            "tags": {"kind": "multi_valued", "role": "item", "max_length": 2, "encoding": {"kind": "hash"}},
            "image": {"kind": "vector", "role": "item", "dim": 3},
        },
    }
)
CONFIG = EmbeddingsConfig.model_validate(
    {
        "tables": {"small": {"dim": 2}, "ids": {"dim": 4}, "hashed": {"method": "multiplexed", "rows": 50, "dim": 3}},
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
FULL: dict[str, Any] = {
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
MISSING: dict[str, Any] = {
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


def batch(values: dict[str, Any]) -> Batch:
    return {
        name: tf.constant(value, tf.float32) if np.asarray(value).dtype.kind == "f" else tf.constant(value)
        for name, value in values.items()
    }


def collection_with(features: dict[str, dict[str, Any]] | None = None, **tables: dict[str, Any]) -> EmbeddingCollection:
    """Built, from `CONFIG` with these entries changed."""
    raw = CONFIG.model_dump()
    for name, entry in (features or {}).items():
        raw["features"][name] = {**raw["features"].get(name, {}), **entry}
    raw["tables"] |= tables
    made = EmbeddingCollection(EmbeddingsConfig.model_validate(raw), FEATURES, seed=0)
    made(batch(FULL))
    return made


@pytest.fixture
def collection() -> EmbeddingCollection:
    return collection_with()


def rows_of(collection: EmbeddingCollection, table: str) -> NDArray[np.float32]:
    store = collection.tables[table].store
    assert isinstance(store, FloatRows)
    return store.embeddings.numpy()


def test_every_kind_of_feature_by_hand(collection: EmbeddingCollection) -> None:
    found = {name: value.numpy() for name, value in collection(batch(FULL)).vectors().items()}
    ids, small, hashed = (rows_of(collection, name) for name in ("ids", "small", "hashed"))
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
    one, two, three = hash_rows(tf.constant([2**62 + 1, 5, 7]), tf.constant([salt("tags", 0)], tf.int64), 50).numpy()
    np.testing.assert_allclose(found["tags"], [(hashed[one] + hashed[two]) / np.sqrt(2), hashed[three]], rtol=1e-6)


def test_widths_are_as_announced(collection: EmbeddingCollection) -> None:
    embedded = collection(batch(FULL))
    assert {name: value.shape[1] for name, value in embedded.vectors().items()} == WIDTHS
    assert embedded.layout() == list(WIDTHS.items())
    assert SCHEMA.features.keys() == WIDTHS.keys()
    assert {name: CONFIG.width(name, feature) for name, feature in SCHEMA.features.items()} == WIDTHS


def test_widths_with_chunks_projections_and_sequences_are_as_the_config_announces() -> None:
    """Towers are checked against these before any data are read."""
    changes: dict[str, dict[str, Any]] = {
        "tags": {"chunks": 3},
        "watched": {"pooling": "none"},
        "image": {"projection": 5},
    }
    made = collection_with(changes)
    raw = CONFIG.model_dump()
    for name, entry in changes.items():
        raw["features"][name] = {**raw["features"].get(name, {}), **entry}
    config = EmbeddingsConfig.model_validate(raw)
    assert config.problems(SCHEMA) == []
    announced = {name: config.width(name, feature) for name, feature in SCHEMA.features.items()}
    assert announced == {**WIDTHS, "tags": 9, "watched": 0, "image": 5}
    embedded = made(batch(FULL))
    assert dict(embedded.layout()) == {name: width for name, width in announced.items() if width}
    assert embedded.sequences.keys() == {"watched"}


def test_vectors_come_in_the_schemas_order_whatever_the_batchs(collection: EmbeddingCollection) -> None:
    """Towers concatenate: a served graph that builds its batch in another order must not permute its inputs."""
    expected = collection(batch(FULL)).concat()
    for order in (list(FULL), list(FULL)[::-1], sorted(FULL)):
        embedded = collection(batch({name: FULL[name] for name in order}))
        assert list(embedded.vectors()) == [name for name, _ in embedded.layout()] == list(FEATURES)
        np.testing.assert_array_equal(embedded.concat(), expected)
    np.testing.assert_array_equal(expected, np.concatenate(list(collection(batch(FULL)).vectors().values()), 1))


def test_a_part_of_the_features_gives_the_same_vectors(collection: EmbeddingCollection) -> None:
    everything = collection(batch(FULL)).vectors()
    some = collection(batch({name: FULL[name] for name in ("user", "watched", "watched.age")})).vectors()
    assert list(some) == ["watched", "user"]
    for name, value in some.items():
        np.testing.assert_array_equal(value, everything[name])


def operations(collection: EmbeddingCollection, names: list[str]) -> list[tf.Operation]:
    """Of the graph that embeds these features."""
    specs = {name: tf.TensorSpec([None, *value.shape[1:]], value.dtype) for name, value in batch(FULL).items()}
    graph = tf.function(lambda values: collection(values).concat())
    concrete = graph.get_concrete_function({name: specs[name] for name in names})
    nested = [node.op for function in concrete.graph.as_graph_def().library.function for node in function.node_def]
    assert not [op for op in nested if "Gather" in op or "Hash" in op], "only the check of ids may stand in a branch"
    found: list[tf.Operation] = concrete.graph.get_operations()
    return found


def test_one_gather_per_table_that_is_read(collection: EmbeddingCollection) -> None:
    def gathers(names: list[str]) -> Counter[str]:
        found = [op for op in operations(collection, names) if "Gather" in op.type]
        return Counter(op.type for op in found if op.outputs[0].dtype.is_floating)  # not those that place the ids

    assert gathers(list(FULL)) == {"ResourceGather": 3}
    assert gathers(["movie", "user", "watched", "watched.age"]) == {"ResourceGather": 1}
    assert gathers(["year", "image"]) == {}


@pytest.mark.parametrize("method", ["full", "multiplexed"])
def test_more_features_add_no_operations(method: str) -> None:
    """One hash, one offset, one check and one gather for all features of a table; a loop over them would add its body
    for each.
    """

    def count(number: int, width: int | None) -> int:
        names = [f"f{n}" for n in range(number)]
        table = {"method": method, "dim": 4} | ({} if method == "full" else {"rows": 50})
        config = EmbeddingsConfig.model_validate(
            {"tables": {"t": table}, "features": {name: {"table": "t", "pooling": "mean"} for name in names}}
        )
        infos = {name: CategoricalInfo(role="item", rows=9, oov_rows=1, max_length=width) for name in names}
        made = EmbeddingCollection(config, infos, seed=0)
        shape = [None] if width is None else [None, width]
        made({name: tf.ones([2, *shape[1:]], tf.int32) for name in names})
        graph = tf.function(lambda values: made(values).fields())
        specs = {name: tf.TensorSpec(shape, tf.int32) for name in names}
        operations = graph.get_concrete_function(specs).graph.get_operations()
        return len([op for op in operations if op.type not in ("Placeholder", "Const")])

    assert count(26, None) == count(3, None) < 60


def test_every_gradient_flows(collection: EmbeddingCollection) -> None:
    variables = collection.trainable_variables
    names = {variable.name for variable in variables}
    assert len(names) == len(variables) == 3 + 1, names
    for name, features in {
        "ids": ["movie", "user", "watched"],
        "small": ["genres", "price"],
        "hashed": ["tags"],
    }.items():
        (trained,) = collection.tables[name].trained()
        for feature in features:
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(collection(batch(FULL)).vectors()[feature])
            gradient = tape.gradient(loss, trained.source)
            assert gradient is not None
            assert tf.reduce_sum(tf.abs(gradient.values)) > 0, feature
    decay = next(v for v in variables if "raw_decay" in v.name)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(collection(batch(FULL)).vectors()["watched"])
    gradient = tape.gradient(loss, decay)
    assert gradient is not None
    assert np.isfinite(gradient)
    assert abs(float(gradient)) > 0


def test_all_missing_is_finite_with_finite_gradients(collection: EmbeddingCollection) -> None:
    with tf.GradientTape() as tape:
        found = collection(batch(MISSING)).vectors()
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
    assert {name: tuple(value.shape) for name, value in found.vectors().items()} == {
        n: (0, width) for n, width in WIDTHS.items()
    }
    assert found.concat().shape == (0, sum(WIDTHS.values()))


def test_one_more_table_leaves_the_others_initial_rows(collection: EmbeddingCollection) -> None:
    raw = CONFIG.model_dump()
    raw["tables"] = {"new": {"dim": 4}, **raw["tables"]}
    raw["features"]["user"] = {"table": "new"}
    other = EmbeddingCollection(EmbeddingsConfig.model_validate(raw), FEATURES, seed=0)
    other(batch(FULL))
    for name in ("small", "hashed"):
        np.testing.assert_array_equal(rows_of(other, name), rows_of(collection, name))
    assert other.tables["ids"].store.rows == 5


def test_the_sparse_optimizer_gets_the_tables_and_nothing_else(collection: EmbeddingCollection) -> None:
    shapes = sorted((trained.table, *trained.variable.shape) for trained in collection.trained())
    assert shapes == [("hashed", 50, 3), ("ids", 11, 4), ("small", 8, 2)]


def test_a_sequence_keeps_its_values_with_a_mask() -> None:
    """`pooling: none`: what layers that read sequences need; it stands in no concatenation."""
    made = collection_with({"watched": {"pooling": "none"}, "tags": {"pooling": "none", "chunks": 2}})
    embedded = made(batch(FULL))
    assert [name for name, _ in embedded.layout()] == ["user", "movie", "genres", "price", "year", "image"]
    assert embedded.sequences.keys() == {"watched", "tags"}
    watched, tags = embedded.sequences["watched"], embedded.sequences["tags"]
    assert watched.mask.numpy().tolist() == [[True, True, False], [False, False, False]]
    assert tags.mask.numpy().tolist() == [[True, True], [True, False]]
    assert watched.mask.dtype == tf.bool
    ids, hashed = rows_of(made, "ids"), rows_of(made, "hashed")
    np.testing.assert_array_equal(watched.values[0, :2], ids[[4, 2]])
    assert watched.values.shape == (2, 3, 4)
    value = tf.constant([2**62 + 1, 5])[:, tf.newaxis]
    salts = tf.constant([salt("tags", 0), salt("tags", 1)], tf.int64)
    expected = hashed[hash_rows(value, salts, 50).numpy()].reshape(2, 6)
    np.testing.assert_array_equal(tags.values[0], expected)
    assert not [v for v in made.trainable_variables if "raw_decay" in v.name], "ages have no weight to learn here"


@pytest.mark.parametrize("length", [1, 2])
def test_max_length_reads_a_sequences_newest_and_a_sets_first(length: int) -> None:
    made = collection_with(
        {"watched": {"max_length": length, "pooling": "none"}, "genres": {"max_length": length, "pooling": "none"}}
    )
    values = batch(FULL) | {
        "watched": tf.constant([[4, 2, 3], [1, 0, 0], [1, 2, 0], [0, 0, 0]]),
        "genres": tf.constant([[1, 2], [3, 0], [2, 1], [0, 0]]),
    }
    kept = {name: values[name] for name in ("watched", "genres")}
    kept["watched.age"] = tf.zeros([4, 3])
    found = made(kept).sequences
    expected = {1: [[3], [1], [2], [0]], 2: [[2, 3], [1, 0], [1, 2], [0, 0]]}[length]
    watched, genres = found["watched"], found["genres"]
    for sequence, table, ids in (
        (watched, "ids", np.array(expected)),
        (genres, "small", kept["genres"].numpy()[:, :length]),
    ):
        np.testing.assert_array_equal(sequence.mask, ids > 0)
        np.testing.assert_array_equal(sequence.values.numpy()[ids > 0], rows_of(made, table)[ids[ids > 0]])


def test_max_length_cuts_the_ages_with_their_events() -> None:
    made = collection_with({"watched": {"max_length": 2}})
    ids = rows_of(made, "ids")
    watched, age = [[4, 2, 3], [1, 2, 0]], [[9e6, 7200.0, 3600.0], [7200.0, 3600.0, 0.0]]
    found = made(batch({"watched": watched, "watched.age": age})).vectors()["watched"]
    weight_2, weight_1 = 3**-0.126928, 2**-0.126928
    expected = [(weight_2 * ids[a] + weight_1 * ids[b]) / (weight_2 + weight_1) for a, b in ((2, 3), (1, 2))]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_projected_vector_is_a_learned_linear_map() -> None:
    made = collection_with({"image": {"projection": 2}})
    (kernel,) = [v for v in made.trainable_variables if "projection" in v.name]
    assert kernel.shape == (3, 2)
    found = made(batch(FULL)).vectors()["image"]
    np.testing.assert_allclose(found, np.array(FULL["image"]) @ kernel.numpy(), rtol=1e-6)
    assert not {id(trained.source) for trained in made.trained()} & {id(kernel)}, "the dense optimizer's"
