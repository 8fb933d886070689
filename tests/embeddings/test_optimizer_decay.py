"""Decay of touched rows, against the dense optimizers that decay every row at every step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from recsys._compat import tf
from recsys.embeddings.optimizers import Adagrad, LazyAdam, RowwiseAdagrad, SparseOptimizer, make_table_optimizer
from recsys.embeddings.optimizers.config import TableOptimizerConfig

Doubles = NDArray[np.float64]
V, D, STEPS = 30, 3, 40
NEVER = 29
LR, DECAY = 0.05, 0.4


def world() -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
    random = np.random.default_rng(0)
    return (
        random.normal(size=(V, D)).astype(np.float32),
        random.integers(0, NEVER, (STEPS, 4)).astype(np.int32),
        random.normal(size=(STEPS, 4, D)).astype(np.float32),
    )


def train(optimizer: SparseOptimizer, table: tf.Variable, ids: NDArray[np.int32], rows: NDArray[np.float32]) -> None:
    optimizer.build([table])

    @tf.function
    def step(indices: tf.Tensor, values: tf.Tensor) -> None:
        optimizer.apply_gradients([(tf.IndexedSlices(values, indices, tf.constant(table.shape.as_list())), table)])

    for indices, values in zip(tf.constant(ids), tf.constant(rows), strict=True):
        step(indices, values)


def dense_adamw(w: Doubles, gradients: Doubles, touched: NDArray[np.bool_]) -> Doubles:
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, (g, rows) in enumerate(zip(gradients, touched, strict=True), start=1):
        w = w * (1 - LR * DECAY)
        m[rows], v[rows] = (0.9 * m + 0.1 * g)[rows], (0.999 * v + 0.001 * g**2)[rows]
        w[rows] -= (LR * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8))[rows]
    return w


def dense_adagrad(w: Doubles, gradients: Doubles, start: float, rowwise: bool) -> Doubles:
    total = np.full_like(w, start)
    for g in gradients:
        w = w * (1 - LR * DECAY)
        total += np.mean(g**2, axis=1, keepdims=True) if rowwise else g**2
        w = w - LR * g / (np.sqrt(total) + 1e-8)
    return w


CASES = pytest.mark.parametrize(
    ("make", "dense"),
    [
        (LazyAdam, dense_adamw),
        (RowwiseAdagrad, lambda w, g, _: dense_adagrad(w, g, 1e-30, rowwise=True)),
        (Adagrad, lambda w, g, _: dense_adagrad(w, g, 0.1, rowwise=False)),
    ],
    ids=["lazy_adam", "rowwise_adagrad", "adagrad"],
)


@CASES
def test_decoupled_decay_is_that_of_a_dense_loop(
    make: type[SparseOptimizer], dense: Callable[[Doubles, Doubles, NDArray[np.bool_]], Doubles]
) -> None:
    start, ids, rows = world()
    table, optimizer = tf.Variable(start), make(LR, decoupled_decay=DECAY)
    train(optimizer, table, ids, rows)
    gradients, touched = np.zeros([STEPS, V, D]), np.zeros([STEPS, V], bool)
    for step in range(STEPS):
        np.add.at(gradients[step], ids[step], rows[step].astype(np.float64))
        touched[step, ids[step]] = True
    expected = dense(start.astype(np.float64), gradients, touched)
    # Before the flush, only the rows of the last step are up to date; a row that was never touched has not moved.
    np.testing.assert_array_equal(table.numpy()[NEVER], start[NEVER])
    assert np.abs(table.numpy() - expected).max() > 0.1
    optimizer.flush()
    np.testing.assert_allclose(table.numpy(), expected, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(table.numpy()[NEVER], start[NEVER] * (1 - LR * DECAY) ** STEPS, rtol=1e-5)


@CASES
def test_training_goes_on_after_a_flush_as_without(make: type[SparseOptimizer], dense: object) -> None:
    start, ids, rows = world()
    tables = [tf.Variable(start), tf.Variable(start)]
    for flushed, table in enumerate(tables):
        optimizer = make(LR, decoupled_decay=DECAY)
        train(optimizer, table, ids[:20], rows[:20])
        if flushed:
            optimizer.flush()
            once = table.numpy()
            optimizer.flush()
            np.testing.assert_array_equal(table, once)
        train(optimizer, table, ids[20:], rows[20:])
        optimizer.flush()
    np.testing.assert_allclose(tables[0].numpy(), tables[1].numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("make", [LazyAdam, RowwiseAdagrad, Adagrad])
def test_without_decay_a_flush_moves_nothing_and_no_steps_are_kept(make: type[SparseOptimizer]) -> None:
    start, ids, rows = world()
    table, optimizer = tf.Variable(start), make(LR)
    train(optimizer, table, ids, rows)
    before = table.numpy()
    optimizer.flush()
    np.testing.assert_array_equal(table, before)
    np.testing.assert_array_equal(before[NEVER], start[NEVER])
    assert not any("last_step" in variable.name for variable in optimizer.variables)


def test_a_flush_reaches_every_block_of_a_long_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.embeddings.optimizers.sparse._BLOCK", 7)
    start, ids, rows = world()
    table, optimizer = tf.Variable(start), RowwiseAdagrad(LR, decoupled_decay=DECAY)
    train(optimizer, table, ids[:1], rows[:1])
    optimizer.flush()
    rest = np.setdiff1d(np.arange(V), ids[0])
    np.testing.assert_allclose(table.numpy()[rest], start[rest] * (1 - LR * DECAY), rtol=1e-6)


def dense_coupled_adam(
    w: Doubles, ids: NDArray[np.int32], rows: NDArray[np.float32], lr: float, decay: float
) -> Doubles:
    """torch's `Adam(weight_decay=)`, for every row at every step."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, (indices, values) in enumerate(zip(ids, rows, strict=True), start=1):
        g = decay * w
        np.add.at(g, indices, values.astype(np.float64))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w = w - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w


