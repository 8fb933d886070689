"""DNIS: what each half step moves, how far, and what it finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from recsys._compat import keras, tf
from recsys.data.catalogue import Catalogue
from recsys.data.dataset import CategoricalInfo, FeatureInfo
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.dnis import SelectedRows, frequency_block_of
from recsys.embeddings.optimizers import TableOptimizers
from recsys.embeddings.plan import Origin
from recsys.embeddings.tables import Vocabularies
from recsys.metrics import auc
from recsys.models.base import Batch
from recsys.models.build import make_model
from recsys.models.config import RankerConfig
from recsys.models.ranker import Ranker
from recsys.search.config import SelectionConfig
from recsys.search.dnis import Alternation, copy_weights, folded_rows, normalized, plan_for
from recsys.search.fields import Field

DIM = 4
FEATURES: dict[str, FeatureInfo] = {
    "a": CategoricalInfo(role="user", rows=12, oov_rows=1),
    "b": CategoricalInfo(role="item", rows=20, oov_rows=1),
}
COUNTS = {"a": np.array([0, 0, *range(100, 0, -10)]), "b": np.array([0, 0, *range(18, 0, -1)])}
FIELDS = [Field("t", name, DIM, "float32", "", counts) for name, counts in COUNTS.items()]


def model_of(
    table: dict[str, Any] | None = None,
    features: dict[str, FeatureInfo] = FEATURES,
    counts: dict[str, np.ndarray] = COUNTS,
    hidden: int = 6,
    interaction: dict[str, Any] | None = None,
) -> Ranker:
    raw = {"method": "dnis", "dim": DIM, "shares": [0.25, 0.25, 0.5], "initializer": {"kind": "uniform", "range": 0.5}}
    embeddings = EmbeddingsConfig.model_validate(
        {"tables": {"t": raw | (table or {})}, "features": {name: {"table": "t"} for name in features}}
    )
    known = Vocabularies(lambda name: counts[name], lambda name: np.array([]))
    config = RankerConfig.model_validate({"kind": "ranker", "interaction": interaction, "mlp": {"hidden": [hidden]}})
    model = make_model(config, embeddings, features, Catalogue(np.ones(5)), 0, known)
    assert isinstance(model, Ranker)
    dense = keras.optimizers.Adam(1e-3, epsilon=1e-8, adaptive_epsilon=True, jit_compile=False)
    model.compile(TableOptimizers.of(embeddings), dense, 64)
    model.build_from(batch(2))
    return model


def store_of(model: Ranker) -> SelectedRows:
    store = model.embeddings.tables["t"].store
    assert isinstance(store, SelectedRows)
    return store


def batch(size: int = 64, seed: int = 0, highest: int = 20) -> Batch:
    rng = np.random.default_rng(seed)
    return {
        "query": {"a": tf.constant(rng.integers(2, 12, size), tf.int32)},
        "item": {"b": tf.constant(rng.integers(2, highest, size), tf.int32)},
        "label": tf.constant(rng.integers(0, 2, size), tf.float32),
        "weight": tf.ones(size),
        "user_index": tf.zeros(size, tf.int32),
        "item_index": tf.zeros(size, tf.int32),
    }


def test_blocks_go_by_frequency_over_all_vocabularies_of_a_table() -> None:
    counts = {"a": np.array([0, 0, 50, 9, 1]), "b": np.array([0, 60, 40, 1, 1])}
    # By count: b 60, a 50, b 40, a 9, then those seen once; a quarter of 7 is 2 of them, half is 4 (3.5 is rounded).
    blocks = frequency_block_of(counts, [0.25, 0.25, 0.5])
    assert blocks.tolist() == [0, 0, 0, 1, 2, 0, 0, 1, 2, 2]


def test_at_first_it_is_the_full_table() -> None:
    selected = model_of()
    table = {"method": "full", "dim": DIM, "initializer": {"kind": "uniform", "range": 0.5}}
    embeddings = EmbeddingsConfig.model_validate(
        {"tables": {"t": table}, "features": {name: {"table": "t"} for name in FEATURES}}
    )
    full = make_model(selected.config, embeddings, FEATURES, Catalogue(np.ones(5)), 0)
    assert isinstance(full, Ranker)
    np.testing.assert_array_equal(selected.logits(batch()), full.logits(batch()))
    store_of(selected).selection[0, 0].assign(0.0)
    assert (selected.logits(batch()).numpy() != full.logits(batch()).numpy()).any()


def test_a_search_starts_with_all_of_the_full_models_weights() -> None:
    """The moving means of an interaction's normalisation, too: what moves the selection is not in training mode."""
    interaction = {"kind": "arm_net", "neurons": 4, "heads": 2}
    full, found = model_of(interaction=interaction), model_of(interaction=interaction)
    for number, variable in enumerate(full.variables):
        if variable.dtype == tf.float32 and variable is not store_of(full).selection:
            drawn = tf.random.stateless_uniform(variable.shape, [number, 0], 0.5, 1.5)
            variable.assign(drawn)
    assert np.abs(full.logits(batch()).numpy() - found.logits(batch()).numpy()).max() > 0.1
    plain = [variable for variable in full.variables if variable is not store_of(full).selection]
    copy_weights(plain, found)
    np.testing.assert_array_equal(found.logits(batch()), full.logits(batch()))
    assert (store_of(found).selection.numpy() == 1).all()


