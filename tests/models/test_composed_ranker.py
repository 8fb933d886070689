"""Rankers composed of sequence layers and interactions: every pair trains, learns and is served."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from recsys._compat import keras, tf
from recsys.data.catalogue import Catalogue
from recsys.data.prepared import Prepared
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.optimizers import TableOptimizers
from recsys.experiment_config import ExperimentConfig
from recsys.models.base import Batch
from recsys.models.build import make_model
from recsys.models.config import RankerConfig
from recsys.models.ranker import Ranker
from tests.worlds import SCHEMA

EMBEDDINGS: dict[str, Any] = {
    "tables": {"ids": {"dim": 8}, "searched": {"dim": 4}, "user": {"dim": 8}, "genre": {"dim": 8}},
    "features": {
        "user_id": {"table": "user"},
        "movie_id": {"table": "ids"},
        "history": {"table": "ids", "pooling": "none"},
        "genres": {"table": "genre"},
        "device": {"table": "genre"},
        "price": {"projection": 8},
    },
    "optimizer": {"kind": "lazy_adam", "learning_rate": 0.02},
}
DECOUPLED = {name: {**EMBEDDINGS["features"][name], "attention_table": "searched"} for name in ("movie_id", "history")}
SEQUENCES: dict[str, Any] = {
    "din": {"kind": "din", "hidden": [8]},
    "mean": {"kind": "mean"},
    "din, product": {"kind": "din", "hidden": [8], "target_aware": True},
    "twin": {"kind": "attention", "top_k": 2},
    "dare": {"kind": "attention", "top_k": 2},
}
INTERACTIONS: dict[str, Any] = {
    "none": None,
    "cross": {"kind": "cross"},
    "autoint": {"kind": "autoint", "layers": 1, "heads": 2, "head_dim": 4},
    "fm": {"kind": "fm"},
    "arm_net": {"kind": "arm_net", "neurons": 4, "heads": 2},
}


def tables(sequence: str) -> dict[str, Any]:
    if sequence == "dare":
        return EMBEDDINGS | {"features": EMBEDDINGS["features"] | DECOUPLED}
    return EMBEDDINGS | {"tables": {name: table for name, table in EMBEDDINGS["tables"].items() if name != "searched"}}


def ranker(world: Prepared, sequence: str, interaction: str, structure: str = "stacked") -> Ranker:
    embeddings = EmbeddingsConfig.model_validate(tables(sequence))
    config = {"sequence": SEQUENCES[sequence], "interaction": INTERACTIONS[interaction], "structure": structure}
    model = make_model(
        RankerConfig.model_validate({"kind": "ranker", "mlp": {"hidden": [8]}} | config),
        embeddings,
        world.info.features,
        Catalogue.of(world),
        0,
    )
    assert isinstance(model, Ranker)
    dense = keras.optimizers.Adam(0.02, epsilon=1e-8, adaptive_epsilon=True, jit_compile=False)
    model.compile(TableOptimizers.of(embeddings), dense, 48)
    model.build_from(examples(world, 4))
    return model


def examples(world: Prepared, count: int) -> Batch:
    """The label is 1 where the history holds the candidate: nothing else tells it."""
    rng = np.random.default_rng(0)
    item = rng.integers(0, 30, count).astype(np.int32)
    history = rng.integers(2, 32, (count, 4)).astype(np.int32)
    history[np.arange(count), rng.integers(0, 4, count)] = np.where(
        rng.random(count) < 0.5, item + 2, 2 + (item + 7) % 30
    )
    history[: count // 8, 3:] = 0
    label = (history == item[:, None] + 2).any(1).astype(np.float32)
    query = {
        "user_id": rng.integers(2, 40, count).astype(np.int32),
        "device": rng.integers(1, 4, count).astype(np.int32),
        "history": history,
        "history.age": np.zeros((count, 4), np.float32),
    }
    features = {name: column[item] for name, column in world.item_features.items()}
    own = {"user_index": item, "item_index": item, "label": label, "weight": np.ones(count, np.float32)}
    return tf.nest.map_structure(tf.constant, {"query": query, "item": features} | own)


@pytest.mark.parametrize("sequence", SEQUENCES)
@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_every_pair_trains_all_its_weights(world: Prepared, sequence: str, interaction: str) -> None:
    model = ranker(world, sequence, interaction)
    batch = examples(world, 48)
    before = {id(each): each.numpy() for each in model.trainable_variables}
    loss = model.train_step(batch)["loss"]
    assert np.isfinite(loss)
    still = [each.name for each in model.trainable_variables if np.array_equal(each.numpy(), before[id(each)])]
    assert not still
    assert np.isfinite(model.score(batch)).all()


@pytest.mark.parametrize("interaction", ["cross", "autoint", "fm", "arm_net"])
def test_parallel_adds_the_interaction_s_logit_to_the_mlp_s(world: Prepared, interaction: str) -> None:
    model = ranker(world, "mean", interaction, "parallel")
    batch = examples(world, 6)
    together = model.score(batch).numpy()
    (linear,) = model._linear.weights
    weights = linear.numpy()
    linear.assign(tf.zeros_like(linear))
    deep = model.score(batch).numpy()
    linear.assign(2 * weights)
    np.testing.assert_allclose(model.score(batch).numpy() - deep, 2 * (together - deep), rtol=1e-4, atol=1e-6)
    assert not np.allclose(deep, together)


def test_the_product_with_the_target_stands_beside_the_mean(world: Prepared) -> None:
    batch, means = examples(world, 6), {}
    for aware in (False, True):
        config = RankerConfig.model_validate({"kind": "ranker", "sequence": {"kind": "mean", "target_aware": aware}})
        features = world.info.features
        model = make_model(config, EmbeddingsConfig.model_validate(tables("mean")), features, Catalogue.of(world), 0)
        embedded = model.embeddings({**batch["query"], **batch["item"]})
        means[aware] = model._history(embedded).main.numpy()
        target = embedded.vectors()["movie_id"].numpy()
    np.testing.assert_allclose(means[True], np.concatenate([means[False], target * means[False]], -1), rtol=1e-6)


def test_target_attention_sees_what_pooling_hides(world: Prepared) -> None:
    batch = examples(world, 480)
    blocks = [tf.nest.map_structure(lambda x, at=at: x[at : at + 48], batch) for at in range(0, 480, 48)]
    found = {}
    for sequence in ("mean", "din", "dare"):
        model = ranker(world, sequence, "none")
        step = tf.function(model.train_step)
        for block in 25 * blocks:
            step(block)
        losses = tf.nn.sigmoid_cross_entropy_with_logits(batch["label"], model.score(batch))
        found[sequence] = float(tf.reduce_mean(losses))
    assert found["din"] < 0.7 * found["mean"]
    assert found["dare"] < 0.7 * found["mean"]


def test_the_auxiliary_head_s_loss_is_added_with_its_weight(world: Prepared) -> None:
    batch = examples(world, 8)
    losses = {}
    for weight in (0.0, 1.0, 3.0):
        SEQUENCES["weighted"] = {"kind": "attention", "top_k": 2, "auxiliary": weight}
        losses[weight] = ranker(world, "weighted", "none").example_losses(batch, training=False).numpy()
    del SEQUENCES["weighted"]
    np.testing.assert_allclose(losses[3.0] - losses[0.0], 3 * (losses[1.0] - losses[0.0]), rtol=1e-4)
    assert (losses[1.0] > losses[0.0]).all()


def whole(**changes: Any) -> dict[str, Any]:
    return {
        "name": "x",
        "data": {"source": {"kind": "public", "name": "x"}, "negatives": {"column": "y", "at_most": 0}},
        "schema": SCHEMA,
        "embeddings": tables("din"),
        "model": {"kind": "ranker", "sequence": SEQUENCES["din"], "interaction": INTERACTIONS["autoint"]},
    } | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"kind": "ranker"}}, "history.pooling.*no layer that reads a sequence.*model.sequence"),
        ({"embeddings": tables("dare")}, "history.attention_table.*sequence: din searches no table"),
        ({"embeddings": tables("dare"), "model": {"kind": "ranker", "sequence": SEQUENCES["dare"]}}, ""),
        (
            {"embeddings": tables("din") | {"features": EMBEDDINGS["features"] | {"history": {"table": "ids"}}}},
            "model.sequence.*no history stays a sequence",
        ),
        (
            {
                "embeddings": tables("din")
                | {"features": {k: v for k, v in EMBEDDINGS["features"].items() if k != "price"}}
            },
            "autoint needs fields of one width, and they are .*price 1",
        ),
        (
            {"model": {"kind": "ranker", "sequence": SEQUENCES["din"], "structure": "parallel"}},
            "no interaction to be parallel to",
        ),
        (
            {
                "embeddings": tables("dare"),
                "model": {"kind": "ranker", "sequence": {"kind": "attention", "projection": 4}},
            },
            "model.sequence.projection",
        ),
    ],
)
def test_parts_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    if not message:
        ExperimentConfig.model_validate(whole(**changes))
        return
    with pytest.raises(ValidationError, match=f"(?s){message}"):
        ExperimentConfig.model_validate(whole(**changes))


@pytest.mark.parametrize("structure", ["stacked", "parallel"])
@pytest.mark.parametrize("interaction", ["none", "cross", "autoint", "fm", "arm_net"])
def test_weights_that_go_by_feature_say_so(world: Prepared, interaction: str, structure: str) -> None:
    """Each layout fills its axes, and every first kernel is told: a warm start would copy an untold one as a whole."""
    if (interaction, structure) == ("none", "parallel"):
        return
    model = ranker(world, "din", interaction, structure)
    told = model.feature_weights()
    for each in told:
        for axis in each.axes:
            assert sum(width for _, width in each.layout) == each.weight.shape[axis]
    known = {id(each.weight) for each in told}
    assert id(model._mlp.input_weights()[0][0]) in known
    if structure == "parallel":
        assert id(model._linear.kernel) in known
    (first,) = [each for each in told if each.weight is model._mlp.input_weights()[0][0]]
    by_field = interaction == "autoint" and structure == "stacked"
    if by_field or interaction in ("none", "cross") or structure == "parallel":
        assert [name for name, _ in first.layout] == [
            name for name, _ in model.embeddings.layout("user", "item", "context")
        ] + ["(rest)"]
