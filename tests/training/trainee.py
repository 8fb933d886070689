"""What a process of its own does, to be killed: trains on a small world and writes what it ended with."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from recsys._compat import tf
from recsys.data.catalogue import Catalogue
from recsys.data.prepared import Prepared
from recsys.data.reader import Examples
from recsys.data.sequences import Sequences
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.optimizers import TableOptimizers
from recsys.embeddings.planned import PlannedRows
from recsys.embeddings.tables import Vocabularies
from recsys.embeddings.training_rows import training_rows
from recsys.evaluation import EvaluationConfig, evaluate_model
from recsys.models.base import EmbeddingModel
from recsys.models.build import make_model
from recsys.models.config import ModelConfig, RankerConfig, TwoTowerConfig
from recsys.models.precision import made_for
from recsys.training import Checkpoints, TrainingConfig, fit, make_strategy
from recsys.training.callbacks import EarlyStopping, FiniteLoss, Validation
from recsys.training.config import EarlyStoppingConfig
from recsys.training.optimizers import make_dense_optimizer
from recsys.training.strategies import is_chief, serve_if_remote

EMBEDDINGS = EmbeddingsConfig.model_validate(
    {
        "tables": {"ids": {"dim": 8}, "user": {"dim": 8}, "genre": {"method": "hashed", "rows": 60_000, "dim": 32}},
        "features": {
            "user_id": {"table": "user"},
            "movie_id": {"table": "ids"},
            "history": {"table": "ids"},
            "genres": {"table": "genre"},
            "device": {"table": "genre"},
        },
    }
)
KEPT = EmbeddingsConfig.model_validate(
    {
        "tables": EMBEDDINGS.model_dump(exclude_unset=True)["tables"],
        "features": EMBEDDINGS.model_dump(exclude_unset=True)["features"]
        | {"history": {"table": "ids", "pooling": "none"}},
    }
)
"""Whose history an encoder reads."""
DIN = EmbeddingsConfig.model_validate(
    KEPT.model_dump(exclude_unset=True)
    | {"optimizer": {"kind": "lazy_adam", "decay": {"kind": "mini_batch_aware", "rate": 0.1}}}
)
"""Rows that decay by how often training meets them."""
EVALUATION = EvaluationConfig(ks=(5, 10))
MONITOR = {"two_tower": "ndcg@10", "ranker": "auc", "din": "auc", "transformer": "ndcg@10"}


def model_config(kind: str, dropout: float) -> ModelConfig:
    if kind == "ranker":
        return RankerConfig.model_validate({"kind": kind, "mlp": {"hidden": [16], "dropout": dropout}})
    if kind == "din":
        mlp = {"hidden": [16], "dropout": dropout, "activation": "dice"}
        return RankerConfig.model_validate({"kind": "ranker", "sequence": {"kind": "din", "hidden": [8]}, "mlp": mlp})
    tower = {"hidden": [16], "output_dim": 8, "dropout": dropout}
    encoder = {"sequence": {"kind": kind, "dropout": dropout}} if kind == "transformer" else {}
    return TwoTowerConfig.model_validate({"kind": "two_tower", "query": tower | encoder, "item": tower})


def weights_digest(model: EmbeddingModel) -> str:
    total = hashlib.sha256()
    for variable in (*model.variables, *model.table_optimizers.variables, *model.optimizer.variables):
        total.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return total.hexdigest()


def rows(model: EmbeddingModel, table: str) -> list[list[float]]:
    store = model.embeddings.tables[table].store
    if isinstance(store, PlannedRows):
        found: list[list[float]] = store.lookup(tf.range(store.rows)).numpy().tolist()
        return found
    return list(np.asarray(tf.convert_to_tensor(store.embeddings)).tolist())


def main(world: Path, run: Path, options: dict[str, str]) -> None:
    """`run/result.json`, or `run/result{task}.json`, appears at the end."""
    if "devices" in options:
        cpu = tf.config.list_physical_devices("CPU")[0]
        logical = [tf.config.LogicalDeviceConfiguration()] * int(options["devices"])
        tf.config.set_logical_device_configuration(cpu, logical)
    training = TrainingConfig(
        batch_size=int(options.get("batch", "32")),
        epochs=int(options.get("epochs", "5")),
        steps_per_call=3,
        checkpoint_every_steps=int(options.get("every", "4")),
        strategy=options.get("strategy", "default"),  # type: ignore[arg-type]
        precision=options.get("precision", "float32"),  # type: ignore[arg-type]
        xla=options.get("xla") == "true",
    )
    kind = options.get("model", "two_tower")
    embeddings = {"din": DIN, "transformer": KEPT}.get(kind, EMBEDDINGS).model_copy(
        update={"plan": options.get("plan")}
    )
    serve_if_remote(training)
    prepared = Prepared(world)
    strategy = make_strategy(training)
    examples: Examples | Sequences = Examples(prepared, "train", training.batch_size, seed=7)
    if kind == "transformer":
        examples = Sequences(prepared, training.batch_size, seed=7)
    with strategy.scope(), made_for(training.precision):
        model = make_model(
            model_config(kind, float(options.get("dropout", "0.2"))),
            embeddings,
            prepared.info.features,
            Catalogue.of(prepared),
            seed=7,
            vocabularies=Vocabularies(prepared.frequencies, prepared.vocabulary),
        )
        model.compile(
            TableOptimizers.of(embeddings, training_rows(model.embeddings, examples.once())),
            make_dense_optimizer(training.dense_optimizer),
            examples.examples_per_step,
            xla=training.xla,
        )
        model.build_from(examples.sample())
    checkpoints = Checkpoints(run / "checkpoints", model, is_chief(training))
    callbacks = [
        FiniteLoss(),
        Validation(lambda: evaluate_model(model, prepared, "valid", EVALUATION).metrics["model"]),
        EarlyStopping(EarlyStoppingConfig(patience=3), MONITOR[kind], checkpoints.save_best),
    ]
    position = fit(model, examples, training, checkpoints, strategy, callbacks)
    weights = {v.name: np.asarray(tf.convert_to_tensor(v)).tolist() for v in model.dense_variables()}
    task = options.get("task", "")
    result = {
        "digest": weights_digest(model) if training.strategy == "default" else None,
        "history": position.history,
        "callbacks": position.callbacks,
        "step": int(model.global_step.numpy()),
        "dense": weights,
        "ids": rows(model, "ids"),
        "user": rows(model, "user"),
    }
    (run / f"result{task}.json").write_text(json.dumps(result))