def test_each_half_step_moves_its_own_and_nothing_else() -> None:
    model = model_of()
    steps, store = Alternation(model, SelectionConfig()), store_of(model)
    dense = [each for each in model.trainable_variables if each is not store.embeddings]
    assert len(dense) == 4

    def state() -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        return store.embeddings.numpy(), store.selection.numpy(), [each.numpy() for each in dense]

    before = state()
    steps.train(batch())
    after = state()
    assert (after[0] != before[0]).any()
    np.testing.assert_array_equal(after[1], before[1])
    steps.select(batch(), batch(seed=1))
    last = state()
    np.testing.assert_array_equal(last[0], after[0])
    assert (last[1] != after[1]).any()
    for one, other in zip(last[2], before[2], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("unroll", [None, 0.1])
def test_the_labels_of_the_other_examples_move_the_selection_alone(unroll: float | None) -> None:
    found = []
    for flipped in (False, True):
        model = model_of()
        steps = Alternation(model, SelectionConfig(unroll=unroll))
        other = batch(seed=1)
        if flipped:
            other["label"] = 1.0 - other["label"]
        steps.train(batch())
        steps.select(batch(), other)
        found.append((store_of(model).embeddings.numpy(), store_of(model).selection.numpy()))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert (found[0][1] != found[1][1]).any()


def test_a_blocks_step_does_not_depend_on_the_size_of_its_gradient() -> None:
    gradient = tf.constant(np.random.default_rng(0).normal(size=(3, 8)), tf.float32)
    found = normalized(gradient).numpy()
    np.testing.assert_allclose(np.abs(found).mean(1), 1.0, rtol=1e-5)
    louder = gradient * [[1.0], [1000.0], [1.0]]
    np.testing.assert_allclose(normalized(louder), found, rtol=1e-5)


def test_the_step_by_hand() -> None:
    model = model_of()
    store, config = store_of(model), SelectionConfig(learning_rate=0.02, penalty=0.003)
    store.selection.assign(np.linspace(0.05, 0.95, 12).reshape(3, 4))
    before, other = store.selection.numpy(), batch(seed=1)
    with tf.GradientTape() as tape:
        tape.watch(store.selection)
        logits = model.logits(other)
        loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(other["label"], logits))
    gradient = tf.convert_to_tensor(tape.gradient(loss, store.selection)).numpy() + 0.003
    expected = before - 0.02 * gradient / (np.abs(gradient).mean(1, keepdims=True) + 1e-8)
    Alternation(model, config).select(batch(), other)
    np.testing.assert_allclose(store.selection, np.clip(expected, 0, 1), atol=1e-6)


def test_selections_stay_between_0_and_1_and_a_block_that_is_not_read_stays() -> None:
    model = model_of()
    store = store_of(model)
    store.selection.assign([[1.0, 0.99, 0.01, 0.0], [0.5] * 4, [0.7] * 4])
    absent = int(store.blocks.max())
    few = batch(seed=1, highest=3)  # of b, the most frequent id alone
    few["query"]["a"] = tf.where(few["query"]["a"] > 4, 2, few["query"]["a"])
    read = store.blocks[np.concatenate([few["query"]["a"].numpy(), 12 + few["item"]["b"].numpy()])]
    assert absent not in read
    steps = Alternation(model, SelectionConfig(learning_rate=0.5))
    for _ in range(5):
        steps.select(batch(), few)
        values = store.selection.numpy()
        assert values.min() >= 0
        assert values.max() <= 1
        np.testing.assert_array_equal(values[absent], np.float32(0.7))
    assert (store.selection.numpy()[0] != [1.0, 0.99, 0.01, 0.0]).any()


