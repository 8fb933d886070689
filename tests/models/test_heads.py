"""Heads: mixtures and losses by hand, which gradients reach which weights, and that several labels are learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score

from recsys._compat import keras, tf
from recsys.data.catalogue import Catalogue
from recsys.data.prepared import Prepared
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.optimizers import TableOptimizers
from recsys.embeddings.seeds import seed_for
from recsys.models.base import Batch
from recsys.models.build import make_model
from recsys.models.config import HeadConfig, MLPConfig, MMoEConfig, RankerConfig
from recsys.models.heads import Heads
from recsys.models.precision import made_for
from recsys.models.ranker import Ranker
from recsys.training.warm_start import Known, warm_start
from tests.worlds import EMBEDDINGS

BATCH = 96
TWO: dict[str, Any] = {"label": {"hidden": [4]}, "loved": {"weight": 0.5, "hidden": [3]}}
SHARED: dict[str, Any] = {"mlp": {"hidden": [8]}, "heads": TWO}
EXPERTS = SHARED | {"experts": {"count": 3}}


def ranker(world: Prepared, config: dict[str, Any], known: float = 1.0) -> Ranker:
    embeddings = EmbeddingsConfig.model_validate(
        EMBEDDINGS | {"optimizer": {"kind": "lazy_adam", "learning_rate": 0.02}}
    )
    config = {"kind": "ranker", "mlp": {"hidden": [8]}} | config
    model = make_model(
        RankerConfig.model_validate(config),
        embeddings,
        world.info.features,
        Catalogue.of(world),
        0,
        known={"loved": known},
    )
    assert isinstance(model, Ranker)
    dense = keras.optimizers.Adam(0.02, epsilon=1e-8, adaptive_epsilon=True, jit_compile=False)
    model.compile(TableOptimizers.of(embeddings), dense, BATCH)
    model.build_from(pairs(world, np.arange(4)))
    return model


def pairs(world: Prepared, cells: np.ndarray) -> Batch:
    """Cells of the table users x items. `label` is 1 where user and item have one parity; `loved` is its opposite but
    for every seventh item, where both are 1.
    """
    user, item = (cells // 30).astype(np.int32), (cells % 30).astype(np.int32)
    label = user % 2 == item % 2
    query = {
        "user_id": user + 2,
        "device": np.ones(len(cells), np.int32),
        "history": np.zeros((len(cells), 4), np.int32),
        "history.age": np.zeros((len(cells), 4), np.float32),
    }
    batch = {
        "query": query,
        "item": {name: column[item] for name, column in world.item_features.items()},
        "user_index": user,
        "item_index": item,
        "label": label.astype(np.float32),
        "labels": {"loved": (~label | (item % 7 == 0)).astype(np.float32)},
        "weight": np.ones(len(cells), np.float32),
    }
    return tf.nest.map_structure(tf.constant, batch)


def with_loved(batch: Batch, loved: np.ndarray) -> Batch:
    return {**batch, "labels": {"loved": tf.constant(loved.astype(np.float32))}}


def gradients(model: Ranker, batch: Batch) -> dict[str, np.ndarray]:
    with tf.GradientTape() as tape:
        loss = model.compute_loss(batch)
    found = tape.gradient(loss, model.trainable_variables, unconnected_gradients="zero")
    return {v.name: tf.convert_to_tensor(g).numpy() for v, g in zip(model.trainable_variables, found, strict=True)}


def assign(layer: keras.layers.Layer, **weights: Any) -> None:
    """Each of the layer's weights whose path ends so."""
    for end, value in weights.items():
        (weight,) = [each for each in layer.weights if end in each.name]
        weight.assign(value)


