"""Losses on two replicas and in one process, on the same global batches: run by `test_replicas.py` in a process of its
own, because devices are split before TensorFlow starts.

Run as: python on_replicas.py WORLD
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from recsys._compat import tf
from recsys.data.catalogue import Catalogue
from recsys.data.prepared import Prepared
from recsys.data.reader import Examples
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.optimizers import TableOptimizers
from recsys.models.base import Batch
from recsys.models.build import make_model
from recsys.models.config import TwoTowerConfig
from recsys.training.config import AdamConfig
from recsys.training.optimizers import make_dense_optimizer
from tests.worlds import EMBEDDINGS

TOWER = {"hidden": [8], "output_dim": 8}
LOSSES: dict[str, dict[str, Any]] = {
    "everything": {
        "loss": {
            "log_q": {"kind": "streaming", "rows": 64},
            "candidates": "unique",
            "uniform_negatives": 6,
            "hardest": 20,
            "mined": {"ranks": [3, 10], "kept": 4, "count": 2},
        },
        "matryoshka": [4],
        "ssl": {"augmentation": "random", "value_dropout": 0.3},
    },
    "bpr": {"loss": {"kind": "bpr", "negatives": 3}},
}


def trained(world: Prepared, config: dict[str, Any], strategy: tf.distribute.Strategy) -> dict[str, list[float]]:
    """Every variable after two steps."""
    examples = Examples(world, "train", 32, seed=0)
    with strategy.scope():
        embeddings = EmbeddingsConfig.model_validate(EMBEDDINGS)
        towers = TwoTowerConfig.model_validate({"kind": "two_tower", "query": TOWER, "item": TOWER, **config})
        model = make_model(towers, embeddings, world.info.features, Catalogue.of(world), 7)
        model.compile(TableOptimizers.of(embeddings), make_dense_optimizer(AdamConfig()), 32)
        model.build_from(examples.sample())
    for variable in model.variables:
        if "hard_negatives" in variable.name:
            variable.assign(np.random.default_rng(0).integers(0, 30, variable.shape).astype(np.int32))

    @tf.function
    def step(batch: Batch) -> None:
        strategy.run(model.train_step, args=(batch,))

    def slices(context: tf.distribute.InputContext) -> tf.data.Dataset:
        return examples.batches(0, local_batch=context.get_per_replica_batch_size(32))

    batches = iter(strategy.distribute_datasets_from_function(slices))
    for _ in range(2):
        step(next(batches))
    return {v.name: np.asarray(tf.convert_to_tensor(v), np.float64).ravel().tolist() for v in model.variables}


if __name__ == "__main__":
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    prepared = Prepared(Path(sys.argv[1]))
    strategies = {
        "one": tf.distribute.get_strategy(),
        "two": tf.distribute.MirroredStrategy([d.name for d in tf.config.list_logical_devices("CPU")]),
    }
    found = {
        loss: {name: trained(prepared, config, strategy) for name, strategy in strategies.items()}
        for loss, config in LOSSES.items()
    }
    print(json.dumps(found))
