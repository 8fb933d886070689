"""The contenders in TensorFlow: recsys' own Ranker, and what a user of Keras would write.

    python -m peers.in_tensorflow recsys lazy_adam|rowwise_adagrad|adagrad
    python -m peers.in_tensorflow keras adam|adagrad

Started by `step_time.py`, in its folder.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

from peers.contender import BATCH, CORES, DIM, FIELDS, HIDDEN, Batches, Steps, serve
from pydantic import TypeAdapter

from recsys._compat import keras, tf
from recsys.data.dataset import CategoricalInfo, FeatureInfo
from recsys.embeddings.config import EmbeddingsConfig, FeatureConfig, FullTable
from recsys.embeddings.optimizers import TableOptimizers
from recsys.embeddings.optimizers.config import TableOptimizerConfig
from recsys.models.config import MLPConfig, RankerConfig
from recsys.models.ranker import Ranker

NAMES = [f"field_{number:02d}" for number in range(FIELDS)]


def engine(optimizer: str, rows: int) -> Callable[[Batches], Steps]:
    """The Ranker: one table for all fields, and its sparse optimizer.

    For the dense layers both sides have the same: Adagrad beside Keras' Adagrad, otherwise Adam.
    """
    embeddings = EmbeddingsConfig(
        tables={"all": FullTable(dim=DIM)},
        features={name: FeatureConfig(table="all") for name in NAMES},
        optimizer=TypeAdapter(TableOptimizerConfig).validate_python({"kind": optimizer}),
    )
    info = CategoricalInfo(role="context", rows=rows // FIELDS, oov_rows=1)
    features: dict[str, FeatureInfo] = dict.fromkeys(NAMES, info)
    model = Ranker(RankerConfig(kind="ranker", mlp=MLPConfig(hidden=HIDDEN)), embeddings, features)
    dense = keras.optimizers.Adagrad() if optimizer == "adagrad" else keras.optimizers.Adam()
    model.compile(TableOptimizers.of(embeddings), dense, BATCH)

    def steps(batches: Batches) -> Steps:
        rest = {"item": {}, "label": batches.labels, "weight": tf.ones_like(batches.labels)}
        data = tf.data.Dataset.from_tensor_slices({"query": _columns(batches), **rest})
        model.build_from(next(iter(data)))
        return _loop(model, data)

    return steps


def keras_layers(optimizer: str, rows: int) -> Callable[[Batches], Steps]:
    """A `keras.layers.Embedding` for each field, and one Keras optimizer for everything."""
    inputs = {name: keras.Input((), dtype="int32", name=name) for name in NAMES}
    x = keras.layers.Concatenate()([keras.layers.Embedding(rows // FIELDS, DIM)(ids) for ids in inputs.values()])
    for width in HIDDEN:
        x = keras.layers.Dense(width, "relu")(x)
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    model.compile(optimizer, keras.losses.BinaryCrossentropy(from_logits=True))

    def steps(batches: Batches) -> Steps:
        return _loop(model, tf.data.Dataset.from_tensor_slices((_columns(batches), batches.labels)))

    return steps


def _columns(batches: Batches) -> dict[str, Any]:
    return {name: batches.ids[:, :, number] for number, name in enumerate(NAMES)}


def _loop(model: keras.Model, data: tf.data.Dataset) -> Steps:
    """As the engine trains: several steps in one graph call."""
    iterator = iter(data.repeat())

    @tf.function
    def run(iterator: Iterator, count: tf.Tensor) -> None:
        for _ in tf.range(count):
            model.train_step(next(iterator))

    return lambda count: run(iterator, tf.constant(count))


def main() -> None:
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # a graph for each size is meant
    tf.config.threading.set_intra_op_parallelism_threads(CORES)
    tf.config.threading.set_inter_op_parallelism_threads(CORES)
    make = {"recsys": engine, "keras": keras_layers}[sys.argv[1]]
    versions = {name: version(name) for name in ("recsys", "tensorflow", "tf-keras")}
    serve(lambda rows: make(sys.argv[2], rows), versions)


if __name__ == "__main__":
    main()
