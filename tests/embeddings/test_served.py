"""Rows as a bundle holds them, by hand-computed bytes and the bounds of each precision."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.embeddings import served
from recsys.embeddings.config import Precision
from recsys.embeddings.served import ServedFloats, ServedInt8, served_rows

# Scales of 1/64, 0, 2 and 1/127: the first three are float16, the last is rounded up.
ROWS = np.array([[127, -64, 1, 0.4], [0, 0, 0, 0], [254, 3, -254, -1.1], [1, 0.5, -1, 0.25]], np.float32)
ROWS[0] /= 64


def all_rows(rows: served.ServedRows, count: int) -> NDArray[np.float32]:
    return rows.lookup(tf.range(count)).numpy()


def test_int8_stores_codes_and_a_float16_scale_that_is_rounded_up() -> None:
    rows = ServedInt8(ROWS)
    assert rows.packed.shape == (4, 4 + 2)
    assert rows.packed.dtype == tf.int8
    up = np.nextafter(np.float16(1 / 127), np.float16(1))
    assert np.float32(np.float16(1 / 127)) < np.float32(1) / 127 <= np.float32(up)  # nearest would be too small
    codes = rows.packed.numpy()[:, :4].tolist()
    assert codes == [[127, -64, 1, 0], [0, 0, 0, 0], [127, 2, -127, -1], [127, 63, -127, 32]]
    scales = rows.packed.numpy()[:, 4:].copy().view(np.float16)[:, 0]
    np.testing.assert_array_equal(scales[[0, 2, 3]], np.array([1 / 64, 2, up], np.float16))
    expected = [[127 / 64, -1, 1 / 64, 0], [0] * 4, [254, 4, -254, -2], np.array([127, 63, -127, 32]) * float(up)]
    np.testing.assert_allclose(all_rows(rows, 4), expected, rtol=1e-6)


def test_a_lookup_takes_any_rows_in_any_order() -> None:
    for rows in (ServedInt8(ROWS), ServedFloats(ROWS, tf.float16)):
        found = rows.lookup(tf.constant([2, 0, 2], tf.int64))
        assert found.dtype == tf.float32
        np.testing.assert_array_equal(found, all_rows(rows, 4)[[2, 0, 2]])
        assert rows.lookup(tf.zeros([0], tf.int32)).shape == (0, 4)


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_floats_are_rounded_to_the_nearest(precision: Precision) -> None:
    kind = tf.dtypes.as_dtype(precision)
    values = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    rows = served_rows(values, precision)
    (variable,) = rows.variables
    assert variable.dtype == kind
    np.testing.assert_array_equal(all_rows(rows, 50), values.astype(kind.as_numpy_dtype).astype(np.float32))


@pytest.mark.parametrize(("precision", "step"), [("float16", 2**-11), ("bfloat16", 2**-8), ("int8", 0.51 / 127)])
def test_no_number_is_further_off_than_half_a_step(precision: Precision, step: float) -> None:
    """Of itself for the floats, of the largest in its row for int8: rows of any size lose as little."""
    rng = np.random.default_rng(1)
    values = (rng.normal(size=(1_000, 16)) * 10.0 ** rng.uniform(-2, 2, (1_000, 1))).astype(np.float32)
    error = np.abs(all_rows(served_rows(values, precision), 1_000) - values)
    size = np.abs(values).max(1, keepdims=True) if precision == "int8" else np.abs(values)
    assert (error <= step * size + 2.0**-25).all()  # the least step of float16
    assert error.max() > 0


def test_rows_are_packed_block_by_block_to_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).normal(size=(10, 3)).astype(np.float32)
    whole = ServedInt8(values).packed.numpy()
    monkeypatch.setattr(served, "BLOCK", 4)
    np.testing.assert_array_equal(ServedInt8(values).packed, whole)


@pytest.mark.parametrize(
    ("precision", "value"),
    [("int8", np.nan), ("int8", 1e7), ("float16", 65_520.0), ("bfloat16", np.inf), ("float32", np.nan)],
)
def test_what_cannot_be_stored_is_refused(precision: Precision, value: float) -> None:
    with pytest.raises(ValueError, match="a row holds a value"):
        served_rows(np.array([[1.0, value]], np.float32), precision)


def test_the_largest_numbers_can_be_stored() -> None:
    np.testing.assert_array_equal(all_rows(served_rows(np.array([[65_504.0]], np.float32), "float16"), 1), [[65_504]])
    largest = 127 * 65_504.0
    np.testing.assert_array_equal(all_rows(served_rows(np.array([[largest]], np.float32), "int8"), 1), [[largest]])
