"""The optimizers of several tables: who trains what, checkpoints, replicas."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys._compat import keras, tf
from recsys.embeddings.optimizers import LazyAdam, RowwiseAdagrad, TableOptimizers
from recsys.embeddings.optimizers.config import DecoupledDecay, LazyAdamConfig, RowwiseAdagradConfig
from recsys.embeddings.packing import pack, scales
from recsys.embeddings.rows import Trained

ADAM = LazyAdamConfig(kind="lazy_adam", learning_rate=0.01)
DECAYING = RowwiseAdagradConfig(kind="rowwise_adagrad", decay=DecoupledDecay(kind="decoupled", rate=0.5))
CONFIGS = {"user": ADAM, "movie": DECAYING, "genre": ADAM}
V, D = 12, 4


def tables(seed: int = 0) -> list[Trained]:
    """`movie` is stored in 8 bits, and differentiated through a port."""
    random = np.random.default_rng(seed)
    found = []
    for name in CONFIGS:
        rows = tf.constant(random.normal(size=(V, D)), tf.float32)
        variable = tf.Variable(pack(rows, scales(rows)) if name == "movie" else rows, trainable=name != "movie")
        found.append(Trained(name, variable, tf.Variable(0.0) if name == "movie" else variable))
    return found


def gradients(step: int) -> list[tf.IndexedSlices]:
    random = np.random.default_rng([7, step])
    return [
        tf.IndexedSlices(
            tf.constant(random.normal(size=(5, D)), tf.float32),
            tf.constant(random.integers(0, V, 5)),
            tf.constant([V, D], tf.int64),
        )
        for _ in CONFIGS
    ]


def held(trained: list[Trained]) -> list[NDArray]:
    return [each.variable.numpy() for each in trained]


def test_each_distinct_config_has_one_optimizer() -> None:
    optimizers = TableOptimizers(CONFIGS)
    assert isinstance(optimizers.optimizer_of("movie"), RowwiseAdagrad)
    assert isinstance(optimizers.optimizer_of("user"), LazyAdam)
    assert optimizers.optimizer_of("user") is optimizers.optimizer_of("genre")
    assert len(optimizers.optimizers) == 2


def test_a_table_is_trained_by_its_own_optimizer_alone() -> None:
    trained = tables()
    optimizers = TableOptimizers(CONFIGS)
    optimizers.build(trained)
    optimizers.apply(gradients(0), trained)
    alone = tables()
    adam = LazyAdam(0.01)
    adam.apply_gradients([(gradients(0)[0], alone[0].variable), (gradients(0)[2], alone[2].variable)])
    np.testing.assert_array_equal(trained[0].variable, alone[0].variable)
    np.testing.assert_array_equal(trained[2].variable, alone[2].variable)
    assert np.any(trained[1].variable.numpy() != alone[1].variable.numpy())


def test_a_step_without_gradients_for_some_tables_leaves_them() -> None:
    trained = tables()
    before = held(trained)
    optimizers = TableOptimizers(CONFIGS)
    optimizers.build(trained)
    optimizers.apply([gradients(0)[0], None, None], trained)
    after = held(trained)
    assert np.any(after[0] != before[0])
    np.testing.assert_array_equal(after[1], before[1])
    np.testing.assert_array_equal(after[2], before[2])


def test_a_checkpoint_goes_on_bitwise_whatever_the_order_of_tables(tmp_path: Path) -> None:
    trained = tables()
    optimizers = TableOptimizers(CONFIGS)
    optimizers.build(trained)
    for step in range(3):
        optimizers.apply(gradients(step), trained)

    def checkpoint(optimizers: TableOptimizers, trained: list[Trained]) -> tf.train.Checkpoint:
        variables = {each.table: each.variable for each in trained}
        return tf.train.Checkpoint(optimizers=optimizers, **variables)

    path = checkpoint(optimizers, trained).write(str(tmp_path / "checkpoint"))
    again, restored = TableOptimizers(dict(reversed(CONFIGS.items()))), tables(seed=9)
    again.build(restored)
    checkpoint(again, restored).read(path).assert_existing_objects_matched().assert_consumed()
    for step in range(3, 6):
        optimizers.apply(gradients(step), trained)
        again.apply(gradients(step), restored)
    optimizers.flush()
    again.flush()
    for mine, theirs in zip(held(restored), held(trained), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert {int(o.iterations) for o in again.optimizers.values()} == {6}


def test_flush_reaches_the_tables_that_decay() -> None:
    trained = tables()
    optimizers = TableOptimizers(CONFIGS)
    optimizers.build(trained)
    optimizers.apply(gradients(0), trained)
    before = held(trained)
    optimizers.flush()
    after = held(trained)
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_array_equal(after[2], before[2])
    assert np.any(after[1] != before[1])


def test_slots_are_no_weights_of_a_model_that_holds_the_optimizers() -> None:
    trained = tables()
    model = keras.Sequential([keras.layers.Dense(2)])
    model.build([None, 3])
    model.table_optimizer = TableOptimizers(CONFIGS)
    model.table_optimizer.build(trained)
    assert len(model.variables) == 2
    # Two moments each of user and genre; accumulator and last step of movie; the step count of each optimizer.
    assert len(model.table_optimizer.variables) == 2 * 2 + 2 + 2


@pytest.fixture(scope="module")
def on_replicas(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, NDArray[np.float64]]]:
    """By case, what one device and two hold after the same steps. A process sets its devices once: each has its own."""
    script, folder = Path(__file__).with_name("replicas.py"), tmp_path_factory.mktemp("replicas")
    runs = [
        subprocess.Popen(
            [sys.executable, str(script), str(count), str(folder / f"{count}.npz")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for count in (1, 2)
    ]
    for run in runs:
        log, _ = run.communicate(timeout=300)
        assert run.returncode == 0, log[-3000:]
    return [dict(np.load(folder / f"{count}.npz")) for count in (1, 2)]


def test_two_replicas_train_as_one(on_replicas: list[dict[str, NDArray[np.float64]]]) -> None:
    one, two = on_replicas
    assert one.keys() == two.keys()
    for case, found in one.items():
        # Sums over replicas are in another order only where there is a norm or a dense gradient.
        np.testing.assert_allclose(two[case], found, rtol=1e-5, atol=1e-6, err_msg=case)
    np.testing.assert_raises(
        AssertionError, np.testing.assert_allclose, one["adagrad-float32-None"], one["adagrad-float32-2.0"], rtol=1e-2
    )