def test_two_experts_and_two_heads_by_hand() -> None:
    """x = (1, 2); experts relu(x0 + x1) = 3 and relu(x0 - x1 + 2) = 1; gates say 3 : 1 and 1 : 1."""
    config = MLPConfig(hidden=(1,))
    heads = {"label": HeadConfig(), "loved": HeadConfig()}
    layer = Heads(heads, config, MMoEConfig(count=2), 0, tf.Variable(0, dtype=tf.int64), "h")
    x = tf.constant([[1.0, 2.0], [0.0, 0.0]])
    layer(x)
    assign(layer, **{"h_expert_0_0/kernel": [[1.0], [1.0]], "h_expert_1_0/kernel": [[1.0], [-1.0]]})
    assign(layer, **{"h_expert_1_0/bias": [2.0]})
    assign(layer, h_gate_label=[[np.log(3.0), 0.0], [0.0, 0.0]], h_gate_loved=np.zeros((2, 2)))
    assign(layer, **{"h_tower_label_output/kernel": [[2.0]], "h_tower_label_output/bias": [1.0]})
    assign(layer, **{"h_tower_loved_output/kernel": [[-1.0]]})
    np.testing.assert_allclose(layer.shares(x)[0], [[0.75, 0.25], [0.5, 0.5]], rtol=1e-6)
    # First row: 0.75 * 3 + 0.25 * 1 = 2.5 and 2; second: experts 0 and 2, gates even.
    np.testing.assert_allclose(layer(x), [[2 * 2.5 + 1, -2.0], [2 * 1.0 + 1, -1.0]], rtol=1e-6)


def test_a_shared_bottom_by_hand() -> None:
    heads = {"label": HeadConfig(), "loved": HeadConfig(hidden=(1,))}
    layer = Heads(heads, MLPConfig(hidden=(2,)), None, 0, tf.Variable(0, dtype=tf.int64), "h")
    x = tf.constant([[1.0], [-1.0]])
    layer(x)
    assign(layer, **{"h_shared_0/kernel": [[1.0, -3.0]], "h_tower_label_output/kernel": [[1.0], [1.0]]})
    assign(layer, **{"h_tower_loved_0/kernel": [[1.0], [0.0]], "h_tower_loved_output/kernel": [[5.0]]})
    np.testing.assert_allclose(layer(x), [[1.0, 5.0], [3.0, 0.0]])


@pytest.mark.parametrize("structure", ["stacked", "parallel"])
@pytest.mark.parametrize("config", [SHARED, EXPERTS], ids=["shared", "experts"])
def test_every_weight_learns_from_both_heads(world: Prepared, config: dict[str, Any], structure: str) -> None:
    model = ranker(world, config | {"interaction": {"kind": "cross"}, "structure": structure})
    batch = pairs(world, np.arange(96) * 7)
    batch["query"] |= {"history": tf.ones([96, 4], tf.int32) * 3, "history.age": tf.ones([96, 4]) * 3600}
    before = {id(each): each.numpy() for each in model.trainable_variables}
    assert np.isfinite(model.train_step(batch)["loss"])
    assert not [each.name for each in model.trainable_variables if np.array_equal(each, before[id(each)])]
    found = model.scores(batch)
    assert list(found) == ["label", "loved"]
    np.testing.assert_array_equal(found["label"], model.score(batch))
    assert not np.allclose(found["label"], found["loved"], atol=1e-3)


