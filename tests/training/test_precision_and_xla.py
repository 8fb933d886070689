"""`training.precision` and `training.xla`: what they change, and what they leave alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from recsys._compat import tf
from recsys.data.catalogue import Catalogue
from recsys.data.prepared import Prepared
from recsys.data.reader import Examples
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.optimizers import TableOptimizers
from recsys.models.base import Batch
from recsys.models.build import make_model
from recsys.models.config import RankerConfig
from recsys.models.precision import MixedLayers, Precision, made_for
from recsys.models.ranker import Ranker
from recsys.training import TrainingConfig
from recsys.training.config import AdamConfig
from recsys.training.optimizers import make_dense_optimizer
from tests.worlds import EMBEDDINGS, write_world

BATCH = 64
INTERACTIONS = {
    "none": None,
    "cross": {"kind": "cross"},
    "low-rank cross": {"kind": "cross", "projection_dim": 4},
    "autoint": {"kind": "autoint", "layers": 1, "heads": 2, "head_dim": 4},
    "fm": {"kind": "fm"},
    "arm_net": {"kind": "arm_net", "neurons": 4, "heads": 2},
}


@pytest.fixture(scope="module")
def batch(world: Prepared) -> Batch:
    return next(iter(Examples(world, "train", BATCH, seed=7).batches(0, 0)))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(write_world(tmp_path_factory.mktemp("world") / "prepared", negatives=0.5))


def ranker(
    world: Prepared,
    interaction: str = "none",
    precision: Precision = "float32",
    xla: bool = False,
    dropout: float = 0.0,
    activation: str = "relu",
) -> Ranker:
    tables = {name: {**table, "dim": 8} for name, table in EMBEDDINGS["tables"].items()}
    features = EMBEDDINGS["features"] | {"price": {"projection": 8}}
    embeddings = EmbeddingsConfig.model_validate(EMBEDDINGS | {"tables": tables, "features": features})
    mlp = {"hidden": [16], "dropout": dropout, "activation": activation}
    config = RankerConfig.model_validate({"kind": "ranker", "interaction": INTERACTIONS[interaction], "mlp": mlp})
    with made_for(precision):
        model = make_model(config, embeddings, world.info.features, Catalogue.of(world), seed=7)
        assert isinstance(model, Ranker)
        model.compile(TableOptimizers.of(embeddings), make_dense_optimizer(AdamConfig()), BATCH, xla=xla)
        model.build_from(Examples(world, "train", BATCH, seed=7).sample())
    return model


def weights(model: Ranker) -> list[NDArray[np.float32]]:
    return [variable.numpy() for variable in model.trainable_variables]


def products(graph: tf.Graph) -> set[tf.DType]:
    """The types in which a graph, or a function that it calls, multiplies matrices."""
    found = {each.outputs[0].dtype for each in graph.get_operations() if "MatMul" in each.type}
    definition = graph.as_graph_def()
    for function in definition.library.function:
        found |= {tf.as_dtype(node.attr["T"].type) for node in function.node_def if "MatMul" in node.op}
    return found


def kernels_in(graph: tf.Graph) -> set[tf.DType]:
    """Likewise, but for the sums of sparse gradients and of Dice, which are products too, always float32."""
    return {kind for kind in products(graph) if kind == tf.bfloat16}


@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_only_training_is_in_bfloat16(world: Prepared, batch: Batch, interaction: str) -> None:
    model, plain = ranker(world, interaction, "mixed_bfloat16"), ranker(world, interaction)
    np.testing.assert_array_equal(model.score(batch), plain.score(batch))
    step = tf.function(model.train_step).get_concrete_function(batch)
    assert kernels_in(step.graph)
    assert not kernels_in(tf.function(plain.train_step).get_concrete_function(batch).graph)
    np.testing.assert_array_equal(model.score(batch), plain.score(batch))
    step(batch)
    inference = tf.function(lambda batch: model.logits(batch)).get_concrete_function(batch)
    assert not kernels_in(inference.graph)
    assert model.logits(batch).dtype == tf.float32


@pytest.mark.parametrize("interaction", ["cross", "low-rank cross", "autoint"])
def test_no_product_of_an_interaction_is_left_in_float32(world: Prepared, batch: Batch, interaction: str) -> None:
    model = ranker(world, interaction, "mixed_bfloat16")
    with model._mixed_layers.mixed():
        graph = tf.function(lambda batch: model.example_losses(batch, training=True)).get_concrete_function(batch).graph
    assert products(graph) == {tf.bfloat16}


def test_weights_moments_and_losses_stay_float32(world: Prepared, batch: Batch) -> None:
    model = ranker(world, "autoint", "mixed_bfloat16")
    loss = model.train_step(batch)["loss"]
    assert loss.dtype == tf.float32
    kept = [*model.trainable_variables, *model.optimizer.variables, *model.table_optimizers.variables]
    assert {variable.dtype for variable in kept if variable.dtype.is_floating} == {tf.float32}


def test_bfloat16_learns_what_float32_learns(world: Prepared) -> None:
    batches = list(Examples(world, "train", BATCH, seed=7).batches(0, 0))
    losses = {}
    for precision in ("float32", "mixed_bfloat16"):
        model = ranker(world, "cross", precision)  # type: ignore[arg-type]
        for each in 10 * batches:
            model.train_step(each)
        losses[precision] = float(np.mean([model.example_losses(each, training=False) for each in batches]))
    assert losses["mixed_bfloat16"] != losses["float32"]
    assert losses["mixed_bfloat16"] == pytest.approx(losses["float32"], rel=0.02)
    assert losses["float32"] < 0.68


def test_a_checkpoint_does_not_depend_on_the_precision(world: Prepared, batch: Batch, tmp_path: Path) -> None:
    model, plain = ranker(world, "cross", "mixed_bfloat16"), ranker(world, "cross")
    model.train_step(batch)
    path = tf.train.Checkpoint(model=model).save(str(tmp_path / "checkpoint"))
    tf.train.Checkpoint(model=plain).restore(path).assert_existing_objects_matched()
    np.testing.assert_array_equal(plain.score(batch), model.score(batch))


def test_a_saved_model_is_float32(world: Prepared, batch: Batch, tmp_path: Path) -> None:
    model = ranker(world, "autoint", "mixed_bfloat16")
    model.train_step(batch)
    module = tf.Module()
    module.kept, module.serve = model.variables, tf.function(lambda batch: model.logits(batch))
    expected = module.serve(batch)
    tf.saved_model.save(module, str(tmp_path / "saved"), module.serve.get_concrete_function(batch))
    saved = SavedModel.FromString((tmp_path / "saved" / "saved_model.pb").read_bytes())
    functions = saved.meta_graphs[0].graph_def.library.function
    kinds = {value.type for function in functions for node in function.node_def for value in node.attr.values()}
    assert tf.float32.as_datatype_enum in kinds
    assert tf.bfloat16.as_datatype_enum not in kinds
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    np.testing.assert_allclose(loaded.serve(batch), expected, rtol=1e-6)


def test_replicas_leave_bfloat16_one_by_one(world: Prepared) -> None:
    model = ranker(world, "cross", "mixed_bfloat16")
    layers: MixedLayers = model._mixed_layers
    with layers.mixed():
        with layers.mixed():
            assert model._mlp.compute_dtype == "bfloat16"
        assert model._mlp.compute_dtype == "bfloat16"
    assert model._mlp.compute_dtype == "float32"
    with pytest.raises(ZeroDivisionError), layers.mixed():
        _ = 1 / 0
    assert model._mlp.compute_dtype == "float32"


@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_xla_computes_the_same(world: Prepared, batch: Batch, interaction: str) -> None:
    found, activation = {}, "dice" if interaction == "none" else "relu"  # Dice compiles a part of itself at all times
    for xla in (False, True):
        model = ranker(world, interaction, xla=xla, activation=activation)
        step = tf.function(model.train_step)
        losses = [float(step(batch)["loss"]) for _ in range(3)]
        found[xla] = losses, weights(model)
        text = str(step.get_concrete_function(batch).graph.as_graph_def())
        assert ("_XlaMustCompile" in text) == (xla or activation == "dice")
    np.testing.assert_allclose(found[True][0], found[False][0], rtol=1e-5)
    for weight, expected in zip(found[True][1], found[False][1], strict=True):
        np.testing.assert_allclose(weight, expected, rtol=1e-3, atol=1e-4)


def test_xla_leaves_tables_and_their_gradients_sparse(world: Prepared, batch: Batch) -> None:
    model = ranker(world, "cross", xla=True)
    trained = model.embeddings.trained()
    with tf.GradientTape() as tape:
        loss = model.compute_loss(batch, training=True)
    gradients = tape.gradient(loss, [each.source for each in trained])
    assert trained
    assert all(isinstance(gradient, tf.IndexedSlices) for gradient in gradients)


def test_xla_drops_other_units_at_each_step(world: Prepared, batch: Batch) -> None:
    model = ranker(world, xla=True, dropout=0.5)
    losses = [float(tf.reduce_sum(model.example_losses(batch, training=True))) for _ in range(2)]
    model.global_step.assign_add(1)
    losses.append(float(tf.reduce_sum(model.example_losses(batch, training=True))))
    assert losses[0] == losses[1]
    assert losses[2] != losses[0]


@pytest.mark.parametrize("strategy", ["mirrored", "multi_worker", "parameter_server"])
def test_xla_compiles_for_one_device(strategy: str) -> None:
    with pytest.raises(ValidationError, match="xla compiles for one device"):
        TrainingConfig.model_validate({"xla": True, "strategy": strategy})
