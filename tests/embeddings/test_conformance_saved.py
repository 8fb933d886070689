"""The conformance suite under mixed precision, and saved: every table method in a bundle and in a checkpoint."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys._compat import keras, tf
from recsys.embeddings.collection import EmbeddingCollection
from tests.embeddings.conformance import (
    EVERY,
    Arrays,
    decoded,
    loss_of,
    only,
    optimizers,
    step,
)
from tests.embeddings.methods import (
    CASES,
    Batch,
    Case,
    batch,
    collection_of,
    outputs,
    write_given,
)

# Mixed precision.


@pytest.fixture
def policy(request: pytest.FixtureRequest) -> Iterator[str]:
    keras.mixed_precision.set_global_policy(request.param)
    yield request.param
    keras.mixed_precision.set_global_policy("float32")


MIXED = pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"], indirect=True)


@EVERY
@MIXED
def test_mixed_precision(case: Case, policy: str, folder: Path) -> None:
    """Vectors come in the compute type, of ages beyond float16 too; tables, decays and projections of rows stay as they
    are; training with a scaled loss moves tables as without.
    """
    collection = collection_of(case, folder)
    values = batch()
    embedded = collection(values)
    kind = tf.as_dtype(policy.removeprefix("mixed_"))
    assert {value.dtype for value in (*embedded.vectors().values(), embedded.sequences["recent"].values)} == {kind}
    expected = {trained.variable.dtype for trained in collection.trained() if trained.table == "t"}
    assert expected <= {tf.as_dtype(case.precision)}
    assert {v.dtype for v in collection.trainable_variables} <= {tf.float32}
    keras.mixed_precision.set_global_policy("float32")
    plain = collection_of(case, folder)
    keras.mixed_precision.set_global_policy(policy)
    tolerance = 2e-3 if kind == tf.float16 else 1.6e-2
    for name, value in outputs(plain, values).items():
        found = tf.cast(outputs(collection, values)[name], tf.float32)
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found, value, rtol=tolerance, atol=tolerance * np.abs(value).max())
    if case.trains:
        one, other = train_scaled(collection, values, 1024.0), train_scaled(plain, values, 1.0)
        assert np.isfinite(one).all()
        np.testing.assert_allclose(one, other, rtol=0.05, atol=0.05 * np.abs(other).max())


def train_scaled(collection: EmbeddingCollection, values: Batch, scale: float) -> NDArray[np.float32]:
    """The table's vectors after three steps with Keras' loss scaling around the tables' own optimizer."""
    trained = collection.trained()
    inner = optimizers(collection.config, "adagrad").optimizer_of("t")
    scaled = keras.mixed_precision.LossScaleOptimizer(inner, dynamic=False, initial_scale=scale)
    scaled.build([each.variable for each in trained])
    for seed in range(3):
        with tf.GradientTape() as tape:
            loss = scaled.get_scaled_loss(loss_of(outputs(collection, values), seed))
        found = scaled.get_unscaled_gradients(tape.gradient(loss, [each.source for each in trained]))
        scaled.apply_gradients(zip(found, [each.variable for each in trained], strict=True))
    return decoded(collection)


@only(lambda case: case.trains)
@MIXED
def test_an_overflow_is_a_step_left_out(case: Case, policy: str, folder: Path) -> None:
    """With a loss scale that float16 cannot carry, no row becomes NaN; Keras halves the scale and goes on."""
    collection = collection_of(case, folder)
    trained = collection.trained()
    inner = optimizers(collection.config).optimizer_of("t")
    scaled = keras.mixed_precision.LossScaleOptimizer(inner, dynamic=True, initial_scale=2.0**127)
    scaled.build([each.variable for each in trained])
    before = [variable.numpy() for variable in collection.weights]
    with tf.GradientTape() as tape:
        loss = scaled.get_scaled_loss(4.0 * loss_of(outputs(collection, batch())))
    found = scaled.get_unscaled_gradients(tape.gradient(loss, [each.source for each in trained]))
    scaled.apply_gradients(zip(found, [each.variable for each in trained], strict=True))
    for variable, old in zip(collection.weights, before, strict=True):
        np.testing.assert_array_equal(variable, old)
    assert float(scaled.loss_scale) == 2.0**126