def test_looking_ahead_is_the_slope_of_the_loss_after_the_step() -> None:
    """∇_α of L_valid(W - ξ ∇_W L_train(W, α), α), against differences of that very function."""
    model, rate = model_of(), 0.8
    store, train, valid = store_of(model), batch(48), batch(48, seed=1)
    start = np.random.default_rng(2).uniform(0.4, 0.9, store.selection.shape).astype(np.float32)
    rows = store.embeddings.numpy()

    def after_a_step(selection: np.ndarray) -> float:
        store.selection.assign(selection)
        with tf.GradientTape() as tape:
            loss = model.compute_loss(train)
        slope = tf.convert_to_tensor(tape.gradient(loss, store.embeddings))
        store.embeddings.assign(rows - rate * slope)
        found = float(model.compute_loss(valid))
        store.embeddings.assign(rows)
        return found

    expected, nudge = np.zeros_like(start), 0.02
    for place in np.ndindex(*start.shape):
        up, down = start.copy(), start.copy()
        up[place] += nudge
        down[place] -= nudge
        expected[place] = (after_a_step(up) - after_a_step(down)) / (2 * nudge)
    store.selection.assign(start)
    (found,) = Alternation(model, SelectionConfig(unroll=rate))._unrolled(train, valid, rate)
    (first,) = Alternation(model, SelectionConfig())._gradients(valid)
    error = np.abs(found - expected).max()
    # Without the second part it is 1, with its sign turned 2.
    assert error < 0.3 * np.abs(first - expected).max()
    np.testing.assert_array_equal(store.embeddings.numpy(), rows)


def test_folding_changes_no_logit_and_a_plan_keeps_the_largest() -> None:
    model = model_of()
    store = store_of(model)
    store.selection.assign(np.random.default_rng(0).uniform(0, 1, store.selection.shape))
    logits = model.logits(batch()).numpy()
    folded = folded_rows(model, FIELDS)
    assert [each.shape for each in folded] == [(12, DIM), (20, DIM)]
    store.embeddings.assign(np.concatenate(folded))
    store.selection.assign(tf.ones_like(store.selection))
    np.testing.assert_allclose(model.logits(batch()), logits, atol=1e-6)
    budget = 300
    plan = plan_for(model, FIELDS, budget, Origin(method=""))
    assert plan.origin.method == "dnis"
    assert plan.bytes() <= budget
    masks = [plan.tables["t"].vocabularies[name].mask(DIM) for name in "ab"]
    sizes = np.abs(np.concatenate(folded)), np.concatenate(masks)
    assert sizes[0][sizes[1]].min() > sizes[0][~sizes[1]].max()


def test_it_finds_that_the_frequent_ids_matter_and_the_others_are_noise() -> None:
    signal, noise, examples = 50, 5_000, 20_000
    rng = np.random.default_rng(0)
    effects = rng.normal(0, 1.5, signal)
    features: dict[str, FeatureInfo] = {
        "a": CategoricalInfo(role="user", rows=2 + signal, oov_rows=1),
        "b": CategoricalInfo(role="item", rows=2 + noise, oov_rows=1),
    }

    def drawn(size: int) -> Batch:
        a = rng.integers(0, signal, size)
        b = np.minimum(rng.integers(0, noise, size), rng.integers(0, noise, size))
        label = rng.random(size) < 1 / (1 + np.exp(-effects[a]))
        made = batch(size)
        made["query"]["a"], made["item"]["b"] = tf.constant(2 + a, tf.int32), tf.constant(2 + b, tf.int32)
        made["label"] = tf.constant(label, tf.float32)
        return made

    train, valid, test = drawn(examples), drawn(5_000), drawn(5_000)
    counts = {
        "a": np.concatenate([[0, 0], np.full(signal, examples // signal)]),
        "b": np.concatenate([[0, 0], np.arange(noise, 0, -1)]) // 500,
    }
    shares = [signal / (signal + noise), 0.49, 0.51 - signal / (signal + noise)]
    model = model_of({"dim": 8, "shares": shares}, features, counts, hidden=32)

    def piece(whole: Batch, at: int) -> Batch:
        return tf.nest.map_structure(lambda x: x[at : at + 256], whole)  # type: ignore[no-any-return]

    step = tf.function(model.train_step)
    for at in 3 * list(range(0, examples - 256, 256)):
        step(piece(train, at))
    warm = auc(test["label"].numpy(), model.logits(test).numpy())
    steps = Alternation(model, SelectionConfig())
    for number in range(600):
        part = piece(train, 256 * number % (examples - 256))
        steps.train(part)
        steps.select(part, piece(valid, 256 * number % (5_000 - 256)))
    head, *tail = store_of(model).selection.numpy().mean(1)
    assert head > 0.95
    assert max(tail) < 0.6
    assert auc(test["label"].numpy(), model.logits(test).numpy()) > warm + 0.005