def test_the_loss_is_the_weighted_sum_over_heads(world: Prepared) -> None:
    heads = {"loved": {"weight": 0.5, "loss": {"kind": "focal", "gamma": 1.0}}, "label": {"weight": 2.0}}
    model = ranker(world, {"heads": heads, "loss": {"positive_weight": 3.0}})
    batch = pairs(world, np.arange(40) * 11)
    trained = model._both_logits(batch, False)[0].numpy().astype(np.float64)
    logit = dict(zip(model.heads, trained.T, strict=True))
    p = {name: 1 / (1 + np.exp(-each)) for name, each in logit.items()}
    y, loved = batch["label"].numpy(), batch["labels"]["loved"].numpy()
    main = -(3 * y * np.log(p["label"]) + (1 - y) * np.log(1 - p["label"]))
    happened = np.where(loved == 1, p["loved"], 1 - p["loved"])
    expected = 2 * main - 0.5 * (1 - happened) * np.log(happened)
    np.testing.assert_allclose(model.example_losses(batch, training=False), expected, rtol=1e-5)
    np.testing.assert_allclose(model.logits(batch), logit["label"] - np.log(3), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("config", [SHARED, EXPERTS], ids=["shared", "experts"])
def test_a_head_of_weight_zero_leaves_its_tower_untouched(world: Prepared, config: dict[str, Any]) -> None:
    heads = {**TWO, "loved": {**TWO["loved"], "weight": 0.0}}
    model = ranker(world, config | {"heads": heads})
    batch = pairs(world, np.arange(96) * 7)
    found = gradients(model, batch)
    own = [name for name in found if "_loved" in name]
    assert len(own) == 4 + ("experts" in config)  # two layers, each with a bias, and the gate
    assert not any(found[name].any() for name in own)
    assert all(found[name].any() for name in found if "_tower_label" in name or "_shared" in name or "_expert_" in name)
    other = gradients(model, with_loved(batch, 1 - batch["labels"]["loved"].numpy()))
    for name in found:
        np.testing.assert_array_equal(found[name], other[name], name)
    before = {each.name: each.numpy() for each in model.trainable_variables}
    model.train_step(batch)
    assert all(np.array_equal(each, before[each.name]) for each in model.trainable_variables if each.name in own)


def test_unknown_labels_have_exactly_no_part(world: Prepared) -> None:
    """The gradient is that of a batch in which the head sees the known examples alone; NaN reaches nothing."""
    model, batch = ranker(world, SHARED), pairs(world, np.arange(96) * 7)
    loved = batch["labels"]["loved"].numpy()
    unknown = with_loved(batch, np.where(np.arange(96) < 40, np.nan, loved))
    found = gradients(model, unknown)
    assert all(np.isfinite(each).all() for each in found.values())
    known = {name: tf.nest.map_structure(lambda x: x[40:], part) for name, part in unknown.items()}
    alone = gradients(model, known)
    for name in found:
        if "_tower_loved" in name:
            np.testing.assert_allclose(found[name], alone[name], rtol=1e-4, atol=1e-9)
    none = gradients(model, with_loved(batch, np.full(96, np.nan)))
    assert not any(none[name].any() for name in none if "_loved" in name)
    assert all(none[name].any() for name in none if "_tower_label" in name)


def test_an_unknown_label_neither_shrinks_nor_inflates_its_head(world: Prepared) -> None:
    """One example in four is known: the head's mean loss is that of the known ones."""
    batch = pairs(world, np.arange(96) * 7)
    quarter = np.arange(96) % 4 == 0
    loved = np.where(quarter, batch["labels"]["loved"].numpy(), np.nan)
    heads = {"label": {}, "loved": {}}
    whole, some = ranker(world, {"heads": heads}), ranker(world, {"heads": heads}, known=0.25)
    alone = ranker(world, {"heads": {"label": {}, "loved": {"weight": 0.0}}})
    rest = alone.example_losses(batch, training=False).numpy()
    expected = (whole.example_losses(batch, training=False).numpy() - rest)[quarter].mean()
    found = some.example_losses(with_loved(batch, loved), training=False).numpy() - rest
    assert found.mean() == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(found[~quarter], 0.0, atol=1e-6)


def test_experts_train_under_xla_and_in_bfloat16(world: Prepared) -> None:
    """The first loss is that of float32, and so are the scores; every weight still learns."""
    plain, batch = ranker(world, EXPERTS), pairs(world, np.arange(96) * 7)
    with made_for("mixed_bfloat16"):
        model = ranker(world, EXPERTS)
        model.compile(model.table_optimizers, model.optimizer, BATCH, xla=True)
    for head, logits in model.scores(batch).items():
        np.testing.assert_allclose(logits, plain.scores(batch)[head], rtol=1e-5, atol=1e-6)
    before = {id(each): each.numpy() for each in model.dense_variables()}
    losses = [float(tf.function(each.train_step)(batch)["loss"]) for each in (plain, model)]
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    read = [each for each in model.dense_variables() if "decay" not in each.name and "age" not in each.name]
    assert not [each.name for each in read if np.array_equal(each, before[id(each)])]


def auc_of_heads(model: Ranker, world: Prepared, epochs: int) -> dict[str, float]:
    """On a fifth of the cells, held out."""
    rng = np.random.default_rng(0)
    cells = rng.permutation(1200)
    step = tf.function(model.train_step, reduce_retracing=True)
    for _ in range(epochs):
        order = rng.permutation(cells[:960])
        for start in range(0, 960, BATCH):
            step(pairs(world, order[start : start + BATCH]))
    held_out = pairs(world, cells[960:])
    truth = {"label": held_out["label"], **held_out["labels"]}
    return {name: roc_auc_score(truth[name], logits) for name, logits in model.scores(held_out).items()}


@pytest.mark.parametrize("config", [SHARED, EXPERTS], ids=["shared", "experts"])
def test_labels_that_go_against_each_other_are_both_learned(world: Prepared, config: dict[str, Any]) -> None:
    batch = pairs(world, np.arange(1200))
    assert np.corrcoef(batch["label"], batch["labels"]["loved"])[0, 1] < -0.7
    found = auc_of_heads(ranker(world, config), world, epochs=12)
    assert min(found.values()) > 0.93, found


def test_positives_that_weigh_more_leave_probabilities_calibrated(world: Prepared) -> None:
    """Labels at random, one in eight of them 1: all that can be learned is the base rate."""
    rng = np.random.default_rng(3)
    mean = {}
    for weight in (1.0, 8.0):
        model = ranker(world, {"mlp": {"hidden": []}, "loss": {"positive_weight": weight}})
        batch = pairs(world, np.arange(1200))
        label = (rng.permutation(1200) < 150).astype(np.float32)
        step = tf.function(model.train_step, reduce_retracing=True)
        for start in [*range(0, 1200, BATCH)] * 12:
            step(
                {
                    **tf.nest.map_structure(lambda x, at=start: x[at : at + BATCH], batch),
                    "label": label[start : start + BATCH],
                }
            )
        mean[weight] = float(tf.reduce_mean(tf.sigmoid(model.score(batch))))
        trained = float(tf.reduce_mean(tf.sigmoid(model._both_logits(batch, False)[0])))
    assert mean[1.0] == pytest.approx(0.125, abs=0.03)
    assert mean[8.0] == pytest.approx(0.125, abs=0.04)
    assert trained > 0.4, "what is trained is far off: there is something to allow for"


def test_a_warm_start_knows_towers_gates_and_experts_by_name(world: Prepared) -> None:
    """Heads in another order, and one more."""
    three = {"loved": TWO["loved"], "bought": {"hidden": [4]}, "label": TWO["label"]}
    old = ranker(world, EXPERTS)
    config = RankerConfig.model_validate({"kind": "ranker"} | EXPERTS | {"heads": three})
    new = Ranker(config, old.embeddings.config, world.info.features, 5)
    batch = pairs(world, np.arange(8))
    new.example_losses({**batch, "labels": dict.fromkeys(["loved", "bought"], batch["label"])}, training=False)
    done = warm_start(Known(new, world.vocabulary), Known(old, world.vocabulary))
    assert {path.split("/")[-2] for path in done.fresh} == {
        "ranker_mlp_gate_bought",
        "ranker_mlp_tower_bought_0",
        "ranker_mlp_tower_bought_output",
    }
    before, after = old.scores(batch), new.scores(batch)
    for head in ("label", "loved"):
        np.testing.assert_allclose(after[head], before[head], rtol=1e-5, atol=1e-7)


def test_a_ranker_without_heads_begins_as_it_always_did(world: Prepared) -> None:
    """Seeds go by name."""
    model = ranker(world, {"structure": "parallel", "interaction": {"kind": "cross"}})
    kernels = {each.name.split("/")[-2]: each for each in model.dense_variables() if "kernel" in each.name}
    for name in ("ranker_mlp_0", "ranker_mlp_output", "ranker_linear"):
        expected = keras.initializers.GlorotUniform(seed=seed_for(0, "dense", name))(kernels[name].shape)
        np.testing.assert_array_equal(kernels[name], expected)
    batch = pairs(world, np.arange(8))
    del batch["labels"]
    assert list(model.scores(batch)) == ["label"]
    assert np.isfinite(model.example_losses(batch, training=True)).all()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"heads": {"loved": {}}}, "heads.*none is 'label', which ranks; add `label: {}`"),
        ({"heads": {"label": {"weight": 0.0}}}, "heads.label.weight.*this head ranks"),
        ({"heads": {"label": {"weight": -1.0}}}, "heads.label.weight"),
        ({"experts": {"count": 4}}, "experts.*there are no heads to mix them"),
        ({"experts": {}, "heads": TWO, "mlp": {"hidden": []}}, "experts.*`mlp`, which has none"),
        ({"experts": {"count": 1}, "heads": TWO}, "experts.*count"),
    ],
)
def test_configs_that_make_no_heads(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=f"(?s){message}"):
        RankerConfig.model_validate({"kind": "ranker"} | config)
