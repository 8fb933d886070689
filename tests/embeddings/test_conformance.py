"""What every table method inherits, at every precision: one suite for all members of the union `TableConfig`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from recsys._compat import keras, tf
from recsys.embeddings.collection import EmbeddingCollection
from recsys.embeddings.config import EmbeddingsConfig, row_width
from recsys.embeddings.optimizers import TableOptimizers
from recsys.embeddings.optimizers.config import TableOptimizerConfig
from recsys.schema.config import SchemaConfig
from tests.embeddings.methods import (
    CASES,
    FEATURES,
    PRECISIONS,
    UNIONS,
    Batch,
    Case,
    batch,
    collection_of,
    config_of,
    every_id,
    ids_read,
    outputs,
    rows_of,
    write_given,
)

Arrays = dict[str, NDArray[Any]]


def only(suits: Callable[[Case], bool]) -> pytest.MarkDecorator:
    """For the cases that suit."""
    found = {name: case for name, case in CASES.items() if suits(case)}
    return pytest.mark.parametrize("case", found.values(), ids=list(found))


EVERY = only(lambda case: True)
OPTIMIZERS = {
    "lazy_adam": {"kind": "lazy_adam", "learning_rate": 0.05},
    "rowwise_adagrad": {"kind": "rowwise_adagrad", "learning_rate": 0.1},
    "adagrad": {"kind": "adagrad", "learning_rate": 0.1},
}
SCHEMA = SchemaConfig.model_validate(
    {
        "user": "u",
        "item": "i",
        "timestamp": "t",
        "features": {
            "recent": {"kind": "sequence", "of": "movie", "max_length": 4},
            "history": {"kind": "sequence", "of": "movie", "max_length": 4, "age": True},
            "user": {"kind": "categorical", "role": "context"},
            "movie": {"kind": "categorical", "role": "item"},
            "genres": {"kind": "multi_valued", "role": "item", "max_length": 3},
            "price": {"kind": "numeric", "role": "item", "transform": "bucketize"},
        },
    }
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the given vectors are."""
    path: Path = tmp_path_factory.mktemp("methods")
    write_given(path)
    return path


def optimizers(config: EmbeddingsConfig, kind: str = "lazy_adam") -> TableOptimizers:
    raw = config.model_dump(exclude_none=True) | {"optimizer": OPTIMIZERS[kind]}
    config = EmbeddingsConfig.model_validate(raw)
    return TableOptimizers({table: config.optimizer_of(table) for table in config.tables})


def loss_of(found: Mapping[str, tf.Tensor], seed: int = 0) -> tf.Tensor:
    """A sum of all outputs with random coefficients, in float32."""
    total = tf.zeros([])
    for number, (_, value) in enumerate(sorted(found.items())):
        # Coefficients by column, not by row, so that batches of different shapes can be compared.
        rng = np.random.default_rng([seed, number])
        coefficients = rng.uniform(0.5, 1.5, (64, 128)) * rng.choice([-1, 1], (64, 128))
        rows, columns = (value.shape[0], value.shape[-1])
        by_row = coefficients[:rows, :columns].astype(np.float32)
        total += tf.reduce_sum(tf.cast(value, tf.float32) * (by_row if value.shape.rank == 2 else by_row[:, None]))
    return total


def gradients(collection: EmbeddingCollection, values: Batch, seed: int = 0) -> tuple[tf.Tensor, list[Any]]:
    with tf.GradientTape() as tape:
        loss = loss_of(outputs(collection, values), seed)
    return loss, tape.gradient(loss, [trained.source for trained in collection.trained()])


def step(collection: EmbeddingCollection, by: TableOptimizers, values: Batch, seed: int = 0) -> None:
    by.apply(gradients(collection, values, seed)[1], collection.trained())


def stored(collection: EmbeddingCollection, table: str = "t") -> list[NDArray[Any]]:
    """The rows as they are stored, of each variable."""
    return [trained.variable.numpy() for trained in collection.tables[table].trained()]


