"""The contender of `ranker_throughput.py` that is recsys: its Ranker, trained as the training loop trains it. And the
bare matrix products of the same models, forward and backward.

    python -m peers.criteo_engine ranker|products [xla] [mixed_bfloat16]

Started by `ranker_throughput.py`, in its folder.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection, Iterator
from functools import partial
from importlib.metadata import version
from itertools import pairwise

from peers.criteo import (
    BATCH,
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

from recsys._compat import tf
from recsys.data.dataset import CategoricalInfo, FeatureInfo, NumericInfo, SequenceInfo
from recsys.embeddings.config import EmbeddingsConfig, FeatureConfig, FullTable
from recsys.embeddings.optimizers import TableOptimizers
from recsys.embeddings.optimizers.config import LazyAdamConfig
from recsys.interactions.config import AutoIntConfig, CrossConfig, DINConfig, FMConfig
from recsys.models.config import MLPConfig, RankerConfig
from recsys.models.precision import made_for
from recsys.models.ranker import Ranker
from recsys.training.config import AdamConfig
from recsys.training.optimizers import make_dense_optimizer

CONFIGS: dict[Model, RankerConfig] = {
    "fm": RankerConfig(kind="ranker", interaction=FMConfig(kind="fm"), mlp=MLPConfig()),
    "mlp": RankerConfig(kind="ranker", mlp=MLPConfig(hidden=HIDDEN)),
    "dcn_v2": RankerConfig(
        kind="ranker",
        interaction=CrossConfig(kind="cross", layers=CROSSES),
        structure="parallel",
        mlp=MLPConfig(hidden=HIDDEN),
    ),
    "din": RankerConfig(
        kind="ranker", sequence=DINConfig(kind="din", hidden=UNIT, softmax=False), mlp=MLPConfig(hidden=HIDDEN)
    ),
    "autoint": RankerConfig(
        kind="ranker",
        interaction=AutoIntConfig(kind="autoint", layers=LAYERS, heads=HEADS, head_dim=HEAD_DIM),
        mlp=MLPConfig(),
    ),
}


def train(options: Collection[str], model: Model, batches: Batches) -> Run:
    """A fresh Ranker's training steps: one table for all fields, lazy Adam."""
    categories = [f"C{number}" for number in range(FIELDS)]
    numbers = [f"I{number}" for number in range(NUMBERS)] if model != "dcn_v2" else []
    features: dict[str, FeatureInfo] = {
        name: CategoricalInfo(role="context", rows=rows, oov_rows=1)
        for name, rows in zip(categories, batches.rows, strict=True)
    }
    features[f"C{ITEM}"] = CategoricalInfo(role="item", rows=batches.rows[ITEM], oov_rows=1)
    features |= {name: NumericInfo(role="context", transform="standardize", mean=0.0, std=1.0) for name in numbers}
    read = {name: FeatureConfig(table="all") for name in categories}
    if model in ("fm", "autoint"):
        read |= {name: FeatureConfig(projection=DIM) for name in numbers}  # elsewhere numbers only stand beside fields
    columns = {name: batches.ids[..., number] for number, name in enumerate(categories)}
    columns |= {name: batches.numbers[..., number] for number, name in enumerate(numbers)}
    if model == "din":
        features["history"] = SequenceInfo(of=f"C{ITEM}", max_length=HISTORY, age=False)
        read["history"] = FeatureConfig(table="all", pooling="none")
        columns["history"] = batches.history
    embeddings = EmbeddingsConfig(
        tables={"all": FullTable(dim=DIM)}, features=read, optimizer=LazyAdamConfig(kind="lazy_adam")
    )
    query = {name: column for name, column in columns.items() if name != f"C{ITEM}"}
    own = {"label": batches.labels, "weight": tf.ones_like(batches.labels)}
    data = tf.data.Dataset.from_tensor_slices({"query": query, "item": {f"C{ITEM}": columns[f"C{ITEM}"]}, **own})
    with made_for("mixed_bfloat16" if "mixed_bfloat16" in options else "float32"):
        ranker = Ranker(CONFIGS[model], embeddings, features)
        dense = make_dense_optimizer(AdamConfig())
        ranker.compile(TableOptimizers.of(embeddings), dense, BATCH, xla="xla" in options)
        ranker.build_from(next(iter(data)))
    iterator = iter(data.repeat())

    @tf.function
    def several(iterator: Iterator, steps: tf.Tensor) -> None:
        for _ in tf.range(steps):
            ranker.train_step(next(iterator))

    def run(steps: int) -> float:
        ranker.loss_metric.reset_state()
        several(iterator, tf.constant(steps))
        return float(ranker.loss_metric.result())

    return run


Shape = tuple[int, ...]
"""(m, k, n) of a product [m, k] x [k, n]; (b, m, k, n) of b of them."""


def shapes(model: Model) -> list[Shape]:
    """The forward products of a model, as its paper has them."""
    fields = FIELDS + NUMBERS
    width = FIELDS * DIM if model == "dcn_v2" else FIELDS * DIM + NUMBERS

    def dense(rows: int, *widths: int) -> list[Shape]:
        return [(rows, *pair) for pair in pairwise(widths)]

    match model:
        case "fm":
            return []
        case "mlp":
            return dense(BATCH, width, *HIDDEN, 1)
        case "dcn_v2":
            return dense(BATCH, *[width] * (CROSSES + 1)) + dense(BATCH, width, *HIDDEN, 1)
        case "din":
            unit = dense(BATCH * HISTORY, 4 * DIM, *UNIT, 1)
            return [*unit, (BATCH, 1, HISTORY, DIM), *dense(BATCH, width + DIM, *HIDDEN, 1)]
        case "autoint":
            found = list[Shape]()
            for before in (DIM, *[HEADS * HEAD_DIM] * (LAYERS - 1)):
                found += 4 * [(BATCH * fields, before, HEADS * HEAD_DIM)]
                found += [(BATCH * HEADS, fields, HEAD_DIM, fields), (BATCH * HEADS, fields, fields, HEAD_DIM)]
            return [*found, (BATCH, fields * HEADS * HEAD_DIM, 1)]


def multiply(model: Model, batches: Batches) -> Run:
    """The products alone: each forward, and both of its gradients."""
    made = [(_normal(*shape[:-1]), _normal(*shape[:-3], *shape[-2:])) for shape in shapes(model)]

    @tf.function
    def several(steps: tf.Tensor) -> tf.Tensor:
        total = 0.0
        for _ in tf.range(steps):
            for left, right in made:
                product = left @ right
                for each in (tf.matmul(product, right, transpose_b=True), tf.matmul(left, product, transpose_a=True)):
                    total += tf.reshape(each, [-1])[0]
        return total

    def run(steps: int) -> float:
        several(tf.constant(steps))
        return 0.0

    return run


def _normal(*shape: int) -> tf.Variable:
    return tf.Variable(tf.random.normal(shape))


def main() -> None:
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # a graph for each model is meant
    tf.config.threading.set_intra_op_parallelism_threads(CORES)
    tf.config.threading.set_inter_op_parallelism_threads(CORES)
    what, options = sys.argv[1], sys.argv[2:]
    make = partial(train, options) if what == "ranker" else multiply
    serve(make, {name: version(name) for name in ("recsys", "tensorflow", "tf-keras")})


if __name__ == "__main__":
    main()
