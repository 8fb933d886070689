"""DeepCTR's models, trained by Keras' Adam over all rows.

    python -m peers.deepctr.in_keras

Started by `ranker_throughput.py`, in its folder and in the environment of `requirements.txt`. It gets what helps it: no
regularisers, which are on by default and would make each table's gradient dense, and no linear part. Its attention and
factorization machine read categories alone: there the 13 numbers come in 100 buckets each. All models are its own;
DIN's Dice knows no padding.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import numpy as np
import tensorflow as tf
from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat
from deepctr.models import DCN, DIN, FNN, AutoInt, DeepFM
from numpy.typing import NDArray
from peers.criteo import (
    CORES,
    CROSSES,
    DIM,
    FIELDS,
    HEAD_DIM,
    HEADS,
    HIDDEN,
    HISTORY,
    ITEM,
    LAYERS,
    NUMBERS,
    UNIT,
    Batches,
    Model,
    Run,
    serve,
)

BUCKETS = 100
FREE = {"l2_reg_embedding": 0.0}
FREE_LINEAR = {**FREE, "l2_reg_linear": 0.0}


def make_run(model: Model, batches: Batches) -> Run:
    """A fresh model's training steps, several in one graph call."""
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(0)
    fields = [SparseFeat(f"C{number}", rows, DIM) for number, rows in enumerate(batches.rows)]
    numbers = {f"I{number}": batches.numbers[..., number] for number in range(NUMBERS if model != "dcn_v2" else 0)}
    if model in ("fm", "autoint"):
        fields += [SparseFeat(name, BUCKETS, DIM) for name in numbers]
        numbers = {name: _buckets(column) for name, column in numbers.items()}
    else:
        fields += [DenseFeat(name) for name in numbers]
    made = _model(model, fields)
    made.compile("adam", "binary_crossentropy")
    columns = {f"C{number}": batches.ids[..., number] for number in range(FIELDS)} | numbers
    if model == "din":
        columns[f"hist_C{ITEM}"] = batches.history
    data = iter(tf.data.Dataset.from_tensor_slices((columns, batches.labels)).repeat())
    loss = tf.Variable(0.0)

    @tf.function
    def several(data: Iterator, steps: tf.Tensor) -> None:
        for _ in tf.range(steps):
            loss.assign(made.train_step(tf.nest.map_structure(_of_any_size, next(data)))["loss"])

    def run(steps: int) -> float:
        made.reset_metrics()
        several(data, tf.constant(steps))
        return float(loss)

    return run


def _of_any_size(columns: tf.Tensor) -> tf.Tensor:
    """Without linear features DeepCTR adds [1, 1] to [B, 1], for which Keras asks for a B that is not known."""
    return tf.raw_ops.PlaceholderWithDefault(input=columns, shape=(None, *columns.shape[1:]))


def _buckets(numbers: NDArray[np.float32]) -> NDArray[np.int32]:
    return np.clip((numbers + 3.0) * (BUCKETS / 6), 0, BUCKETS - 1).astype(np.int32)


def _model(model: Model, fields: list[Any]) -> tf.keras.Model:
    hidden = {"dnn_hidden_units": HIDDEN}
    match model:
        case "fm":
            return DeepFM([], fields, dnn_hidden_units=(), **FREE_LINEAR)
        case "mlp":
            return FNN([], fields, **hidden, **FREE_LINEAR)
        case "dcn_v2":
            return DCN([], fields, CROSSES, "matrix", **hidden, l2_reg_cross=0.0, **FREE_LINEAR)
        case "autoint":
            return AutoInt([], fields, LAYERS, HEAD_DIM, HEADS, dnn_hidden_units=(), **FREE_LINEAR)
        case "din":
            item = fields[ITEM]._replace(name=f"hist_C{ITEM}", embedding_name=f"C{ITEM}")
            return DIN([*fields, VarLenSparseFeat(item, HISTORY)], [f"C{ITEM}"], att_hidden_size=UNIT, **hidden, **FREE)


def main() -> None:
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    tf.config.threading.set_intra_op_parallelism_threads(CORES)
    tf.config.threading.set_inter_op_parallelism_threads(CORES)
    serve(make_run, {name: version(name) for name in ("deepctr", "tensorflow", "tf-keras")})


if __name__ == "__main__":
    main()
