"""Numbers inside the graph, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys._compat import tf
from recsys.data.dataset import NumericInfo
from recsys.data.numbers import transformed
from recsys.embeddings.numeric import bucketize, standardize

X = np.array([0.0, -3.0, 2.5, 7.0, 1e6, -1e6], np.float32)


def info(transform: str, *boundaries: float) -> NumericInfo:
    return NumericInfo.model_validate(
        {"role": "item", "transform": transform, "mean": 2.0, "std": 4.0, "boundaries": list(boundaries)}
    )


def column(x: object) -> tf.Tensor:
    """[B, 1]: one feature."""
    return tf.constant(x, tf.float32)[:, tf.newaxis]


def test_standardize() -> None:
    found = standardize(column(X), [info("standardize")])
    assert found.shape == (6, 1)
    np.testing.assert_allclose(found[:, 0], (X - 2) / 4, rtol=1e-6)


def test_log_is_odd_and_standardised_after() -> None:
    expected = (np.sign(X) * np.log1p(np.abs(X)) - 2) / 4
    np.testing.assert_allclose(standardize(column(X), [info("log")])[:, 0], expected, rtol=1e-6)


RAW = np.array([-2, -1, 0, 0.5, 1, 2, 2.5, 3, 4, 5, 7, 8, 1382, 16777216], np.float32)
SQUARED = [-2, -1, 0, 0.5, 1, 2, 0, 1, 1, 2, 3, 4, 52, 276]
"""By hand: log 2.5 = .916, 3: 1.0986, 4: 1.386, 5: 1.609, 7: 1.946, 8: 2.079, 1382: 7.231, 2^24: 16.636; squared .84,
1.21, 1.92, 2.59, 3.79, 4.32, 52.29, 276.7. Up to 2 nothing changes, so 2 is above 3."""


def test_log_squared_is_a_whole_number_above_two() -> None:
    plain = info("log_squared").model_copy(update={"mean": 0.0, "std": 1.0})
    assert standardize(column(RAW), [plain])[:, 0].numpy().tolist() == SQUARED
    assert transformed(RAW.astype(np.float64), "log_squared").tolist() == SQUARED
    assert standardize(column([3.0]), [info("log_squared")])[:, 0].numpy().tolist() == [(1 - 2) / 4]
    assert standardize(column([0.0, np.nan]), [info("log_squared")])[:, 0].numpy().tolist() == [-0.5, 0.0], "not alike"


def test_log_squared_buckets_hold_whole_numbers() -> None:
    found = bucketize(column([np.nan, *RAW]), [info("log_squared_buckets", -1, 0, 1, 3, 52)])[:, 0].numpy()
    #           missing, -2 below all, -1, 0, .5 with 0, 1, 2 with 1, 2.5 with 0, 3 and 4 with 1, 5, 7, 8, 1382, 2^24
    assert found.tolist() == [0, 1, 2, 3, 3, 4, 4, 3, 4, 4, 4, 5, 5, 6, 6]


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False), min_size=1, max_size=50)
)
def test_the_graph_squares_logarithms_as_the_statistics_do(numbers: list[float]) -> None:
    x = np.array(numbers, np.float32)
    whole = transformed(x.astype(np.float64), "log_squared").astype(np.float32)
    plain = info("log_squared").model_copy(update={"mean": 0.0, "std": 1.0})
    np.testing.assert_array_equal(standardize(column(x), [plain])[:, 0], whole)


@pytest.mark.parametrize("transform", ["standardize", "log", "log_squared"])
def test_missing_is_the_mean(transform: str) -> None:
    np.testing.assert_array_equal(standardize(column([np.nan, np.nan]), [info(transform)]), [[0.0], [0.0]])


def test_each_column_is_transformed_by_its_own_statistics() -> None:
    """Every one of them also where another is missing, and logs beside numbers that have none."""
    plain, log = info("standardize"), info("log")
    other = log.model_copy(update={"mean": -1.0, "std": 0.5})
    x = np.stack([X, X[::-1], np.roll(X, 1)], 1)
    x[2, 1] = np.nan
    logs = np.sign(x) * np.log1p(np.abs(x))
    expected = np.stack([(logs[:, 0] - 2) / 4, (x[:, 1] - 2) / 4, (logs[:, 2] + 1) / 0.5], 1)
    expected[2, 1] = 0.0
    np.testing.assert_allclose(standardize(tf.constant(x), [log, plain, other]), expected, rtol=1e-5)


def test_buckets_begin_at_their_boundaries() -> None:
    x = np.array([np.nan, -np.inf, 0.5, 1.0, np.nextafter(np.float32(1), np.float32(0)), 2.0, 3.0, 9.0, np.inf])
    found = bucketize(column(x), [info("bucketize", 1.0, 2.0, 3.0)])
    assert found.dtype == tf.int32
    assert found.numpy()[:, 0].tolist() == [0, 1, 1, 2, 1, 3, 4, 4, 4]


def test_columns_with_few_buckets_beside_columns_with_many() -> None:
    """Fewer boundaries are padded to a matrix: the padding must not count, for infinity neither."""
    few, many, none = info("bucketize", 1.0), info("bucketize", -1.0, 0.0, 1.0, 2.0), info("bucketize")
    x = np.array([np.nan, -np.inf, 0.0, 1.0, 1.5, np.inf], np.float32)
    found = bucketize(tf.constant(np.stack([x, x, x], 1)), [few, many, none]).numpy()
    assert found.T.tolist() == [[0, 1, 1, 2, 2, 2], [0, 1, 3, 4, 4, 5], [0, 1, 1, 1, 1, 1]]


def test_buckets_agree_with_numpy_on_boundaries_that_float32_must_round() -> None:
    """0.1 as float64 lies below 0.1 as float32: a value that is the boundary must not fall beside it."""
    boundaries = sorted(np.random.default_rng(0).normal(size=20).tolist())
    x = np.float32(boundaries + np.random.default_rng(1).normal(size=1000).tolist())
    expected = 1 + np.searchsorted(np.float32(boundaries), x, side="right")
    found = bucketize(column(x), [info("bucketize", *boundaries)]).numpy()[:, 0]
    np.testing.assert_array_equal(found, expected)
    assert found[:20].tolist() == list(range(2, 22))


def test_a_constant_column_has_one_bucket_beside_missing() -> None:
    assert bucketize(column([np.nan, 3.0, -1.0]), [info("bucketize")]).numpy().tolist() == [[0], [1], [1]]


def test_missing_in_a_graph_of_unknown_batch_size() -> None:
    specs = [tf.TensorSpec([None, 2])]
    graph = tf.function(lambda x: bucketize(x, [info("bucketize", 1.0), info("bucketize")]), input_signature=specs)
    assert graph(tf.constant([[np.nan, 1.0], [1.0, np.nan]])).numpy().tolist() == [[0, 1], [2, 0]]
    assert graph(tf.zeros([0, 2])).numpy().tolist() == []
