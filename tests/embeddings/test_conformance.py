"""What every table method inherits, at every precision: one suite for all members of the union `TableConfig`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml

from recsys._compat import keras, tf
from recsys.embeddings.config import EmbeddingsConfig, row_width
from recsys.embeddings.optimizers.config import TableOptimizerConfig
from tests.embeddings.conformance import (
    EVERY,
    OPTIMIZERS,
    SCHEMA,
    alone,
    changed,
    decoded,
    gradients,
    loss_of,
    only,
    optimizers,
    reached,
    step,
    stored,
)
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
)


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
    apart = {id(each.source) for each in (*trained, *collection.thresholds())}
    dense = [v for v in collection.trainable_variables if id(v) not in apart]
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


@only(
    lambda case: (
        case.trains and case.method not in ("mixed_dim", "mgqe") and "projection" not in case.table and not case.plan
    )
)
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
        assert sum(map(len, moved)) == (reached(collection, rows) if case.trains else 0)
        if len(moved) == 1 and case.method != "mixed_dim" and not case.plan:
            assert moved[0] == rows
        rest = [row for row in sorted(set(range(len(frozen))) - rows) if alone(collection, row)]
        assert len(rest) > 5
        np.testing.assert_array_equal(decoded(collection)[rest], frozen[rest])
        if case.trains and case.method != "mgqe":  # where a row may move and its nearest centroids stay
            learning = [row for row in sorted(rows) if reached(collection, {row})]
            assert np.abs(decoded(collection) - frozen)[learning].max(1).min() > 0
    reads = any if case.plan else all  # a plan's variables may hold a few ids each
    assert reads(len(rows) > 0 for rows in changed(start, stored(collection)))


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
    learnable = (case.trains or "projection" in case.table) and not case.plan  # which keeps zeros
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
        if case.plan:  # which may have pruned the OOV id
            no_vector |= reached(collection, set(collection.tables["t"].rows_of(name, np.ones(1, int))[0])) == 0
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
    assert sum(map(len, moved)) == (reached(collection, allowed) if case.trains else 0)
    if case.trains and case.method != "mixed_dim" and not case.plan:
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
