"""Mini-batch aware decay (DIN, eq. 7): its gradient id by id, and the training rows that it divides by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import TypeAdapter

from recsys._compat import tf
from recsys.data.prepared import Prepared
from recsys.data.reader import Examples
from recsys.embeddings.collection import EmbeddingCollection
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.optimizers import (
    Adagrad,
    LazyAdam,
    RowwiseAdagrad,
    SparseOptimizer,
    TableOptimizers,
    make_table_optimizer,
)
from recsys.embeddings.optimizers.config import TableOptimizerConfig
from recsys.embeddings.optimizers.sparse import Slots
from recsys.embeddings.rows import Trained
from recsys.embeddings.training_rows import training_rows
from tests.embeddings.conformance import SCHEMA, gradients
from tests.embeddings.methods import CASES, FEATURES, VOCABULARIES, batch, config_of
from tests.worlds import EMBEDDINGS, write_world

DECAY = {"kind": "mini_batch_aware", "rate": 0.1}
RATE, V, D = 0.1, 6, 3
ROWS = np.random.default_rng(0).normal(size=(V, D)).astype(np.float32)
N = np.array([0, 4, 7, 2, 1, 10])
IDS = [1, 3, 1, 0, 1]


class Descent(SparseOptimizer):
    """w - g: shows the gradient."""

    def __init__(self, rate: float = RATE, clipnorm: float | None = None) -> None:
        super().__init__(1.0, 0.0, rate, 0.0, clipnorm, None, "Descent")

    def slot_specs(self) -> dict[str, Any]:
        return {}

    def step(self, weights: tf.Tensor, gradient: tf.Tensor, slots: Slots) -> tuple[tf.Tensor, Slots]:
        return weights - gradient, slots


def slices(values: NDArray, ids: list[int] = IDS) -> tf.IndexedSlices:
    return tf.IndexedSlices(tf.constant(values, tf.float32), tf.constant(ids), tf.constant([V, D]))


def moved(optimizer: SparseOptimizer, values: NDArray) -> NDArray:
    """What a step takes from the rows."""
    table = tf.Variable(ROWS)
    optimizer.build([table], [N])
    optimizer.apply_gradients([(slices(values), table)])
    return ROWS - table.numpy()


def test_the_gradient_of_each_id() -> None:
    """λ w / n for ids in the batch, once however often they stand there; n = 1 where no training row is known; nothing
    at all for absent ids.
    """
    found = moved(Descent(), np.zeros([len(IDS), D]))
    np.testing.assert_allclose(found[1], RATE * ROWS[1] / 4, atol=1e-7)
    np.testing.assert_allclose(found[3], RATE * ROWS[3] / 2, atol=1e-7)
    np.testing.assert_allclose(found[0], RATE * ROWS[0], atol=1e-7)
    np.testing.assert_array_equal(found[[2, 4, 5]], 0.0)


def test_it_is_the_gradient_of_half_the_penalty_beside_that_of_the_loss() -> None:
    random = np.random.default_rng(1).normal(size=(len(IDS), D))
    table = tf.Variable(ROWS.astype(np.float64))
    unique = np.unique(IDS)
    with tf.GradientTape() as tape:
        squares = tf.reduce_sum(tf.gather(table, unique) ** 2, 1)
        penalty = RATE / 2 * tf.reduce_sum(squares / np.maximum(N[unique], 1))
        loss = penalty + tf.reduce_sum(tf.gather(table, IDS) * random)
    np.testing.assert_allclose(moved(Descent(), random), tf.convert_to_tensor(tape.gradient(loss, table)), atol=1e-6)


def test_an_epoch_takes_as_much_from_rare_and_frequent_ids() -> None:
    """Eq. 4: over batches of one example each, n times λ w / n; to first order in λ."""
    table, optimizer = tf.Variable(ROWS), Descent(1e-4)
    optimizer.build([table], [N])
    for row in np.repeat(np.arange(1, V), N[1:]):
        optimizer.apply_gradients([(slices(np.zeros([1, D]), [int(row)]), table)])
    np.testing.assert_allclose((ROWS - table.numpy())[1:], 1e-4 * ROWS[1:], rtol=1e-2)


def test_clipping_is_of_the_losss_gradient_alone() -> None:
    random = 100 * np.random.default_rng(1).normal(size=(len(IDS), D))
    beside = moved(Descent(clipnorm=1.0), random) - moved(Descent(0.0, clipnorm=1.0), random)
    np.testing.assert_allclose(beside, moved(Descent(), np.zeros([len(IDS), D])), atol=1e-6)


@pytest.mark.parametrize("kind", [LazyAdam, Adagrad, RowwiseAdagrad])
def test_every_optimizer_steps_by_the_sum_of_both_gradients(kind: type[SparseOptimizer]) -> None:
    random = np.random.default_rng(1).normal(size=(len(IDS), D))
    whole = moved(Descent(), random)
    table, plain = tf.Variable(ROWS), kind(0.1)
    unique = [0, 1, 3]
    plain.apply_gradients([(slices(whole[unique], unique), table)])
    found = moved(kind(0.1, mini_batch_aware_decay=RATE), random)
    np.testing.assert_allclose(found, ROWS - table.numpy(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", ["lazy_adam", "adagrad", "rowwise_adagrad"])
def test_the_yaml_names_it(kind: str) -> None:
    config = TypeAdapter(TableOptimizerConfig).validate_python({"kind": kind, "decay": DECAY})
    optimizer = make_table_optimizer(config)
    assert optimizer.mini_batch_aware_decay == 0.1
    assert not optimizer.decays, "there is nothing to catch up on"
    assert type(optimizer).from_config(optimizer.get_config()).mini_batch_aware_decay == 0.1


def test_shards_have_their_own_part_of_the_counts() -> None:
    config = TypeAdapter(TableOptimizerConfig).validate_python({"kind": "adagrad", "decay": DECAY})
    optimizers = TableOptimizers({"t": config}, {"t": N})
    shards = [tf.Variable(ROWS[:4]), tf.Variable(ROWS[4:])]
    trained = [Trained("t", shard, shard) for shard in shards]
    optimizers.build(trained)
    zeros = [tf.IndexedSlices(tf.zeros([2, D]), tf.constant([0, 1]), tf.constant([n, D])) for n in (4, 2)]
    optimizers.apply(zeros, trained)
    slots = [optimizers.optimizer_of("t").slots(shard)[0].numpy() for shard in shards]
    np.testing.assert_allclose(slots[1] - 0.1, (RATE * ROWS[4:] / N[4:, np.newaxis]) ** 2, rtol=1e-3, atol=1e-8)
    np.testing.assert_allclose(slots[0][0] - 0.1, (RATE * ROWS[0]) ** 2, rtol=1e-3, atol=1e-8)


def test_what_it_cannot_do_is_said() -> None:
    table = tf.Variable(ROWS)
    for counts in (None, [N[:5]]):
        with pytest.raises(ValueError, match="for each row of each table"):
            Descent().build([table], counts)
    optimizer = Descent()
    optimizer.build([table], [N])
    with pytest.raises(ValueError, match="this gradient is dense"):
        optimizer.apply_gradients([(tf.zeros([V, D]), table)])


def with_decay(config: EmbeddingsConfig) -> EmbeddingsConfig:
    optimizer = {"kind": "adagrad", "decay": DECAY}
    return EmbeddingsConfig.model_validate(config.model_dump(exclude_none=True) | {"optimizer": optimizer})


def test_rows_of_several_widths_are_refused(folder: Path) -> None:
    config = with_decay(config_of(CASES["mixed_dim"], folder))
    assert [key for key, _ in config.problems(SCHEMA)] == ["tables.t.optimizer"]
    assert not with_decay(config_of(CASES["mgqe"], folder)).problems(SCHEMA)


METHODS = ["full-float32", "full-int8", "hashed-chunks", "multiplexed-tables", "mgqe", "vector-fine_tuned"]


@pytest.mark.parametrize("method", METHODS)
def test_a_row_counts_the_examples_whose_own_gradient_names_it(method: str, folder: Path) -> None:
    """With every method: histories, several values, missing ones, chunks that share rows."""
    config = with_decay(config_of(CASES[method], folder))
    made = EmbeddingCollection(config, FEATURES, 0, VOCABULARIES)
    made(batch())
    halves = [batch(half=0), batch(half=1, padding=2)]
    found = training_rows(made, [{"query": half, "item": {}} for half in halves])
    expected = np.zeros(made.tables["t"].store.rows, np.int64)
    names = [trained.table for trained in made.trained()]
    for half in halves:
        for place in range(len(half["user"])):
            one = {name: values[place : place + 1] for name, values in half.items()}
            gradient = gradients(made, one)[1][names.index("t")]
            expected[np.unique(gradient.indices)] += 1
    assert expected.max() > 2
    np.testing.assert_array_equal(found["t"], expected)


def test_only_rows_of_the_batch_move_whatever_the_method(folder: Path) -> None:
    """Rows of 8 bits and codes, too: a step whose loss knows no row moves those in the batch alone."""
    for method in METHODS:
        made = EmbeddingCollection(with_decay(config_of(CASES[method], folder)), FEATURES, 0, VOCABULARIES)
        made(batch())
        by = TableOptimizers.of(made.config, training_rows(made, [{"query": batch(), "item": {}}]))
        by.build(made.trained())
        before = [trained.variable.numpy() for trained in made.trained()]
        found = gradients(made, batch())[1]
        nothing = [tf.IndexedSlices(0.0 * g.values, g.indices, g.dense_shape) for g in found]
        by.apply(nothing, made.trained())
        for g, trained, old in zip(nothing, made.trained(), before, strict=True):
            changed = np.flatnonzero((trained.variable.numpy() != old).any(1))
            assert set(changed) <= set(g.indices.numpy()), method
            assert len(changed) > 3, method


def test_counts_of_a_prepared_data_set(tmp_path: Path) -> None:
    """A movie counts the training rows that have it as candidate or in the four events before, once each: more than
    its vocabulary's count, which knows candidates alone.
    """
    prepared = Prepared(write_world(tmp_path / "world"))
    tables = EMBEDDINGS["tables"] | {"ids": {"dim": 8, "optimizer": {"kind": "lazy_adam", "decay": DECAY}}}
    config = EmbeddingsConfig.model_validate(EMBEDDINGS | {"tables": tables})
    made = EmbeddingCollection(config, prepared.info.features)
    found = training_rows(made, Examples(prepared, "train", 64, seed=0).once())
    assert found.keys() == {"ids"}, "only tables that ask for it"
    expected = np.zeros(32, np.int64)
    table = prepared.examples("train", ["user_index", "item_index", "history_stop"]).to_pydict()
    for user, item, stop in zip(*table.values(), strict=True):
        events = prepared.events.item_index[prepared.event_start[user] : stop][-4:]
        expected[list({item + 2, *(events + 2)})] += 1
    np.testing.assert_array_equal(found["ids"], expected)
    assert np.all(expected[2:] >= prepared.train_count)
    assert np.any(expected[2:] > prepared.train_count)


def test_nothing_is_read_where_no_table_asks_for_it(folder: Path) -> None:
    made = EmbeddingCollection(config_of(CASES["full-float32"], folder), FEATURES, 0, VOCABULARIES)
    assert training_rows(made, (pytest.fail("read") for _ in range(1))) == {}
