"""What the search and the representation learn: by whose gradients, what TWIN is to DARE, two geometries at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from recsys._compat import keras, tf
from recsys.embeddings import LazyAdam
from recsys.interactions import attention
from recsys.interactions.attention import TargetAttention
from recsys.interactions.config import AttentionConfig

D, D_A = 5, 3


class Tables:
    """Tables and a batch of ids; TWIN where there is one table. All else is float64."""

    def __init__(self, twin: bool, top_k: int = 2, width: int = D, dtype: str = "float64") -> None:
        rng = np.random.default_rng(1)
        start = rng.normal(size=(30, D)).astype(dtype)
        self.representation = tf.Variable(start)
        self.search = None if twin else tf.Variable(start if width == D else rng.normal(size=(30, width)))
        self.layer = TargetAttention(AttentionConfig(kind="attention", top_k=top_k), 0, decoupled=not twin)
        self.head, self.auxiliary_head = (tf.Variable(rng.normal(size=3 * D)) for _ in range(2))

    def losses(self, step: int = 0, stop_representation: bool = False) -> tuple[Any, Any]:
        target, history, mask = ids(step)
        label = tf.constant(np.random.default_rng([2, step]).integers(0, 2, len(target)), tf.float64)

        def read(table: tf.Variable) -> list[tf.Tensor]:
            return [tf.cast(tf.gather(table, part), tf.float64) for part in (target, history)]

        r = read(self.representation)
        if stop_representation:
            r = [tf.stop_gradient(part) for part in r]
        a = [] if self.search is None else read(self.search)
        main, auxiliary = self.layer(r[0], r[1], tf.constant(mask), *a)
        assert auxiliary is not None
        pairs = ((main, self.head), (auxiliary, self.auxiliary_head))
        logits = [tf.linalg.matvec(found, head) for found, head in pairs]
        losses = [tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(label, logit)) for logit in logits]
        return losses[0], losses[1]


def ids(step: int = 0) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Targets, histories of 0 to 6 events without repetition, and which are no padding: id 0."""
    rng = np.random.default_rng([7, step])
    mask = np.arange(6) < rng.integers(0, 7, (4, 1))
    events = 1 + np.argsort(rng.uniform(size=(4, 29)))[:, :6]
    return rng.integers(1, 30, 4), events * mask, mask


def of_rows(gradient: Any) -> NDArray[Any]:
    """[30, d]: None means zeros."""
    return np.zeros((30, 1)) if gradient is None else tf.convert_to_tensor(gradient).numpy()


