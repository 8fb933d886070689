"""The sparse optimizers, against the papers' formulas in plain numpy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys._compat import keras, tf
from recsys.embeddings.optimizers import Adagrad, LazyAdam, RowwiseAdagrad, make_table_optimizer
from recsys.embeddings.optimizers.config import LazyAdamConfig, RowwiseAdagradConfig

V, D = 7, 3
Array = NDArray[np.float32]
Optimizer = Callable[[], keras.optimizers.Optimizer]

# Row 3 and row 6 are never looked up; ids occur up to three times in a step, and some rows rest between two steps.
LOOKUPS = [[0, 1, 1, 5], [2, 2, 2, 1], [5, 0, 0, 4], [1, 4, 2, 5], [4, 4, 1, 1], [0, 2, 5, 1]]
UNTOUCHED = [3, 6]
ALL = pytest.mark.parametrize("make", [LazyAdam, RowwiseAdagrad, Adagrad])


def start(seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(V, D)).astype(np.float32)


def coefficients(step: int, count: int) -> Array:
    return np.random.default_rng([1, step]).normal(size=(count, D)).astype(np.float32)


def lookup_step(optimizer: keras.optimizers.Optimizer, table: tf.Variable, ids: list[int], step: int) -> None:
    """One step whose gradient for occurrence n of an id is row n of `coefficients`."""
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.gather(table, ids) * coefficients(step, len(ids)))
    gradient = tape.gradient(loss, table)
    assert isinstance(gradient, tf.IndexedSlices)
    optimizer.apply_gradients([(gradient, table)])


def summed(ids: list[int], step: int) -> NDArray[np.float64]:
    dense = np.zeros((V, D))
    np.add.at(dense, ids, coefficients(step, len(ids)).astype(np.float64))
    return dense


def paper_adam(
    table: Array, lookups: list[list[int]], lr: float, beta_1: float, beta_2: float, epsilon: float
) -> NDArray[np.float64]:
    """Kingma & Ba (2015), Algorithm 1, for the rows of each step; t counts the steps."""
    w, m, v = table.astype(np.float64), np.zeros((V, D)), np.zeros((V, D))
    for t, ids in enumerate(lookups, start=1):
        g, rows = summed(ids, t - 1), sorted(set(ids))
        m[rows] = beta_1 * m[rows] + (1 - beta_1) * g[rows]
        v[rows] = beta_2 * v[rows] + (1 - beta_2) * g[rows] ** 2
        m_hat, v_hat = m[rows] / (1 - beta_1**t), v[rows] / (1 - beta_2**t)
        w[rows] -= lr * m_hat / (np.sqrt(v_hat) + epsilon)
    return w


def slots(optimizer: keras.optimizers.Optimizer) -> list[Array]:
    """Every [V, ...] slot of the one table: moments or accumulators."""
    return [variable.numpy() for variable in optimizer.variables if variable.shape.rank == 2]


@pytest.mark.parametrize(("beta_1", "beta_2", "epsilon"), [(0.9, 0.999, 1e-8), (0.5, 0.9, 0.1)])
def test_lazy_adam_follows_the_paper_with_duplicated_ids(beta_1: float, beta_2: float, epsilon: float) -> None:
    table, optimizer = tf.Variable(start()), LazyAdam(0.01, beta_1, beta_2, epsilon)
    for step, ids in enumerate(LOOKUPS):
        lookup_step(optimizer, table, ids, step)
    expected = paper_adam(start(), LOOKUPS, 0.01, beta_1, beta_2, epsilon)
    moved = np.abs(expected - start())
    assert moved[[0, 1, 2, 4, 5]].min() > 1e-4
    np.testing.assert_allclose(table.numpy() - start(), expected - start(), rtol=1e-4, atol=3e-7)


@ALL
def test_rows_without_a_lookup_stay_bitwise_with_their_slots(make: Optimizer) -> None:
    table, optimizer = tf.Variable(start()), make()
    # All rows get slots that differ from their initial values, and a momentum that would carry them on.
    lookup_step(optimizer, table, list(range(V)), 0)
    before, slots_before = table.numpy(), slots(optimizer)
    assert slots_before
    assert all(np.all(slot[UNTOUCHED] != 0) for slot in slots_before)
    for step, ids in enumerate(LOOKUPS):
        lookup_step(optimizer, table, ids, step)
    np.testing.assert_array_equal(table.numpy()[UNTOUCHED], before[UNTOUCHED])
    for slot, old in zip(slots(optimizer), slots_before, strict=True):
        np.testing.assert_array_equal(slot[UNTOUCHED], old[UNTOUCHED])
        assert np.all(slot[[0, 1, 2, 4, 5]] != old[[0, 1, 2, 4, 5]])


def test_lazy_adam_is_dense_adam_when_every_row_is_touched() -> None:
    lazy, dense = tf.Variable(start()), tf.Variable(start())
    ours = LazyAdam(0.01)
    theirs = keras.optimizers.Adam(0.01, epsilon=1e-8, adaptive_epsilon=True, jit_compile=False)
    for step in range(10):
        ids = [*range(V), step % V]
        lookup_step(ours, lazy, ids, step)
        theirs.apply_gradients([(tf.constant(summed(ids, step), tf.float32), dense)])
    np.testing.assert_allclose(lazy.numpy(), dense.numpy(), rtol=1e-6, atol=1e-7)


def test_lazy_adam_moves_under_tiny_gradients_as_torch_does() -> None:
    """For a constant g, m̂ = g and v̂ = g²: each step is lr g / (g + epsilon) = lr / 11. With epsilon inside the bias
    correction, as tf_keras has it by default, it would be 60 times less.
    """
    table, optimizer = tf.Variable(tf.zeros([V, D])), LazyAdam(0.001)
    for _ in range(50):
        optimizer.apply_gradients([(tf.IndexedSlices(tf.fill([2, D], 1e-9), tf.constant([1, 4]), [V, D]), table)])
    np.testing.assert_allclose(table.numpy()[[1, 4]], -50 * 0.001 / 11, rtol=1e-3)


@ALL
def test_dense_gradients_step_like_sparse_ones_that_name_every_row(make: Optimizer) -> None:
    sparse, dense = tf.Variable(start()), tf.Variable(start())
    ours, also_ours = make(), make()
    for step in range(4):
        lookup_step(ours, sparse, list(range(V)), step)
        also_ours.apply_gradients([(tf.constant(coefficients(step, V)), dense)])
    np.testing.assert_array_equal(sparse.numpy(), dense.numpy())
    assert np.abs(dense.numpy() - start()).min() > 1e-5


def test_rowwise_adagrad_by_hand() -> None:
    table = tf.Variable([[1.0, 1.0], [2.0, 2.0], [5.0, 5.0]])
    optimizer = RowwiseAdagrad(0.5, initial_accumulator=3.5, epsilon=1.0)

    def step(ids: list[int], rows: list[list[float]]) -> None:
        optimizer.apply_gradients([(tf.IndexedSlices(tf.constant(rows), tf.constant(ids), [3, 2]), table)])

    # Row 1 occurs twice: its gradient is (3, 4), the mean square 12.5, the sum 16; row 0: (1, -1) gives 3.5 + 1 = 4.5.
    step([1, 0, 1], [[1.0, 4.0], [1.0, -1.0], [2.0, 0.0]])
    (accumulator,) = slots(optimizer)
    assert accumulator.shape == (3, 1)
    np.testing.assert_allclose(accumulator, [[4.5], [16.0], [3.5]])
    row_0 = 0.5 / (np.sqrt(4.5) + 1)
    expected = [[1 - row_0, 1 + row_0], [2 - 0.5 * 3 / 5, 2 - 0.5 * 4 / 5], [5, 5]]
    np.testing.assert_allclose(table.numpy(), expected, rtol=1e-6)
    # Again row 1, by (6, 8): 16 + 50 = 66.
    step([1], [[6.0, 8.0]])
    expected[1] = [1.7 - 0.5 * 6 / (np.sqrt(66) + 1), 1.6 - 0.5 * 8 / (np.sqrt(66) + 1)]
    np.testing.assert_allclose(slots(optimizer)[0], [[4.5], [66.0], [3.5]])
    np.testing.assert_allclose(table.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "optimizer",
    [
        LazyAdam(0.02, 0.8, 0.95, 1e-5, coupled_decay=0.1, global_clipnorm=3.0, name="tables"),
        RowwiseAdagrad(0.3, 0.25, 1e-6, decoupled_decay=0.1, clipnorm=0.2, name="tables"),
        Adagrad(0.3, 0.25, 1e-6, decoupled_decay=0.1, clipnorm=0.2, name="tables"),
    ],
    ids=["lazy_adam", "rowwise_adagrad", "adagrad"],
)
def test_config_round_trip(optimizer: keras.optimizers.Optimizer) -> None:
    config = json.loads(json.dumps(optimizer.get_config(), default=float))
    twin = type(optimizer).from_config(config)
    assert twin.get_config() == optimizer.get_config()
    one, other = tf.Variable(start()), tf.Variable(start())
    for step, ids in enumerate(LOOKUPS):
        lookup_step(optimizer, one, ids, step)
        lookup_step(twin, other, ids, step)
    np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_every_setting_of_the_yaml_reaches_the_optimizer() -> None:
    adam = make_table_optimizer(
        LazyAdamConfig(kind="lazy_adam", learning_rate=0.5, beta_1=0.25, beta_2=0.75, epsilon=2.0)
    )
    assert isinstance(adam, LazyAdam)
    assert (float(adam.learning_rate), adam.beta_1, adam.beta_2, adam.epsilon) == (0.5, 0.25, 0.75, 2.0)
    adagrad = make_table_optimizer(
        RowwiseAdagradConfig(kind="rowwise_adagrad", learning_rate=0.5, initial_accumulator=0.25, epsilon=2.0)
    )
    assert isinstance(adagrad, RowwiseAdagrad)
    assert (float(adagrad.learning_rate), adagrad.initial_accumulator, adagrad.epsilon) == (0.5, 0.25, 2.0)


@ALL
def test_a_checkpoint_goes_on_bitwise(make: Optimizer, tmp_path: Path) -> None:
    table, optimizer = tf.Variable(start()), make()
    for step in range(3):
        lookup_step(optimizer, table, LOOKUPS[step], step)
    path = tf.train.Checkpoint(table=table, optimizer=optimizer).write(str(tmp_path / "checkpoint"))
    restored, again = tf.Variable(start(seed=9)), make()
    again.build([restored])
    tf.train.Checkpoint(table=restored, optimizer=again).read(path).assert_existing_objects_matched()
    for step in range(3, 6):
        lookup_step(optimizer, table, LOOKUPS[step], step)
        lookup_step(again, restored, LOOKUPS[step], step)
    np.testing.assert_array_equal(restored.numpy(), table.numpy())
    for one, other in zip(slots(optimizer), slots(again), strict=True):
        np.testing.assert_array_equal(one, other)
    assert int(again.iterations) == 6


@ALL
def test_inside_a_graph_the_steps_are_the_same(make: Optimizer) -> None:
    eager, graph = tf.Variable(start()), tf.Variable(start())
    one, other = make(), make()
    other.build([graph])

    @tf.function
    def step_in_graph(ids: tf.Tensor, upstream: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.gather(graph, ids) * upstream)
        other.apply_gradients([(tape.gradient(loss, graph), graph)])

    for step, ids in enumerate(LOOKUPS):
        lookup_step(one, eager, ids, step)
        step_in_graph(tf.constant(ids), tf.constant(coefficients(step, len(ids))))
    np.testing.assert_allclose(graph.numpy(), eager.numpy(), rtol=1e-6)
    assert np.abs(eager.numpy() - start()).max() > 1e-3
