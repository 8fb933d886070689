"""How many training examples read each row of a table: n in DIN's mini-batch aware decay.

The counts of a vocabulary will not do: they know neither histories, nor what two features read from one table, nor the
missing and unknown values, nor rows that ids share by a hash. So the examples are gone through once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.data.dataset import MISSING
from recsys.embeddings.collection import EmbeddingCollection
from recsys.embeddings.optimizers.config import MiniBatchAwareDecay
from recsys.embeddings.planned import PlannedRows
from recsys.embeddings.rows import Store
from recsys.embeddings.tables import Table


def training_rows(
    embeddings: EmbeddingCollection, batches: Iterable[Mapping[str, Any]]
) -> dict[str, NDArray[np.int64]]:
    """[V] for each table whose decay is mini-batch aware; nothing is read where there is none. Of a table under a plan
    [n], for each row of its variables.

    Args:
        embeddings: the tables.
        batches: every training example once, as `docs/architecture.md` describes a batch.
    """
    config = embeddings.config
    names = [name for name in config.tables if isinstance(config.optimizer_of(name).decay, MiniBatchAwareDecay)]
    tables = {name: embeddings.tables[name] for name in names}
    counts = {name: np.zeros(table.store.rows, np.int64) for name, table in tables.items()}
    if not tables:
        return counts
    for batch in batches:
        features = {name: tf.convert_to_tensor(values) for name, values in (batch["query"] | batch["item"]).items()}
        ids, _ = embeddings.ids_and_ages([name for name in embeddings.features if name in features], features)
        for name, table in tables.items():
            read = {reader: ids[reader].numpy().astype(np.int64) for reader in config.readers(name) if reader in ids}
            counts[name] += _examples_by_row(table, read)
    return {name: _of_variables(tables[name].store, found) for name, found in counts.items()}


def _of_variables(store: Store, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """From the counts of a table's rows [V] to those of what it stores."""
    return counts[store.layout.stored()] if isinstance(store, PlannedRows) else counts


def _examples_by_row(table: Table, ids: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    """[V] how many of the examples read each row at least once, from ids [B] or [B, T] of each feature.

    Padding reads nothing; a feature with one value reads a row where that is missing, too.
    """
    read = []
    for reader, values in ids.items():
        rows = table.rows_of(reader, values.reshape(-1))
        if isinstance(table.store, PlannedRows):
            rows = table.store.layout.read_as()[rows]
        if values.ndim > 1:
            rows[values.reshape(-1) == MISSING] = -1
        read.append(rows.reshape(len(values), -1))
    side_by_side = np.sort(np.concatenate(read, axis=1), axis=1)
    is_first = np.diff(side_by_side, axis=1, prepend=-1) > 0
    return np.bincount(side_by_side[is_first], minlength=table.store.rows)