def changed(before: Sequence[NDArray[Any]], after: Sequence[NDArray[Any]]) -> list[set[int]]:
    """Rows of each variable that have other bits."""
    return [
        set(np.flatnonzero((one.view(np.uint8) != other.view(np.uint8)).reshape(len(one), -1).any(1)).tolist())
        for one, other in zip(before, after, strict=True)
    ]


def decoded(collection: EmbeddingCollection) -> NDArray[np.float32]:
    """[V, d] what each row of the table gives."""
    store = collection.tables["t"].store
    return store.lookup(tf.range(store.rows)).numpy()


# Nothing is left out.


def test_every_method_is_here() -> None:
    """The suite is what a new method must pass: one that joins the union joins it too."""
    assert len(UNIONS) >= 6
    for union in UNIONS:
        method = get_args(union.model_fields["method"].annotation)[0]
        cases = [case for case in CASES.values() if case.method == method]
        assert cases, f"{method} has no case in tests/embeddings/methods.py"
        for field, annotation in union.model_fields.items():
            if field == "precision":
                assert {case.precision for case in cases} == set(PRECISIONS), method
            if field == "train":
                assert {case.table.get("train", "frozen") for case in cases} == set(get_args(annotation.annotation))
            if field == "projection":
                assert {"projection" in case.table for case in cases} == {True, False}
    assert {case.chunks for case in CASES.values()} == {1, 3}
    assert {case.served for case in CASES.values()} == {"float32", "float16", "bfloat16", "int8"}


def test_every_optimizer_is_here() -> None:
    kinds = {
        get_args(config.model_fields["kind"].annotation)[0] for config in get_args(get_args(TableOptimizerConfig)[0])
    }
    assert kinds == OPTIMIZERS.keys()


# Shapes and configs.


@EVERY
@pytest.mark.parametrize("size", [6, 1, 0])
def test_shapes(case: Case, folder: Path, size: int) -> None:
    collection, config = collection_of(case, folder), config_of(case, folder)
    embedded = collection(batch(size))
    width = row_width(config.tables["t"]) * case.chunks
    widths = {name: config.width(name, feature) for name, feature in SCHEMA.features.items()}
    assert widths == {name: 0 if name == "recent" else width if name in case.readers else 3 for name in FEATURES}
    assert embedded.layout() == [(name, width) for name, width in widths.items() if width]
    for name, vector in embedded.vectors().items():
        assert (vector.shape, vector.dtype) == ((size, widths[name]), tf.float32)
    assert embedded.concat().shape == (size, sum(widths.values()))
    assert embedded.sequences.keys() == {"recent"}
    recent = embedded.sequences["recent"]
    assert (recent.values.shape, recent.mask.shape) == ((size, 4, width), (size, 4))
    np.testing.assert_array_equal(recent.mask, batch(size)["recent"].numpy() > 0)
    if case.readers == tuple(FEATURES):
        assert embedded.fields().shape == (size, 5, width)


@EVERY
def test_in_a_graph_of_unknown_batch_size_it_is_the_same(case: Case, folder: Path) -> None:
    collection = collection_of(case, folder)
    graph = tf.function(lambda values: outputs(collection, values))
    specs = {name: tf.TensorSpec([None, *value.shape[1:]], value.dtype) for name, value in batch().items()}
    concrete = graph.get_concrete_function(specs)
    for size in (6, 3, 0):
        for name, value in outputs(collection, batch(size)).items():
            np.testing.assert_allclose(concrete(batch(size))[name], value, rtol=1e-6, atol=1e-7)


