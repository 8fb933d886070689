"""Numbers in one space with categories: a learned vector times the number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys._compat import keras, tf
from recsys.data.dataset import CategoricalInfo, FeatureInfo, NumericInfo
from recsys.embeddings.collection import EmbeddingCollection
from recsys.embeddings.config import EmbeddingsConfig

FEATURES: dict[str, FeatureInfo] = {
    "price": NumericInfo(role="item", transform="standardize", mean=10.0, std=4.0),
    "user": CategoricalInfo(role="user", rows=6, oov_rows=1),
    "clicks": NumericInfo(role="user", transform="log", mean=0.0, std=1.0),
    "weight": NumericInfo(role="item", transform="standardize", mean=0.0, std=1.0),
    "year": NumericInfo(role="item", transform="bucketize", mean=0.0, std=1.0, boundaries=(1.0,)),
    "size": NumericInfo(role="item", transform="standardize", mean=1.0, std=1.0),
}
BATCH: dict[str, Any] = {
    "price": [14.0, np.nan, 2.0],
    "user": [1, 2, 3],
    "clicks": [np.e - 1, 0.0, 1 - np.e],
    "weight": [5.0, 6.0, 7.0],
    "year": [0.0, 1.0, np.nan],
    "size": [3.0, 2.0, np.nan],
}
SCALED = {"price": [1.0, 0.0, -2.0], "clicks": [1.0, 0.0, -1.0], "size": [2.0, 1.0, 0.0]}
SAME = {"price": 4, "clicks": 4, "weight": 4, "size": 4}


def batch(*names: str) -> dict[str, tf.Tensor]:
    values = {name: BATCH[name] for name in names or BATCH}
    return {name: tf.constant(v, tf.int32 if name == "user" else tf.float32) for name, v in values.items()}


def collection(widths: dict[str, int] = SAME, seed: int = 0) -> EmbeddingCollection:
    """Built; numbers with these projections."""
    features = {"user": {"table": "t"}, "year": {"table": "t"}, **{n: {"projection": w} for n, w in widths.items()}}
    config = EmbeddingsConfig.model_validate({"tables": {"t": {"dim": 4}}, "features": features})
    made = EmbeddingCollection(config, FEATURES, seed)
    made(batch())
    return made


def start_of(made: EmbeddingCollection) -> dict[str, np.ndarray]:
    return {
        name: row for weight, names in made.number_weights() for name, row in zip(names, weight.numpy(), strict=True)
    }


def test_a_number_times_its_vector_by_hand() -> None:
    made = collection({"price": 2, "clicks": 2, "size": 3})
    vectors = {"price": [1.0, -2.0], "clicks": [0.5, 3.0], "size": [1.0, 10.0, 100.0]}
    for weight, names in made.number_weights():
        weight.assign(np.array([vectors[name] for name in names]))
    found = made(batch()).vectors()
    for name, vector in vectors.items():
        np.testing.assert_allclose(found[name], np.outer(SCALED[name], vector), rtol=1e-5, err_msg=name)
    np.testing.assert_array_equal(found["weight"], np.array(BATCH["weight"])[:, np.newaxis], "as it is")
    assert found["year"].shape == (3, 4), "in buckets, from its table"


def test_numbers_and_categories_are_stacked_as_fields() -> None:
    made = collection()
    embedded = made(batch())
    assert embedded.fields().shape == (3, 6, 4)
    assert embedded.layout() == [(name, 4) for name in FEATURES]
    assert made.layout("user", "item", "context") == embedded.layout()
    vectors = embedded.vectors()
    for place, name in enumerate(FEATURES):
        np.testing.assert_array_equal(embedded.fields()[:, place], vectors[name])
    with pytest.raises(ValueError, match="one width"):
        collection({"price": 4})(batch()).fields()


def test_all_numbers_of_a_width_are_one_weight_and_one_multiplication() -> None:
    made = collection()
    ((weight, names),) = made.number_weights()
    assert (names, tuple(weight.shape)) == (("price", "clicks", "weight", "size"), (4, 4))
    graph = tf.function(lambda values: made(values).fields()).get_concrete_function(batch())
    products = [op for op in graph.graph.get_operations() if op.type == "Mul" and op.outputs[0].shape.rank == 3]
    assert [op.outputs[0].shape.as_list()[1:] for op in products] == [[4, 4]]
    assert not {id(trained.source) for trained in made.trained()} & {id(weight)}, "the dense optimizer's"


@pytest.mark.parametrize("names", [("user", "clicks"), ("size", "price"), ("weight",)])
def test_of_some_features_each_number_has_its_own_vector(names: tuple[str, ...]) -> None:
    """A tower reads the features of its role alone, in whatever order the batch has them."""
    made = collection()
    whole, some = made(batch()).vectors(), made(batch(*names)).vectors()
    for name in names:
        np.testing.assert_array_equal(some[name], whole[name])
    ((weight, order),) = made.number_weights()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(made(batch(*names)).concat())
    gradient = tape.gradient(loss, weight)
    assert isinstance(gradient, tf.Tensor)
    expected = {"price": -1.0, "clicks": 0.0, "size": 3.0, "weight": 18.0}
    for name, row in zip(order, gradient.numpy(), strict=True):
        np.testing.assert_allclose(row, np.full(4, expected[name] if name in names else 0.0), atol=1e-6)


def test_a_missing_number_is_the_zero_vector() -> None:
    found = collection()(batch()).vectors()
    np.testing.assert_array_equal(found["price"][1], np.zeros(4))
    np.testing.assert_array_equal(found["size"][2], np.zeros(4))


def test_vectors_start_by_seed_and_name_like_rows_of_a_table() -> None:
    first, again, fewer = start_of(collection()), start_of(collection()), start_of(collection({"size": 4, "clicks": 4}))
    for name, row in first.items():
        np.testing.assert_array_equal(row, again[name])
    for name, row in fewer.items():
        np.testing.assert_array_equal(row, first[name])
    wide, other = start_of(collection(dict.fromkeys(SAME, 500))), start_of(collection(seed=1))
    assert len({row.tobytes() for row in (*first.values(), *other.values())}) == 8
    assert all(0.049 < np.abs(row).max() <= 0.05 for row in wide.values())


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy: str) -> None:
    expected = collection()(batch()).fields()
    keras.mixed_precision.set_global_policy(policy)
    try:
        made = collection()
        found = made(batch()).fields()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert found.dtype == tf.as_dtype(policy.removeprefix("mixed_"))
    assert {weight.dtype for weight, _ in made.number_weights()} == {tf.float32}
    np.testing.assert_allclose(tf.cast(found, tf.float32), expected, rtol=0.02, atol=1e-3)


def test_a_saved_model_gives_the_same_numbers(tmp_path: Path) -> None:
    made = collection()
    module = tf.Module()
    module.made = made
    specs = {name: tf.TensorSpec([None], value.dtype, name) for name, value in batch().items()}
    module.serve = tf.function(lambda values: made(values).fields(), input_signature=[specs])
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    np.testing.assert_allclose(loaded.serve(batch()), made(batch()).fields(), rtol=1e-6)
    empty = {name: value[:0] for name, value in batch().items()}
    assert loaded.serve(empty).shape == (0, 6, 4)
