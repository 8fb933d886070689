"""Repeated ids are summed once, and before anything is clipped."""

from __future__ import annotations

import numpy as np
import pytest

from recsys._compat import keras, tf
from recsys.embeddings.optimizers import Adagrad, LazyAdam, RowwiseAdagrad, clip_by_global_norm
from recsys.embeddings.optimizers.gradients import WIDE, UniqueSlices, deduplicate

ALL = pytest.mark.parametrize("make", [LazyAdam, RowwiseAdagrad, Adagrad])


def slices(ids: list[int], rows: list[list[float]], count: int = 4) -> tf.IndexedSlices:
    return tf.IndexedSlices(tf.constant(rows), tf.constant(ids), tf.constant([count, len(rows[0])]))


@pytest.mark.parametrize("width", [1, 16, WIDE - 1, WIDE, WIDE + 1])
@pytest.mark.parametrize("kind", [tf.int32, tf.int64])
def test_sums_are_those_of_numpy_bit_for_bit(width: int, kind: tf.DType) -> None:
    random = np.random.default_rng(width)
    ids, rows = random.integers(0, 50, 400), random.normal(size=(400, width)).astype(np.float32)
    found = deduplicate(tf.IndexedSlices(tf.constant(rows), tf.constant(ids, kind), tf.constant([50, width])))
    expected = np.zeros([50, width], np.float32)
    np.add.at(expected, ids, rows)
    assert len(found.indices) == len(np.unique(ids))
    np.testing.assert_array_equal(found.values, expected[found.indices.numpy()])


@pytest.mark.parametrize("shape", [None, [1 << 40, 1]])
def test_ids_beyond_int32_stay_apart(shape: list[int] | None) -> None:
    ids = [5, 5 + (1 << 32), 5]
    found = deduplicate(
        tf.IndexedSlices(
            tf.constant([[1.0], [2.0], [4.0]]),
            tf.constant(ids, tf.int64),
            None if shape is None else tf.constant(shape),
        )
    )
    assert found.indices.numpy().tolist() == ids[:2]
    assert found.values.numpy().tolist() == [[5.0], [2.0]]


def test_no_ids_at_all() -> None:
    empty = deduplicate(tf.IndexedSlices(tf.zeros([0, 3]), tf.zeros([0], tf.int32), tf.constant([4, 3])))
    assert empty.values.shape == (0, 3)


def test_float16_gradients_are_summed_in_float32() -> None:
    # In float16, 2048 + 1 is 2048.
    found = deduplicate(
        tf.IndexedSlices(tf.constant([[2048.0], [1.0], [1.0]], tf.float16), tf.constant([2, 2, 2]), tf.constant([4, 1]))
    )
    assert found.values.numpy().tolist() == [[2050.0]]


def test_global_norm_counts_the_sum_of_a_repeated_row() -> None:
    # Row 1 is (3, 0) + (0, 4), of norm 5; the dense gradient has norm 12: together 13. Unsummed rows give 13, too, if
    # they are orthogonal, so row 2 is (6, 0) - (6, 0).
    sparse = slices([1, 2, 1, 2], [[3.0, 0.0], [6.0, 0.0], [0.0, 4.0], [-6.0, 0.0]])
    (table, none, dense), norm = clip_by_global_norm([sparse, None, tf.constant([12.0])], 6.5)
    assert float(norm) == pytest.approx(13.0)
    assert none is None
    assert isinstance(table, UniqueSlices)
    assert table.indices.numpy().tolist() == [1, 2]
    np.testing.assert_allclose(table.values, [[1.5, 2.0], [0.0, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(dense, [6.0], rtol=1e-6)


def test_gradients_within_the_bound_stay() -> None:
    (table,), _ = clip_by_global_norm([slices([1, 1], [[3.0], [1.0]])], 4.5)
    np.testing.assert_array_equal(table.values, [[4.0]])


@pytest.mark.parametrize("bound", [{"clipnorm": 2.5}, {"global_clipnorm": 2.5}])
def test_an_optimizer_clips_what_it_has_summed(bound: dict[str, float]) -> None:
    table = tf.Variable(tf.zeros([4, 2]))
    optimizer = Adagrad(1.0, initial_accumulator=0.0, epsilon=1.0, **bound)
    # The sums have norm 5: halved, row 1 is (1.5, 2). Accumulated squares are 2.25 and 4.
    rows = [[3.0, 0.0], [6.0, 0.0], [0.0, 4.0], [-6.0, 0.0]]
    optimizer.apply_gradients([(slices([1, 2, 1, 2], rows), table)])
    np.testing.assert_allclose(table, [[0, 0], [-1.5 / 2.5, -2 / 3], [0, 0], [0, 0]], rtol=1e-6)


def operations(function: tf.types.experimental.ConcreteFunction) -> list[str]:
    return [operation.type for operation in function.graph.get_operations()]


@ALL
@pytest.mark.parametrize("clip_first", [False, True])
def test_a_step_deduplicates_once_and_copies_no_table(make: type[keras.optimizers.Optimizer], clip_first: bool) -> None:
    table, optimizer = tf.Variable(tf.ones([9, 2])), make()
    optimizer.build([table])

    @tf.function
    def step(ids: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.gather(table, ids))
        gradients = [tape.gradient(loss, table)]
        if clip_first:
            gradients, _ = clip_by_global_norm(gradients, 1.0)
        optimizer.apply_gradients(zip(gradients, [table], strict=True), skip_gradients_aggregation=clip_first)

    traced = step.get_concrete_function(tf.constant([1, 1, 3]))
    found = operations(traced)
    assert found.count("Unique") == 1
    # A whole-table operation reads or subtracts [9, 2]; rows of a batch of 3 have no 9 in their shapes.
    whole = [
        operation.name
        for operation in traced.graph.get_operations()
        for output in operation.outputs
        if output.dtype == tf.float32 and output.shape.rank == 2 and output.shape[0] == 9
    ]
    assert not whole


@ALL
def test_scaled_losses_step_like_others(make: type[keras.optimizers.Optimizer]) -> None:
    plain, scaled = tf.Variable(tf.ones([4, 2])), tf.Variable(tf.ones([4, 2]))
    one, inner = make(), make()
    wrapped = keras.mixed_precision.LossScaleOptimizer(inner, initial_scale=1024.0)
    for ids in ([1, 1, 2], [2, 3, 2]):
        rows = np.random.default_rng(ids).integers(-8, 8, [3, 2]).astype(np.float16)
        one.apply_gradients([(slices(ids, rows.astype(np.float32).tolist()), plain)])
        raw = tf.IndexedSlices(tf.constant(rows * np.float16(1024)), tf.constant(ids), tf.constant([4, 2]))
        wrapped.apply_gradients(zip(wrapped.get_unscaled_gradients([raw]), [scaled], strict=True))
    np.testing.assert_array_equal(scaled, plain)
    assert np.all(scaled.numpy()[1:] != 1)
    assert np.all(scaled.numpy()[0] == 1)


def test_an_overflow_of_a_scaled_loss_moves_nothing() -> None:
    table, optimizer = tf.Variable(tf.ones([4, 1])), LazyAdam()
    wrapped = keras.mixed_precision.LossScaleOptimizer(optimizer, initial_scale=1024.0)
    wrapped.apply_gradients([(slices([1, 2], [[np.inf], [1.0]]), table)])
    np.testing.assert_array_equal(table, tf.ones([4, 1]))
    assert float(wrapped.loss_scale) == 512.0