def moved(gradient: Any) -> set[int]:
    return set(np.flatnonzero(np.abs(of_rows(gradient)).sum(1)).tolist())


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("loss", [0, 1], ids=["main", "auxiliary"])
def test_attention_learns_by_the_weights_alone_and_representation_by_the_vectors_alone(
    loss: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = Tables(twin=False, width=D_A)

    def gradients(**stops: bool) -> list[NDArray[Any]]:
        with tf.GradientTape() as tape:
            losses = tables.losses(**stops)
        return [of_rows(g) for g in tape.gradient(losses[loss], [tables.search, tables.representation])]

    assert all(np.abs(gradient).max() > 1e-3 for gradient in gradients())
    searched, represented = gradients(stop_representation=True)
    assert np.abs(searched).max() > 1e-3
    assert not represented.any()
    softmax = attention.masked_softmax
    monkeypatch.setattr(attention, "masked_softmax", lambda *args: tf.stop_gradient(softmax(*args)))
    searched, represented = gradients()
    assert not searched.any()
    assert np.abs(represented).max() > 1e-3


@pytest.mark.usefixtures("double")
def test_the_main_loss_moves_attention_where_the_search_has_looked() -> None:
    """The selected events and the targets: the auxiliary loss is there to reach the others."""
    tables = Tables(twin=False, width=D_A)
    target, history, mask = ids()
    assert tables.search is not None
    weights = tables.search.numpy()
    selected, others = set[int](), set[int]()
    for one, events in zip(target, (h[m] for h, m in zip(history, mask, strict=True)), strict=True):
        if len(events) > 1:  # one event alone weighs 1 whatever its score: nothing to learn
            best = events[np.argsort(weights[events] @ weights[one])[-2:]]
            selected |= {int(one), *best.tolist()}
            others |= {int(one), *events.tolist()}
    with tf.GradientTape(persistent=True) as tape:
        main, auxiliary = tables.losses()
    assert moved(tape.gradient(main, tables.search)) == selected
    assert moved(tape.gradient(auxiliary, tables.search)) == others
    assert selected < others
    assert 0 not in moved(tape.gradient(main + auxiliary, tables.representation))


def union(one: tf.IndexedSlices, other: tf.IndexedSlices) -> tf.IndexedSlices:
    """The sum of two sparse gradients, over the rows that either touches."""
    values, indices = (tf.concat(parts, 0) for parts in ((one.values, other.values), (one.indices, other.indices)))
    return tf.IndexedSlices(values, indices, one.dense_shape)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("optimizer", [LazyAdam, keras.optimizers.Adam], ids=["sparse", "dense"])
@pytest.mark.parametrize("summed", [True, False], ids=["summed", "own"])
def test_two_tables_fed_one_gradient_are_twin(summed: bool, optimizer: Any) -> None:
    """The authors' device: two tables that start equal and both get the sum of their gradients stay TWIN's one table;
    with their own gradients they part.
    """
    sparse = optimizer is LazyAdam  # which is made for float32
    dtype, within, join = ("float32", 1e-5, union) if sparse else ("float64", 1e-12, tf.add)
    twin, dare = Tables(twin=True, dtype=dtype), Tables(twin=False, dtype=dtype)
    optimizers = [(optimizer(0.01), keras.optimizers.Adam(0.01)) for _ in range(2)]
    apart = []
    for step in range(100):
        for model, (of_tables, of_heads) in zip((twin, dare), optimizers, strict=True):
            tables = [table for table in (model.representation, model.search) if table is not None]
            heads = [model.head, model.auxiliary_head]
            with tf.GradientTape() as tape:
                loss = tf.add_n(model.losses(step))
            gradients, head_gradients = tape.gradient(loss, (tables, heads))
            if not sparse:
                gradients = [tf.convert_to_tensor(g) for g in gradients]
            if model is dare and summed:
                gradients = [join(*gradients)] * 2
            of_tables.apply_gradients(zip(gradients, tables, strict=True))
            of_heads.apply_gradients(zip(head_gradients, heads, strict=True))
        apart.append(np.abs(dare.representation.numpy() - twin.representation.numpy()).max())
    assert np.abs(twin.representation.numpy() - Tables(twin=True).representation.numpy()).max() > 0.1, "it has learned"
    if summed:
        assert max(apart) <= within
        np.testing.assert_array_equal(dare.representation, dare.search)
        np.testing.assert_allclose(dare.head, twin.head, rtol=0, atol=within)
    else:
        assert apart[-1] > 1e-2


CATEGORIES, ITEMS = 10, 200


def planted(count: int, seed: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Histories [n, 20], targets [n] and labels [n]: items are good or bad, and a target is liked if most events of its
    category are good. The search must go by category, the representation by goodness.
    """
    rng, good = np.random.default_rng(seed), np.random.default_rng(0).choice([-1, 1], ITEMS)
    history = rng.integers(0, ITEMS, (count, 20))
    target = history[:, 0] % CATEGORIES + CATEGORIES * rng.integers(0, ITEMS // CATEGORIES, count)
    votes = ((history % CATEGORIES == target[:, np.newaxis] % CATEGORIES) * good[history]).sum(1)
    decided = votes != 0
    return history[decided], target[decided], (votes[decided] > 0).astype(np.float32)


def learned(decoupled: bool, width: int = 4, steps: int = 300) -> float:
    """Test AUC of tables of one width, trained for a while."""
    rng, shape = np.random.default_rng(0), (ITEMS, width)
    made = TargetAttention(AttentionConfig(kind="attention", top_k=5), 0, decoupled)
    tables = [tf.Variable(rng.normal(0.0, 0.1, shape), dtype=tf.float32) for _ in range(1 + decoupled)]
    starts = [keras.initializers.GlorotUniform(seed) for seed in range(4)]
    heads = [
        keras.Sequential([keras.layers.Dense(16, "relu", kernel_initializer=a), keras.layers.Dense(1, None, True, b)])
        for a, b in (starts[:2], starts[2:])
    ]

    def logits(history: Any, target: Any) -> list[Any]:
        r, *a = ([tf.gather(table, target), tf.gather(table, history)] for table in tables)
        found = made(*r, tf.ones_like(history, tf.bool), *(a[0] if a else []))
        return [tf.squeeze(head(x), -1) for head, x in zip(heads, found, strict=True)]

    history, target, label = planted(20_000, 1)
    logits(history[:2], target[:2])
    variables = [*tables, *(weight for head in heads for weight in head.trainable_variables)]
    optimizer = keras.optimizers.Adam(0.02)
    optimizer.build(variables)

    @tf.function
    def step(history: Any, target: Any, label: Any) -> None:
        with tf.GradientTape() as tape:
            found = logits(history, target)
            losses = [tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(label, logit)) for logit in found]
            loss = tf.add_n(losses)
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    for _ in range(steps):
        rows = rng.integers(0, len(target), 512)
        step(history[rows], target[rows], label[rows])
    history, target, label = planted(4000, 2)
    return float(roc_auc_score(label, logits(history, target)[0]))


def test_decoupled_tables_learn_two_geometries_where_one_table_learns_a_compromise() -> None:
    """Even one table of twice the width, as many numbers as DARE's two have."""
    assert learned(decoupled=True) > 0.99
    assert learned(decoupled=False) < 0.93
    assert learned(decoupled=False, width=8) < 0.985