@EVERY
def test_the_config_survives_yaml(case: Case, folder: Path) -> None:
    config = config_of(case, folder)
    assert config.problems(SCHEMA) == []
    again = EmbeddingsConfig.model_validate(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json"))))
    assert again == config
    assert again.tables["t"].model_dump()["method"] == case.method
    assert EmbeddingsConfig.model_validate_json(config.model_dump_json(exclude_none=True)) == config


@EVERY
def test_names_and_initial_values_depend_on_config_and_seed_alone(case: Case, folder: Path) -> None:
    """Not on what was made before, nor on the global generators: checkpoints and resumed runs rely on it."""
    one = collection_of(case, folder)
    tf.random.set_seed(int(np.random.default_rng().integers(1 << 30)))
    keras.layers.Dense(3, name="table_t").build((None, 2))
    again, other = collection_of(case, folder), collection_of(case, folder, seed=1)
    names = [variable.name for variable in one.weights]
    assert len(set(names)) == len(names), names
    assert [variable.name for variable in again.weights] == names
    for variable, same in zip(one.weights, again.weights, strict=True):
        np.testing.assert_array_equal(variable, same)
    if case.trains and case.method != "vector":
        assert not np.allclose(decoded(one), decoded(other))


# Gradients.


@EVERY
def test_every_gradient_flows(case: Case, folder: Path) -> None:
    """To the rows, and to all that the dense optimizer trains: projections, codebooks, the decay of ages."""
    collection = collection_of(case, folder)
    trained = collection.trained()
    dense = [v for v in collection.trainable_variables if id(v) not in {id(each.source) for each in trained}]
    assert ("t" in {each.table for each in trained}) == case.trains
    if case.method in ("mixed_dim", "mgqe") or "projection" in case.table:
        assert len(dense) >= 2, "projections or a codebook, and the decay of ages"
    with tf.GradientTape() as tape:
        loss = loss_of(outputs(collection, every_id()))
    found = tape.gradient(loss, [each.source for each in trained] + dense)
    for variable, gradient in zip([each.variable for each in trained] + dense, found, strict=True):
        assert gradient is not None, variable.name
        values = gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
        assert np.isfinite(values).all(), variable.name
        assert np.abs(values).max() > 1e-8, variable.name
    for gradient in found[: len(trained)]:
        assert isinstance(gradient, tf.IndexedSlices), "a step must cost what the batch touches"


@EVERY
def test_every_feature_trains_the_table(case: Case, folder: Path) -> None:
    collection = collection_of(case, folder)
    sources = [trained.source for trained in collection.tables["t"].trained()]
    for name in case.readers:
        with tf.GradientTape() as tape:
            embedded = collection(batch())
            value = embedded.sequences[name].values if name == "recent" else embedded.vectors()[name]
            loss = tf.reduce_sum(value)
        found = [g for g in tape.gradient(loss, sources) if g is not None]
        assert bool(found) == case.trains, name
        assert not found or max(np.abs(tf.convert_to_tensor(g)).max() for g in found) > 1e-8, name


@only(lambda case: case.trains and case.method not in ("mixed_dim", "mgqe") and "projection" not in case.table)
def test_the_gradient_of_the_rows_is_that_of_float32_rows(case: Case, folder: Path) -> None:
    """Rows below float32 are not differentiated but through a port; the sum over all that read a row must come out."""
    collection = collection_of(case, folder)
    plain = tf.Variable(decoded(collection))

    class Plain:
        def lookup(self, rows: tf.Tensor) -> tf.Tensor:
            return tf.gather(plain, rows)

    served: Any = {name: table.store for name, table in collection.tables.items()} | {"t": Plain()}
    with tf.GradientTape() as tape:
        loss = loss_of(outputs(collection, batch(), served))
    expected = tf.convert_to_tensor(tape.gradient(loss, plain))
    _, found = gradients(collection, batch())
    by_table = dict(zip([trained.table for trained in collection.trained()], found, strict=True))
    gradient = tf.convert_to_tensor(by_table["t"])
    assert gradient.shape == expected.shape
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


@only(lambda case: case.precision == "float32" and case.method != "mgqe")
def test_the_gradient_is_the_slope(case: Case, folder: Path) -> None:
    """The loss is linear in each variable alone, rows or projection: there is no error but rounding's."""
    collection = collection_of(case, folder)
    dense = [v for v in collection.trainable_variables if "projection" in v.name]
    variables = [trained.variable for trained in collection.trained()] + dense
    with tf.GradientTape() as tape:
        before = loss_of(outputs(collection, every_id()))
    for variable, gradient in zip(variables, tape.gradient(before, variables), strict=True):
        move = tf.random.stateless_normal(variable.shape, [1, 2])
        start = variable.numpy()
        variable.assign_add(move)
        rise = float(loss_of(outputs(collection, every_id())) - before)
        variable.assign(start)
        expected = float(tf.reduce_sum(tf.convert_to_tensor(gradient) * move))
        assert abs(expected) > 1e-3
        np.testing.assert_allclose(rise, expected, rtol=1e-4, atol=1e-3)


def test_the_two_tests_above_leave_out_no_trained_method_but_one() -> None:
    """A codebook's gradient goes straight through, which is not the slope: test_mgqe.py."""
    assert {case.method for case in CASES.values() if case.precision == "float32"} - {"mgqe"} == {
        get_args(union.model_fields["method"].annotation)[0] for union in UNIONS
    } - {"mgqe"}


@EVERY
def test_features_that_share_ids_share_rows(case: Case, folder: Path) -> None:
    """A history of one event, just now, is its item; the row learns from both."""
    collection = collection_of(case, folder)
    ids = np.array([7, 8, 9], np.int32)
    one = tf.constant(np.pad(ids[:, np.newaxis], [(0, 0), (0, 2)]))
    values = {"movie": tf.constant(ids), "history": one, "recent": one, "history.age": tf.zeros([3, 3])}
    embedded = collection(values)
    vectors = embedded.vectors()
    np.testing.assert_array_equal(vectors["history"], vectors["movie"])
    np.testing.assert_array_equal(embedded.sequences["recent"].values[:, 0], vectors["movie"])

    sources = [trained.source for trained in collection.tables["t"].trained()]

    def gradient(**seeds: int) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            found = collection(values).vectors()
            loss = tf.add_n([loss_of({name: found[name]}, seed) for name, seed in seeds.items()])
        return [tf.convert_to_tensor(g) for g in tape.gradient(loss, sources, unconnected_gradients="zero")]

    for both, movie, history in zip(gradient(movie=0, history=1), gradient(movie=0), gradient(history=1), strict=True):
        assert set(np.flatnonzero(np.abs(movie).max(1))) == set(np.flatnonzero(np.abs(history).max(1)))
        if case.method != "mgqe":  # whose commitment counts lookups, once each
            np.testing.assert_allclose(both, movie + history, rtol=1e-5, atol=1e-6)


# Steps of the sparse optimizers.


@EVERY
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_step_changes_the_rows_it_reads_and_no_other_bit(case: Case, kind: str, folder: Path) -> None:
    """Also where rows have a momentum from steps before, and padding stands where a row has one: rows of the first
    half rest in the second step.
    """
    collection = collection_of(case, folder)
    by = optimizers(collection.config, kind)
    by.build(collection.trained())
    start = stored(collection)
    for half in (0, 1):
        before, frozen = stored(collection), decoded(collection)
        step(collection, by, batch(half=half), seed=half)
        moved = changed(before, stored(collection))
        rows = set(rows_of(collection, ids_read(batch(half=half))).tolist())
        assert sum(map(len, moved)) == (len(rows) if case.trains else 0)
        if len(moved) == 1 and case.method != "mixed_dim":
            assert moved[0] == rows
        rest = sorted(set(range(len(frozen))) - rows)
        assert len(rest) > 5
        np.testing.assert_array_equal(decoded(collection)[rest], frozen[rest])
        if case.trains and case.method != "mgqe":  # where a row may move and its nearest centroids stay
            assert np.abs(decoded(collection) - frozen)[sorted(rows)].max(1).min() > 0
    assert all(len(rows) > 0 for rows in changed(start, stored(collection)))


@EVERY
def test_steps_inside_a_graph_and_in_many_batches_lower_the_loss(case: Case, folder: Path) -> None:
    collection = collection_of(case, folder)
    by = optimizers(collection.config)
    by.build(collection.trained())
    dense = keras.optimizers.Adam(0.01, jit_compile=False)
    weights = [v for v in collection.trainable_variables if id(v) not in {id(t.source) for t in collection.trained()}]
    dense.build(weights)
    target = {name: tf.cast(tf.sign(value), tf.float32) for name, value in outputs(collection, batch()).items()}

    @tf.function
    def train(values: Batch) -> tf.Tensor:
        trained = collection.trained()
        with tf.GradientTape() as tape:
            found = outputs(collection, values)
            loss = tf.add_n([tf.reduce_mean(tf.square(found[name] - target[name])) for name in target])
        found = tape.gradient(loss, [each.source for each in trained] + weights)
        by.apply(found[: len(trained)], trained)
        dense.apply_gradients(zip(found[len(trained) :], weights, strict=True))
        return loss

    losses = [float(train(batch())) for _ in range(30)]
    assert np.isfinite(losses).all()
    learnable = case.trains or "projection" in case.table
    # Codes jump, and there are but eight of them.
    assert losses[-1] < (0.9 if case.method == "mgqe" or not learnable else 0.5) * losses[0]


@EVERY
def test_an_empty_batch_teaches_nothing(case: Case, folder: Path) -> None:
    collection = collection_of(case, folder)
    by = optimizers(collection.config)
    by.build(collection.trained())
    before = [variable.numpy() for variable in collection.weights]
    loss, found = gradients(collection, batch(0))
    assert float(loss) == 0.0
    by.apply(found, collection.trained())
    for variable, old in zip(collection.weights, before, strict=True):
        np.testing.assert_array_equal(variable, old)


@EVERY
@pytest.mark.parametrize("special", ["missing", "oov"])
def test_all_missing_and_all_unknown(case: Case, folder: Path, special: str) -> None:
    """Nothing but padding, or nothing but the OOV id: finite, and the gradients too; no other row learns."""
    collection = collection_of(case, folder)
    value = int(special == "oov")
    values = {name: tf.zeros_like(v) + tf.cast(value, v.dtype) for name, v in batch().items()}
    values["price"] = tf.fill([6], np.float32(np.nan))
    embedded = collection(values)
    assert np.isfinite(embedded.concat()).all()
    for name in ("history", "genres"):
        no_vector = special == "missing" or (name == "history" and case.method == "vector")
        assert (np.abs(embedded.vectors()[name]).max() == 0) == no_vector
    assert embedded.sequences["recent"].mask.numpy().any() == (special == "oov")
    by = optimizers(collection.config)
    before = stored(collection)
    step(collection, by, values)
    price = np.zeros(1, np.int64)
    ids = {name: np.full(1, value) for name in FEATURES} | {"price": price}
    if special == "missing":
        ids |= dict.fromkeys(("recent", "history", "genres"), np.zeros(0, np.int64))
    allowed = set(rows_of(collection, ids).tolist())
    moved = changed(before, stored(collection))
    assert sum(map(len, moved)) == (len(allowed) if case.trains else 0)
    if case.trains and case.method != "mixed_dim":
        assert moved == [allowed]
    assert all(np.isfinite(tf.cast(variable, tf.float32)).all() for variable in collection.weights)


@EVERY
def test_more_padding_changes_nothing(case: Case, folder: Path) -> None:
    one, other = collection_of(case, folder), collection_of(case, folder)
    narrow, wide = batch(), batch(padding=3)
    a, b = outputs(one, narrow), outputs(other, wide)
    np.testing.assert_allclose(a["concat"], b["concat"], rtol=1e-6, atol=1e-8)
    np.testing.assert_array_equal(a["recent"], b["recent"][:, :4])
    assert np.abs(b["recent"][:, 4:]).max() == 0
    for _ in range(2):
        for collection, values in ((one, narrow), (other, wide)):
            by = optimizers(collection.config, "rowwise_adagrad")
            step(collection, by, values)
    if case.method != "mgqe":  # whose commitment is a mean over all places
        for x, y in zip(stored(one), stored(other), strict=True):
            if x.dtype == np.float32:
                np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
            assert changed([x], [np.zeros_like(x)]) == changed([y], [np.zeros_like(y)])


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


@only(lambda case: case.method in ("full", "hashed", "multiplexed", "vector"))
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