# Saved, and read in another process.


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> tuple[Arrays, Arrays]:
    """What trained collections of all cases give here, and what a fresh process reads from their files."""
    folder: Path = tmp_path_factory.mktemp("fresh")
    write_given(folder)
    values = batch()
    np.savez(folder / "batch.npz", **{name: value.numpy() for name, value in values.items()})
    here: Arrays = {}
    for name, case in CASES.items():
        collection = collection_of(case, folder)
        by = optimizers(collection.config)
        for seed in range(3):
            step(collection, by, values, seed)
        served = collection.serve()
        save(collection, served, folder / "served" / name)
        tf.train.Checkpoint(embeddings=collection).write(str(folder / "checkpoints" / name))
        here |= {f"{name}/trained/{key}": value.numpy() for key, value in outputs(collection, values).items()}
        here |= {f"{name}/served/{key}": value.numpy() for key, value in outputs(collection, values, served).items()}
    environment = {**os.environ, "PYTHONHASHSEED": "4321", "PYTHONPATH": os.pathsep.join(sys.path)}
    script = [sys.executable, str(Path(__file__).with_name("fresh.py")), str(folder)]
    done = subprocess.run(script, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return here, dict(np.load(folder / "fresh.npz"))


def save(collection: EmbeddingCollection, served: Mapping[str, Any], path: Path) -> None:
    """As `export` does: the function, and the variables that it reads."""
    specs = {
        name: tf.TensorSpec([None, *value.shape[1:]], value.dtype, name.replace(".", "_"))
        for name, value in batch().items()
    }
    graph = tf.function(lambda values: outputs(collection, values, served), autograph=False)
    module = tf.Module()
    module.serve = graph.get_concrete_function(specs)
    module.read = list(module.serve.variables)
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.serve})


@EVERY
def test_a_bundles_graph_needs_tensorflow_alone(case: Case, fresh: tuple[Arrays, Arrays]) -> None:
    here, there = fresh
    name = name_of(case)
    for key in ("concat", "recent"):
        served, trained = here[f"{name}/served/{key}"], here[f"{name}/trained/{key}"]
        # Another process, the same graph: the same bits.
        np.testing.assert_array_equal(there[f"{name}/served/{key}"], served)
        # Served rows are those in training, but for the precision: half a step of the largest number of a row.
        largest = np.abs(trained).max()
        steps = {"float32": 0.0, "float16": 2.0**-11, "bfloat16": 2.0**-8, "int8": 0.51 / 127}
        tolerance = 0.0 if case.served == case.precision != "int8" else steps[case.served]
        np.testing.assert_allclose(served, trained, rtol=0, atol=tolerance * largest)


@EVERY
def test_a_checkpoint_restores_the_trained_layer(case: Case, fresh: tuple[Arrays, Arrays]) -> None:
    here, there = fresh
    name = name_of(case)
    for key in ("concat", "recent"):
        np.testing.assert_array_equal(there[f"{name}/restored/{key}"], here[f"{name}/trained/{key}"])
    if case.trains or "projection" in case.table:
        assert not np.allclose(there[f"{name}/before/concat"], here[f"{name}/trained/concat"])


def name_of(case: Case) -> str:
    return next(name for name, each in CASES.items() if each is case)


@only(lambda case: case.method in ("full", "hashed", "multiplexed", "vector") and not case.plan)
def test_served_bytes_are_those_of_the_precision(case: Case, folder: Path) -> None:
    collection = collection_of(case, folder)
    rows = collection.tables["t"].store.rows
    dim = collection.tables["t"].store.dim
    a_row = {"float32": 4 * dim, "float16": 2 * dim, "bfloat16": 2 * dim, "int8": dim + 2}[case.served]
    served: Any = collection.serve()["t"]
    variables = {id(v): v for v in served.variables}.values()
    found = sum(int(np.prod(v.shape)) * v.dtype.size for v in variables)
    kept = 4 * 8 * rows + 4 * 8 * 6  # a projection of float32 rows may be served with them
    assert found in ({rows * a_row, kept} if case.method == "vector" else {rows * a_row})
