"""Tables under a plan are the full ones under a mask: the same numbers, gradients and steps, in the plan's bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.data.dataset import CategoricalInfo
from recsys.embeddings.collection import EmbeddingCollection
from recsys.embeddings.config import EmbeddingsConfig, FullTable, Precision
from recsys.embeddings.optimizers import Adagrad, LazyAdam
from recsys.embeddings.plan import ElementBlock, RowBlock, TablePlan, VocabularyPlan, vocabulary_digest
from recsys.embeddings.planned import PlannedRows
from recsys.embeddings.rows import FloatRows
from recsys.embeddings.training_rows import training_rows
from tests.embeddings.methods import FEATURES, VOCABULARIES, batch
from tests.embeddings.plans import mask_of, plan_of_table, random_table
from tests.embeddings.saved import saved
from tests.embeddings.test_decoupled import config as decoupled

SEEDS = st.integers(0, 2**32 - 1)


def made(table: TablePlan, seed: int = 3, served: Precision | None = None) -> PlannedRows:
    config = FullTable(dim=table.dim, served_precision=served)
    store = PlannedRows("t", config, table, list(table.vocabularies), seed)
    store.build(None)
    return store


def full(table: TablePlan, seed: int = 3) -> FloatRows:
    config = FullTable(dim=table.dim)
    store = FloatRows("t", len(mask_of(table)), table.dim, config.initializer, "float32", seed)
    store.build(None)
    return store


def every_row(store: PlannedRows) -> NDArray[np.float32]:
    return store.lookup(tf.range(store.rows)).numpy()


@settings(max_examples=30)
@given(SEEDS)
def test_it_starts_as_the_full_table_under_the_mask_bit_for_bit(seed: int) -> None:
    """W0, also of shared rows, which start at zero."""
    table = random_table(seed)
    store = made(table)
    masked = full(table).embeddings.numpy() * mask_of(table)
    assert np.abs(masked).max(initial=0) > 0 or not mask_of(table).any()
    np.testing.assert_array_equal(every_row(store), masked)


@settings(max_examples=30)
@given(SEEDS)
def test_any_rows_in_any_order_of_any_type(seed: int) -> None:
    """Repeated ones and none at all; in a graph of unknown size, too."""
    table = random_table(seed)
    store, rng = made(table), np.random.default_rng(seed)
    all_rows = every_row(store)
    graph = tf.function(store.lookup, input_signature=[tf.TensorSpec([None], tf.int64)])
    for size in (0, 1, 50):
        rows = rng.integers(0, store.rows, size)
        np.testing.assert_array_equal(store.lookup(tf.constant(rows, tf.int32)), all_rows[rows])
        np.testing.assert_array_equal(graph(tf.constant(rows, tf.int64)), all_rows[rows])
    assert graph(tf.zeros([0], tf.int64)).shape == (0, table.dim)


def test_what_pruned_ids_read() -> None:
    """Zeros, or the row that the pruned ids of one block share."""
    kept = np.array([True, False, False])
    blocks = (
        RowBlock(ids=3, coordinates=(0, 2), kept=kept, pruned="shared"),
        RowBlock(ids=3, coordinates=(0, 2), kept=~kept, pruned="shared"),
        RowBlock(ids=3, coordinates=2, kept=kept),
        RowBlock(ids=2, coordinates=3, kept=np.zeros(2, bool), pruned="shared"),
        RowBlock(ids=2, coordinates=0),
    )
    store = made(TablePlan(dim=3, vocabularies={"f": VocabularyPlan(digest="", blocks=blocks)}))
    shapes = {tuple(trained.variable.shape) for trained in store.trained()}
    assert shapes == {(2 + 3, 2), (1, 2), (1, 3)}
    for number, trained in enumerate(store.trained()):
        rows, width = trained.variable.shape
        trained.variable.assign(100 * number + np.arange(1, rows * width + 1, dtype=np.float32).reshape(rows, width))
    found = every_row(store).tolist()
    assert found[0] == [1, 0, 2]
    assert found[1] == found[2] == [3, 0, 4]
    assert found[3] == [9, 0, 10]
    assert found[4:6] == [[5, 0, 6], [7, 0, 8]]
    assert found[6:9] == [[101, 102, 0], [0, 0, 0], [0, 0, 0]]
    assert found[9] == found[10] == [201, 202, 203]
    assert found[11:] == [[0, 0, 0]] * 2


def test_a_shared_row_may_make_up_for_a_pruned_one() -> None:
    """There are then as many rows as ids, and still none stands where its id says."""
    blocks = (RowBlock(ids=3, coordinates=1, kept=np.array([False, True, True]), pruned="shared"),)
    store = made(TablePlan(dim=1, vocabularies={"f": VocabularyPlan(digest="", blocks=blocks)}))
    store.groups[0].assign([[1.0], [2.0], [3.0]])
    assert every_row(store).tolist() == [[3.0], [1.0], [2.0]]


def test_a_table_of_which_nothing_is_kept() -> None:
    blocks = (RowBlock(ids=3, coordinates=0), ElementBlock(kept=np.zeros((2, 4), bool)))
    table = TablePlan(dim=4, vocabularies={"f": VocabularyPlan(digest="", blocks=blocks)})
    store = made(table)
    assert (store.trained(), store.weights, table.bytes()) == ([], [], 0)
    np.testing.assert_array_equal(every_row(store), np.zeros((5, 4)))


@settings(max_examples=30)
@given(SEEDS)
def test_it_starts_at_given_weights(seed: int) -> None:
    drawn = random_table(seed)
    rng = np.random.default_rng(seed)
    first = drawn.vocabularies["f0"]
    numbers = rng.normal(size=sum(block.numbers for block in first.blocks)).astype(np.float32)
    given_first = VocabularyPlan(digest="", blocks=first.blocks, weights=numbers)
    table = TablePlan(dim=drawn.dim, vocabularies={**drawn.vocabularies, "f0": given_first})
    expected = full(table).embeddings.numpy() * mask_of(table)
    expected[: first.ids][first.mask(table.dim)] = numbers
    np.testing.assert_array_equal(every_row(made(table)), expected)


# Training.


MAKES = {
    "lazy_adam": lambda: LazyAdam(0.05),
    "coupled": lambda: LazyAdam(0.05, coupled_decay=0.1),
    "adagrad": lambda: Adagrad(0.1),
    "mini_batch_aware": lambda: Adagrad(0.1, mini_batch_aware_decay=5.0),
}


@settings(max_examples=25)
@given(SEEDS, st.sampled_from(sorted(MAKES)))
def test_steps_are_those_of_the_masked_table(seed: int, kind: str) -> None:
    """Gradients reach the kept numbers of the rows that a batch reads, and no other; then optimizers do the same."""
    table = random_table(seed)
    if any(isinstance(block, RowBlock) and block.shares for block in table.blocks):
        table = _without_sharing(table)
    rng, mask = np.random.default_rng(seed), mask_of(table).astype(np.float32)
    store, plain = made(table), full(table)
    optimizers = [MAKES[kind]() for _ in range(2)]
    compact = [trained.variable for trained in store.trained()]
    examples = rng.integers(1, 9, store.rows)
    ends = np.cumsum([variable.shape[0] for variable in compact])[:-1]
    optimizers[0].build(compact, np.split(examples[store.layout.stored()], ends))
    optimizers[1].build([plain.embeddings], [examples])
    for _ in range(3):
        rows = tf.constant(rng.integers(0, store.rows, 20))
        aim = rng.normal(size=(20, table.dim)).astype(np.float32)
        before = every_row(store)
        with tf.GradientTape(persistent=True) as tape:
            loss = tf.reduce_sum(tf.square(store.lookup(rows) - aim))
            masked = tf.reduce_sum(tf.square(plain.lookup(rows) * tf.gather(mask, rows) - aim))
        np.testing.assert_allclose(loss, masked, rtol=1e-6)
        gradients = tape.gradient(loss, compact)
        assert all(isinstance(gradient, tf.IndexedSlices) for gradient in gradients)
        optimizers[0].apply_gradients(zip(gradients, compact, strict=True))
        optimizers[1].apply_gradients([(tape.gradient(masked, plain.embeddings), plain.embeddings)])
        np.testing.assert_allclose(every_row(store), plain.embeddings.numpy() * mask, rtol=1e-5, atol=1e-6)
        moved = every_row(store) != before
        touched = np.zeros(store.rows, bool)
        touched[rows.numpy()] = True
        np.testing.assert_array_equal(moved, (mask > 0) & touched[:, np.newaxis])
    for optimizer in optimizers:
        optimizer.flush()
    np.testing.assert_allclose(every_row(store), plain.embeddings.numpy() * mask, rtol=1e-5, atol=1e-6)


def _without_sharing(table: TablePlan) -> TablePlan:
    def zeroed(block: RowBlock | ElementBlock) -> RowBlock | ElementBlock:
        return block.model_copy(update={"pruned": "zero"}) if isinstance(block, RowBlock) else block

    vocabularies = {
        name: VocabularyPlan(digest="", blocks=tuple(zeroed(block) for block in vocabulary.blocks))
        for name, vocabulary in table.vocabularies.items()
    }
    return TablePlan(dim=table.dim, vocabularies=vocabularies)


def test_a_shared_row_learns_from_all_who_read_it() -> None:
    blocks = (RowBlock(ids=4, coordinates=2, kept=np.array([True, False, True, False]), pruned="shared"),)
    store = made(TablePlan(dim=3, vocabularies={"f": VocabularyPlan(digest="", blocks=blocks)}))
    (rows,) = [trained.variable for trained in store.trained()]
    weight = tf.constant([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0], [64.0, 128.0, 256.0]])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(store.lookup(tf.constant([1, 3, 2])) * weight)
    gradient = tf.convert_to_tensor(tape.gradient(loss, rows)).numpy()
    assert gradient.tolist() == [[0, 0], [64, 128], [9, 18]]


def test_examples_are_counted_for_what_is_stored() -> None:
    """Mini-batch aware decay: an example that reads a shared row by two ids counts once."""
    kept = np.array([True, False, True, False, False])
    blocks = (RowBlock(ids=5, coordinates=2, kept=kept, pruned="shared"), ElementBlock(kept=np.eye(3, dtype=bool)[:2]))
    table = TablePlan(dim=3, vocabularies={"f": VocabularyPlan(digest="", blocks=blocks)})
    layout = made(table).layout
    assert layout.stored().tolist() == [0, 2, 1, 5, 6]
    assert layout.read_as().tolist() == [0, 1, 2, 1, 1, 5, 6]
    info = CategoricalInfo(role="item", rows=7, oov_rows=1, max_length=3)
    raw = {
        "tables": {"t": {"dim": 3, "optimizer": {"kind": "adagrad", "decay": {"kind": "mini_batch_aware"}}}},
        "features": {"f": {"table": "t"}},
    }
    collection = EmbeddingCollection(EmbeddingsConfig.model_validate(raw), {"f": info})
    collection.tables["t"].store = made(table)
    ids = [[1, 3, 2], [3, 4, 1], [2, 2, 0], [5, 6, 0], [6, 0, 0]]
    batches = [{"query": {"f": np.array(ids, np.int32)}, "item": {}}]
    assert training_rows(collection, batches)["t"].tolist() == [0, 2, 2, 1, 2]


# Bytes, and what is served.


@settings(max_examples=40)
@given(SEEDS, st.sampled_from(["float32", "float16", "bfloat16", "int8"]))
def test_the_exported_arrays_have_the_plans_bytes(seed: int, precision: Precision) -> None:
    """Exactly, indices included, at every precision."""
    table = random_table(seed, elements=precision != "int8")
    served: Any = made(table, served=precision).serve()
    found = sum(int(np.prod(variable.shape)) * variable.dtype.size for variable in served.variables)
    assert found == table.bytes(precision)


def large() -> TablePlan:
    rng = np.random.default_rng(0)
    blocks = (
        RowBlock(ids=2_000, coordinates=16),
        RowBlock(ids=8_000, coordinates=(0, 2, 5), kept=rng.random(8_000) < 0.3, pruned="shared"),
        ElementBlock(kept=rng.random((10_000, 16)) < 0.1),
    )
    return TablePlan(dim=16, vocabularies={"f": VocabularyPlan(digest="", blocks=blocks)})


READ = """
import sys, numpy as np, tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
rows = np.load(sys.argv[2])
np.save(sys.argv[3], loaded.signatures["serving_default"](rows=tf.constant(rows))["vectors"].numpy())
assert not any(name.startswith("recsys") for name in sys.modules)
"""


def test_a_saved_model_holds_the_plans_bytes_and_a_fresh_process_reads_the_masked_table(tmp_path: Path) -> None:
    table = large()
    store, mask = made(table), mask_of(table)
    size = saved(store, tmp_path / "model")
    assert abs(size / table.bytes() - 1) < 0.05
    assert table.bytes() < 0.2 * table.full_bytes
    rows = np.random.default_rng(1).permutation(store.rows).astype(np.int32)
    np.save(tmp_path / "rows.npy", rows)
    script = [sys.executable, "-c", READ, *(str(tmp_path / name) for name in ("model", "rows.npy", "found.npy"))]
    done = subprocess.run(script, env={**os.environ, "PYTHONPATH": ""}, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = (full(table).embeddings.numpy() * mask)[rows]
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, rtol=0, atol=1e-6)
    assert (expected == 0).all(1).sum() > 5_000, "pruned ids are among them"


def test_a_graph_holds_no_table_in_constants(tmp_path: Path) -> None:
    """Bits are variables, not constants of the graph: they count as bytes, and the graph stays small."""
    saved(made(large()), tmp_path)
    assert (tmp_path / "saved_model.pb").stat().st_size < 60_000


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_what_cannot_be_stored_is_said(precision: Precision) -> None:
    store = made(large(), served=precision)
    store.groups[0].assign(tf.fill(store.groups[0].shape, np.float32(3.3e38) if precision == "float16" else np.inf))
    with pytest.raises(ValueError, match="not finite"):
        store.serve()


# In a collection.


def test_an_attention_table_under_a_plan(tmp_path: Path) -> None:
    """The table that is searched alone (DARE) may be smaller than the one that the model reads."""
    kept = np.random.default_rng(0).random(30) < 0.5
    blocks = (RowBlock(ids=30, coordinates=2, kept=kept),)
    digest = vocabulary_digest(FEATURES["movie"], partial(VOCABULARIES.values, "movie"))
    own = TablePlan(dim=3, vocabularies={"movie": VocabularyPlan(digest=digest, blocks=blocks)})
    plan_of_table(own, "search").save(tmp_path / "p")
    full_config = decoupled()
    whole = EmbeddingCollection(full_config, FEATURES, 0, VOCABULARIES)
    small = EmbeddingCollection(full_config.model_copy(update={"plan": str(tmp_path / "p")}), FEATURES, 0, VOCABULARIES)
    expected, found = whole(batch()), small(batch())
    table: Any = whole.tables["search"].store
    table.embeddings.assign(table.embeddings * mask_of(own))
    assert expected.attention is not None
    masked = whole(batch()).attention
    assert masked is not None
    assert found.attention is not None
    np.testing.assert_array_equal(found.concat(), expected.concat())
    np.testing.assert_array_equal(found.attention.vectors()["movie"], masked.vectors()["movie"])
    recent, same = found.attention.sequences["recent"], masked.sequences["recent"]
    np.testing.assert_array_equal(recent.values[recent.mask], same.values[same.mask])
    assert not np.array_equal(masked.vectors()["movie"], expected.attention.vectors()["movie"])
