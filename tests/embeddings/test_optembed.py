"""OptEmbed's supernet: thresholds, the long-tail estimator, sampled widths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from recsys._compat import tf
from recsys.data.dataset import CategoricalInfo, FeatureInfo
from recsys.embeddings.collection import EmbeddingCollection
from recsys.embeddings.config import EmbeddingsConfig, OptEmbedTable
from recsys.embeddings.optembed import Supernet, step_function
from recsys.embeddings.optimizers import TableOptimizers

FEATURES: dict[str, FeatureInfo] = {
    "a": CategoricalInfo(role="user", rows=6, oov_rows=1),
    "b": CategoricalInfo(role="item", rows=4, oov_rows=1),
    "c": CategoricalInfo(role="item", rows=3, oov_rows=1, max_length=3),
}
DIM = 4


def collection(step: tf.Variable | None = None, method: str = "optembed", **more: object) -> EmbeddingCollection:
    table = {"method": method, "dim": DIM, "initializer": {"kind": "uniform", "range": 0.3}, **more}
    config = EmbeddingsConfig.model_validate(
        {"tables": {"t": table}, "features": {name: {"table": "t"} for name in "abc"}}
    )
    made = EmbeddingCollection(config, FEATURES, step=tf.Variable(0, dtype=tf.int64) if step is None else step)
    made.tables["t"].build(None)
    return made


def supernet(rows: Any, thresholds: list[float], sizes: dict[str, int], **more: object) -> Supernet:
    config = OptEmbedTable.model_validate({"method": "optembed", "dim": len(rows[0]), **more})
    made = Supernet("t", config, sizes, 0, tf.Variable(0, dtype=tf.int64))
    made.build(None)
    made.embeddings.assign(rows)
    made.thresholds.assign(thresholds)
    return made


def batch(size: int = 2) -> dict[str, tf.Tensor]:
    rng = np.random.default_rng(0)
    return {
        "a": tf.constant(rng.integers(0, 6, size), tf.int32),
        "b": tf.constant(rng.integers(0, 4, size), tf.int32),
        "c": tf.constant(rng.integers(1, 3, (size, 3)), tf.int32),
    }


@pytest.mark.parametrize(
    ("z", "value", "slope"),
    [
        (-1.01, 0, 0.0),
        (-1.0, 0, 0.4),
        (-0.41, 0, 0.4),
        (-0.4, 0, 0.4),
        (-0.1, 0, 1.6),
        (0.0, 0, 2.0),
        (0.25, 1, 1.0),
        (0.7, 1, 0.4),
        (1.5, 1, 0.0),
    ],
)
def test_the_long_tail_estimator(z: float, value: float, slope: float) -> None:
    x = tf.constant([z])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = 3.0 * step_function(x)
    assert y.numpy()[0] == 3 * value
    np.testing.assert_allclose(tape.gradient(y, x), [3 * slope], atol=1e-6)


def test_rows_below_their_own_fields_threshold_are_zero() -> None:
    made = supernet([[0.1, -0.2], [0.3, 0.0], [0.1, -0.2], [0.3, 0.0]], [0.29, 0.31], {"a": 2, "b": 2})
    expected = np.array([[0.1, -0.2], [0.3, 0.0], [0.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(made.lookup(tf.range(4)), expected, rtol=1e-6)
    assert {name: kept.tolist() for name, kept in made.kept().items()} == {"a": [True, True], "b": [False, False]}


def test_the_gradients_are_the_papers() -> None:
    """∂L/∂t = -Σ <∂L/∂ê, m_d e> S'(|e|₁ - t); a row's own gradient passes its mask, and comes by its norm, too."""
    e, t, upstream = np.array([[0.2, -0.3], [0.1, -0.1]], np.float32), 0.4, np.array([[1.0, 2.0], [3.0, 5.0]])
    made = supernet(e.tolist(), [t], {"a": 2})
    made.set_widths([1])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(made.lookup(tf.range(2)) * tf.constant(upstream, tf.float32))
    rows, thresholds = map(tf.convert_to_tensor, tape.gradient(loss, [made.embeddings, made.thresholds]))
    slopes = 2 - 4 * np.abs(np.abs(e).sum(1) - t)  # .1 and -.2 from the threshold
    inner = upstream[:, 0] * e[:, 0]  # width 1
    np.testing.assert_allclose(thresholds, np.array([-(inner * slopes).sum()]), rtol=1e-5)
    masked = upstream * [[1, 0], [0, 0]]  # the second row is pruned
    expected = masked + (inner * slopes)[:, None] * np.sign(e)
    np.testing.assert_allclose(rows, expected, rtol=1e-5)
    assert np.abs(expected[1]).min() > 0.1, "a pruned row can come back"


def test_a_loss_that_wants_rows_lowers_their_threshold() -> None:
    made = supernet([[0.2, 0.3], [0.5, 0.1]], [0.45, 0.45], {"a": 1, "b": 1})
    with tf.GradientTape() as tape:
        out = made.lookup(tf.range(2))
        loss = tf.reduce_sum(out[0]) - tf.reduce_sum(out[1])  # a's row hurts, b's helps
    slopes = tf.convert_to_tensor(tape.gradient(loss, made.thresholds)).numpy()
    assert slopes[0] < 0 < slopes[1]  # descent raises a's threshold and lowers b's


def test_the_penalty_alone_raises_thresholds_by_its_gradient() -> None:
    made = collection(alpha=0.02, threshold_learning_rate=0.5)
    store = made.tables["t"].store
    assert isinstance(store, Supernet)
    store.thresholds.assign([0.0, 0.5, -1.0])
    before, rows = store.thresholds.numpy(), store.embeddings.numpy()
    optimizers = TableOptimizers.of(made.config)
    optimizers.build([*made.trained(), *made.thresholds()])
    trained = [*made.trained(), *made.thresholds()]
    with tf.GradientTape() as tape:
        loss = made.penalty()
    assert loss is not None
    np.testing.assert_allclose(loss, 0.02 * np.exp(-before).sum(), rtol=1e-6)
    optimizers.apply(tape.gradient(loss, [each.source for each in trained]), trained)
    np.testing.assert_allclose(store.thresholds - before, 0.5 * 0.02 * np.exp(-before), rtol=1e-4)
    np.testing.assert_array_equal(store.embeddings.numpy(), rows)


def test_rows_start_where_a_full_tables_do() -> None:
    full, store = collection(method="full").tables["t"].store, collection().tables["t"].store
    np.testing.assert_array_equal(store.embeddings.numpy(), full.embeddings.numpy())  # type: ignore[attr-defined]


def test_sampled_widths_are_prefixes_uniform_and_anew_for_each_example_and_feature() -> None:
    size, step = 6_000, tf.Variable(0, dtype=tf.int64)
    made = collection(step, threshold=-1.0)
    values = {"a": tf.ones(size, tf.int32), "b": tf.ones(size, tf.int32), "c": tf.ones((size, 3), tf.int32)}
    drawn = {name: found.numpy() != 0 for name, found in made(values, training=True).vectors().items()}
    for found in drawn.values():
        assert (np.sort(~found, 1) == ~found).all(), "a prefix"
        counts = np.bincount(found.sum(1), minlength=DIM + 1)
        assert counts[0] == 0
        assert np.abs(counts[1:] / size - 1 / DIM).max() < 4 * np.sqrt(1 / DIM * (1 - 1 / DIM) / size)
    a, b = drawn["a"].sum(1), drawn["b"].sum(1)
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.05, "features by themselves"
    assert abs(np.corrcoef(a[1:], a[:-1])[0, 1]) < 0.05, "examples by themselves"

    def again(training: bool) -> np.ndarray:
        return made(values, training=training).vectors()["a"].numpy() != 0

    np.testing.assert_array_equal(again(True), drawn["a"])  # a step draws once
    step.assign_add(1)
    assert (again(True) != drawn["a"]).any(), "the next step draws anew"
    assert again(False).all(), "nothing is drawn outside of training"


def test_all_values_of_a_multi_valued_feature_share_a_width() -> None:
    made = supernet(np.ones((3, 8)).tolist(), [0.0], {"c": 3})
    cut = made.sampled(tf.ones((500, 5, 8)), {"c": 3, "d": 2}).numpy().sum(2)
    assert (cut[:, :3] == cut[:, :1]).all()
    assert (cut[:, 3] == cut[:, 4]).all()
    assert (cut[:, 0] != cut[:, 3]).mean() > 0.7


def test_without_a_step_there_is_no_supernet() -> None:
    with pytest.raises(ValueError, match="needs the model's step"):
        EmbeddingCollection(collection().config, FEATURES)


def test_coupled_decay_lets_unseen_rows_fall_below_the_threshold() -> None:
    """The failure that looks like success: without it, training ends without an error and nothing is pruned."""
    kept = {}
    for decay in (None, {"kind": "coupled", "rate": 1e-3}):
        optimizer = {"kind": "lazy_adam", "learning_rate": 1e-3, "decay": decay}
        start = {"kind": "uniform", "range": 0.01}
        made = collection(optimizer=optimizer, initializer=start, alpha=1.0, threshold_learning_rate=1e-6)
        optimizers = TableOptimizers.of(made.config)
        trained = [*made.trained(), *made.thresholds()]
        optimizers.build(trained)
        for _ in range(300):
            values = {"a": tf.constant([1, 2]), "b": tf.constant([1, 2])}
            with tf.GradientTape() as tape:
                loss = -tf.reduce_sum(made(values, training=True).concat()) + made.penalty()
            optimizers.apply(tape.gradient(loss, [each.source for each in trained]), trained)
        optimizers.flush()
        store = made.tables["t"].store
        assert isinstance(store, Supernet)
        kept[decay is not None] = store.kept()["a"].tolist()
    assert kept[False] == [True] * 6
    assert kept[True] == [False, True, True, False, False, False]
