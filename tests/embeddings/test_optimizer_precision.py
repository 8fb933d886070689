"""Tables that are trained in 16 or 8 bits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.embeddings.optimizers import Adagrad, LazyAdam, RowwiseAdagrad, SparseOptimizer
from recsys.embeddings.optimizers.access import PackedWeights, SomeRows
from recsys.embeddings.packing import pack, scales, unpack

V, D = 40, 8
Array = NDArray[np.float32]
LOW = pytest.mark.parametrize("kind", [tf.bfloat16, tf.float16, tf.int8])
ALL = pytest.mark.parametrize("make", [LazyAdam, RowwiseAdagrad, Adagrad])


def stored(rows: Array, kind: tf.DType) -> tf.Variable:
    values = tf.constant(rows)
    return tf.Variable(pack(values, scales(values)) if kind == tf.int8 else tf.cast(values, kind), trainable=False)


def decoded(table: tf.Variable) -> Array:
    if table.dtype == tf.int8:
        codes, scale = unpack(table)
        return (codes * scale).numpy()
    return tf.cast(table, tf.float32).numpy()


def start(size: float = 0.05) -> Array:
    return np.random.default_rng(0).uniform(-size, size, (V, D)).astype(np.float32)


def apply(optimizer: SparseOptimizer, table: tf.Variable, ids: NDArray[np.int64], rows: Array) -> None:
    slices = tf.IndexedSlices(tf.constant(rows, tf.float32), tf.constant(ids), tf.constant([V, D], tf.int64))
    optimizer.apply_gradients([(slices, table)])


def stepper(optimizer: SparseOptimizer, table: tf.Variable) -> Callable[[NDArray[np.int64], Array], None]:
    """The same in a graph, for many steps."""
    optimizer.build([table])

    @tf.function(reduce_retracing=True)
    def step(ids: tf.Tensor, rows: tf.Tensor) -> None:
        optimizer.apply_gradients([(tf.IndexedSlices(rows, ids, tf.constant([V, D], tf.int64)), table)])

    return lambda ids, rows: step(tf.constant(ids), tf.constant(rows, tf.float32))


@LOW
@ALL
def test_slots_are_those_of_a_float32_table_and_rows_close(make: type[SparseOptimizer], kind: tf.DType) -> None:
    random = np.random.default_rng(1)
    low, full = stored(start(), kind), tf.Variable(start())
    ours, reference = make(0.02), make(0.02)
    for _ in range(10):
        ids, rows = random.integers(0, V - 1, 12), random.normal(size=(12, D)).astype(np.float32)
        apply(ours, low, ids, rows)
        apply(reference, full, ids, rows)
    for mine, theirs in zip(ours.variables, reference.variables, strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)
    moved = np.abs(full.numpy() - start()).max()
    assert moved > 0.05
    assert np.abs(decoded(low) - full.numpy()).max() < 0.1 * moved


@LOW
@ALL
def test_untouched_rows_stay_bitwise(make: type[SparseOptimizer], kind: tf.DType) -> None:
    table, optimizer = stored(start(), kind), make()
    before = tf.identity(table).numpy()
    for step in range(3):
        apply(optimizer, table, np.array([3, 5, 3]), np.random.default_rng(step).normal(size=(3, D)))
    rest = np.setdiff1d(np.arange(V), [3, 5])
    after = tf.identity(table).numpy()
    np.testing.assert_array_equal(after[rest], before[rest])
    assert np.all(np.any(after[[3, 5]] != before[[3, 5]], axis=1))


@LOW
def test_steps_below_the_resolution_are_not_lost(kind: tf.DType) -> None:
    """500 steps of 1/25 of a unit of the row: rounding to the nearest would never move."""
    rows = np.full((V, D), 0.99, np.float32)
    unit = {tf.bfloat16: 2.0**-8, tf.float16: 2.0**-11, tf.int8: 0.99 / 127}[kind]
    table, optimizer = stored(rows, kind), RowwiseAdagrad(unit / 25, initial_accumulator=1e12, epsilon=1e-8)
    step = stepper(optimizer, table)
    for _ in range(500):
        step(np.arange(V), np.full((V, D), 1e6, np.float32))
    moved = float(np.mean(decoded(stored(rows, kind)) - decoded(table)))
    # a = 1e12 (1 + t): Σ 1 / sqrt(1 + t) over t = 1..500.
    expected = unit / 25 * float(np.sum(1 / np.sqrt(1 + np.arange(1, 501))))
    assert moved == pytest.approx(expected, rel=0.15)


@LOW
def test_the_same_steps_give_the_same_bits_and_tables_draw_apart(kind: tf.DType) -> None:
    random = np.random.default_rng(3)
    batches = [(random.integers(0, V, 12), random.normal(size=(12, D)).astype(np.float32)) for _ in range(4)]

    def train(number: int) -> Array:
        tables, optimizer = [stored(start(), kind) for _ in range(2)], LazyAdam(0.01)
        optimizer.build(tables)
        for ids, rows in batches:
            slices = tf.IndexedSlices(tf.constant(rows), tf.constant(ids), tf.constant([V, D], tf.int64))
            optimizer.apply_gradients([(slices, table) for table in tables])
        return decoded(tables[number])

    np.testing.assert_array_equal(train(0), train(0))
    assert np.mean(train(0) != train(1)) > 0.1


def packed_step(rows: Array, new: Array, gradient: Array | None, rate: float) -> tuple[Array, Array]:
    """Codes and scales after `new` is written with an upstream gradient."""
    table = stored(rows, tf.int8)
    weights = PackedWeights(
        table,
        SomeRows(tf.range(len(rows))),
        tf.constant([1, 2]),
        None if gradient is None else tf.constant(gradient),
        rate,
    )
    weights.write(tf.constant(new))
    codes, scale = unpack(table)
    return codes.numpy(), scale.numpy()


def test_a_scale_learns_by_lsq() -> None:
    # Scale 1. New values 2.3 (rounds down: -0.3 a unit) and -1.4 (rounds up to -1: +0.4); d = 2 and 127 steps.
    rows = np.array([[127.0, 0.0]], np.float32)
    _, scale = packed_step(rows, np.array([[2.3, -1.4]], np.float32), np.array([[2.0, 3.0]], np.float32), 0.1)
    np.testing.assert_allclose(scale, [[1 - 0.1 / np.sqrt(254) * (2 * -0.3 + 3 * 0.4)]], rtol=1e-6)


def test_a_saturated_value_raises_the_scale_at_once() -> None:
    rows = np.array([[127.0, 1.0]], np.float32)
    codes, scale = packed_step(rows, np.array([[1270.0, 1.0]], np.float32), None, 2e-5)
    np.testing.assert_allclose(scale, [[10.0]], rtol=1e-6)
    assert codes[0, 0] == 127


def test_a_scale_stays_positive_and_its_row_finite() -> None:
    rows = np.array([[127.0, 0.0], [0.0, 0.0]], np.float32)
    new = np.array([[1e-3, -2e-3], [0.0, 0.0]], np.float32)
    codes, scale = packed_step(rows, new, np.full((2, 2), 1e9, np.float32), 1e9)
    assert np.all(scale > 0)
    assert np.all(np.isfinite(codes * scale))
    assert np.all((codes * scale)[1] == 0)


def test_a_row_whose_values_must_grow_tenfold_gets_there() -> None:
    target = 10 * start()
    table, optimizer = stored(start(), tf.int8), LazyAdam(1e-2)
    step = stepper(optimizer, table)
    for _ in range(400):
        step(np.arange(V), decoded(table) - target)
    error = np.abs(decoded(table) - target).max()
    assert error < 0.05 * np.abs(target).max()


def test_alpt_fits_a_toy_regression_as_float32_does() -> None:
    """y = <table[i], x>, planted; the mean squared error of int8 rows comes within a percent of the variance of y."""
    random = np.random.default_rng(4)
    truth = random.normal(size=(V, D)).astype(np.float32)

    def fit(table: tf.Variable) -> float:
        step, draws = stepper(LazyAdam(0.02), table), np.random.default_rng(5)
        for _ in range(400):
            ids, x = draws.integers(0, V, 64), draws.normal(size=(64, D)).astype(np.float32)
            error = np.sum((decoded(table)[ids] - truth[ids]) * x, axis=1, keepdims=True)
            step(ids, error * x)
        ids, x = draws.integers(0, V, 2000), draws.normal(size=(2000, D)).astype(np.float32)
        y = np.sum(truth[ids] * x, axis=1)
        return float(np.mean((np.sum(decoded(table)[ids] * x, axis=1) - y) ** 2) / np.var(y))

    full, low = fit(tf.Variable(start())), fit(stored(start(), tf.int8))
    assert full < 0.01
    assert low < full + 0.01


@LOW
def test_decay_reaches_low_precision_rows(kind: tf.DType) -> None:
    table, optimizer = stored(start(1.0), kind), Adagrad(0.1, decoupled_decay=0.5)
    before = decoded(table)
    for _ in range(10):
        apply(optimizer, table, np.array([0]), np.ones((1, D), np.float32))
    optimizer.flush()
    np.testing.assert_allclose(decoded(table)[1:], before[1:] * 0.95**10, atol=0.01)
    flushed = decoded(table)
    optimizer.flush()
    np.testing.assert_array_equal(decoded(table), flushed)