@pytest.mark.parametrize(
    ("lr", "decay", "least", "plain_at_most"), [(3e-5, 1e-3, 0.99, 0.85), (3e-4, 1e-5, 0.95, 0.85)]
)
def test_coupled_decay_follows_dense_adam(lr: float, decay: float, least: float, plain_at_most: float) -> None:
    """OptEmbed's two settings, rows by Zipf's law, half of them never seen: norms of rows are what its masks go by."""
    count, width, steps = 2000, 8, 1500
    random = np.random.default_rng(0)
    frequency = 1 / np.arange(1, count + 1)
    start = random.uniform(-0.0024, 0.0024, (count, width)).astype(np.float32)
    ids = random.choice(count, size=(steps, 4), p=frequency / frequency.sum()).astype(np.int32)
    aim = random.normal(size=(count, width))
    rows = (1e-3 * (random.normal(size=(steps, 4, width)) - 0.3 * aim[ids])).astype(np.float32)
    dense = dense_coupled_adam(start.astype(np.float64), ids, rows, lr, decay)

    def norms(coupled_decay: float) -> Doubles:
        table, optimizer = tf.Variable(start), LazyAdam(lr, coupled_decay=coupled_decay)
        train(optimizer, table, ids, rows)
        optimizer.flush()
        return np.abs(table.numpy().astype(np.float64)).sum(1)

    expected, found = np.abs(dense).sum(1), norms(decay)
    assert np.corrcoef(found, expected)[0, 1] >= least
    assert np.corrcoef(norms(0.0), expected)[0, 1] <= plain_at_most
    # Unseen rows vanish; correlation alone would not see a common factor.
    unseen = np.setdiff1d(np.arange(count), ids)
    assert len(unseen) > 500
    assert found[unseen].max() < 1e-6
    assert found.mean() == pytest.approx(expected.mean(), rel=0.15)


def test_coupled_decay_of_rows_touched_at_every_step_is_exact() -> None:
    start, _, _ = world()
    random = np.random.default_rng(5)
    ids = np.tile(np.arange(V, dtype=np.int32), (STEPS, 1))
    rows = random.normal(size=(STEPS, V, D)).astype(np.float32)
    table, optimizer = tf.Variable(start), LazyAdam(LR, coupled_decay=DECAY)
    train(optimizer, table, ids, rows)
    expected = dense_coupled_adam(start.astype(np.float64), ids, rows, LR, DECAY)
    np.testing.assert_allclose(table.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_row_decays_in_one_way() -> None:
    with pytest.raises(ValueError, match="in one way"):
        LazyAdam(decoupled_decay=0.1, coupled_decay=0.1)


@pytest.mark.parametrize("kind", ["adagrad", "rowwise_adagrad"])
def test_the_yaml_offers_adagrad_no_coupled_decay(kind: str) -> None:
    adapter: TypeAdapter[TableOptimizerConfig] = TypeAdapter(TableOptimizerConfig)
    with pytest.raises(ValidationError, match="decoupled"):
        adapter.validate_python({"kind": kind, "decay": {"kind": "coupled", "rate": 0.1}})


@pytest.mark.parametrize("kind", ["adagrad", "rowwise_adagrad", "lazy_adam"])
def test_decay_and_scale_rate_reach_the_optimizer(kind: str) -> None:
    adapter: TypeAdapter[TableOptimizerConfig] = TypeAdapter(TableOptimizerConfig)
    raw = {"kind": kind, "decay": {"kind": "decoupled", "rate": 0.25}, "scale_learning_rate": 0.5}
    optimizer = make_table_optimizer(adapter.validate_python(raw))
    assert (optimizer.decoupled_decay, optimizer.scale_learning_rate) == (0.25, 0.5)
    assert make_table_optimizer(adapter.validate_python({"kind": kind})).decoupled_decay == 0


def test_coupled_decay_reaches_the_optimizer() -> None:
    adapter: TypeAdapter[TableOptimizerConfig] = TypeAdapter(TableOptimizerConfig)
    raw = {"kind": "lazy_adam", "decay": {"kind": "coupled", "rate": 0.25}}
    optimizer = make_table_optimizer(adapter.validate_python(raw))
    assert isinstance(optimizer, LazyAdam)
    assert (optimizer.coupled_decay, optimizer.decoupled_decay) == (0.25, 0)
