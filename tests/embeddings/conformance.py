"""What the conformance suite of table methods shares: its schema, its cases, and steps of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.embeddings.collection import EmbeddingCollection
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.optimizers import TableOptimizers
from recsys.embeddings.plan import ElementBlock
from recsys.embeddings.planned import PlannedRows
from recsys.schema.config import SchemaConfig
from tests.embeddings.methods import (
    CASES,
    Batch,
    Case,
    outputs,
)

Arrays = dict[str, NDArray[Any]]


def only(suits: Callable[[Case], bool]) -> pytest.MarkDecorator:
    """For the cases that suit."""
    found = {name: case for name, case in CASES.items() if suits(case)}
    return pytest.mark.parametrize("case", found.values(), ids=list(found))


EVERY = only(lambda case: True)
OPTIMIZERS = {
    "lazy_adam": {"kind": "lazy_adam", "learning_rate": 0.05},
    "rowwise_adagrad": {"kind": "rowwise_adagrad", "learning_rate": 0.1},
    "adagrad": {"kind": "adagrad", "learning_rate": 0.1},
}
SCHEMA = SchemaConfig.model_validate(
    {
        "user": "u",
        "item": "i",
        "timestamp": "t",
        "features": {
            "recent": {"kind": "sequence", "of": "movie", "max_length": 4},
            "history": {"kind": "sequence", "of": "movie", "max_length": 4, "age": True},
            "user": {"kind": "categorical", "role": "context"},
            "movie": {"kind": "categorical", "role": "item"},
            "genres": {"kind": "multi_valued", "role": "item", "max_length": 3},
            "price": {"kind": "numeric", "role": "item", "transform": "bucketize"},
        },
    }
)


def optimizers(config: EmbeddingsConfig, kind: str = "lazy_adam") -> TableOptimizers:
    raw = config.model_dump(exclude_none=True) | {"optimizer": OPTIMIZERS[kind]}
    config = EmbeddingsConfig.model_validate(raw)
    return TableOptimizers({table: config.optimizer_of(table) for table in config.tables})


def loss_of(found: Mapping[str, tf.Tensor], seed: int = 0) -> tf.Tensor:
    """A sum of all outputs with random coefficients, in float32."""
    total = tf.zeros([])
    for number, (_, value) in enumerate(sorted(found.items())):
        # Coefficients by column, not by row, so that batches of different shapes can be compared.
        rng = np.random.default_rng([seed, number])
        coefficients = rng.uniform(0.5, 1.5, (64, 128)) * rng.choice([-1, 1], (64, 128))
        rows, columns = (value.shape[0], value.shape[-1])
        by_row = coefficients[:rows, :columns].astype(np.float32)
        total += tf.reduce_sum(tf.cast(value, tf.float32) * (by_row if value.shape.rank == 2 else by_row[:, None]))
    return total


def gradients(collection: EmbeddingCollection, values: Batch, seed: int = 0) -> tuple[tf.Tensor, list[Any]]:
    with tf.GradientTape() as tape:
        loss = loss_of(outputs(collection, values), seed)
    return loss, tape.gradient(loss, [trained.source for trained in collection.trained()])


def step(collection: EmbeddingCollection, by: TableOptimizers, values: Batch, seed: int = 0) -> None:
    by.apply(gradients(collection, values, seed)[1], collection.trained())


def stored(collection: EmbeddingCollection, table: str = "t") -> list[NDArray[Any]]:
    """The rows as they are stored, of each variable."""
    return [trained.variable.numpy() for trained in collection.tables[table].trained()]


def changed(before: Sequence[NDArray[Any]], after: Sequence[NDArray[Any]]) -> list[set[int]]:
    """Rows of each variable that have other bits."""
    return [
        set(np.flatnonzero((one.view(np.uint8) != other.view(np.uint8)).reshape(len(one), -1).any(1)).tolist())
        for one, other in zip(before, after, strict=True)
    ]


def reached(collection: EmbeddingCollection, rows: set[int]) -> int:
    """How many rows of its variables the table's rows are made of: of a plan's, the kept and the shared ones."""
    store = collection.tables["t"].store
    if not isinstance(store, PlannedRows):
        return len(rows)
    total, start = 0, 0
    for block in store.layout.blocks:
        own = sorted(row - start for row in rows if start <= row < start + block.ids)
        start += block.ids
        kept = block.mask(8)[own]
        if isinstance(block, ElementBlock):
            total += int(kept.sum())
        else:
            total += int(kept.any(1).sum()) + int(block.shares and not kept.any(1).all())
    return total


def alone(collection: EmbeddingCollection, row: int) -> bool:
    """Whether no other row of the table is made of what this one is made of: a plan's pruned ids share a row."""
    store = collection.tables["t"].store
    if not isinstance(store, PlannedRows):
        return True
    return bool(np.concatenate([block.mask(8) for block in store.layout.blocks])[row].any())


def decoded(collection: EmbeddingCollection) -> NDArray[np.float32]:
    """[V, d] what each row of the table gives."""
    store = collection.tables["t"].store
    return store.lookup(tf.range(store.rows)).numpy()


# Nothing is left out.
