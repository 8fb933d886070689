"""What has become of embedding tables: sizes, collisions, what training never reached, effective rank, norms.

Everything is measured on the tables as they are, through their own addressing and lookups. Only what training never
reached is read from stored numbers, and knows how `mixed_dim` stores them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.embeddings.addressing import Hashes
from recsys.embeddings.bitmap import is_index
from recsys.embeddings.collection import EmbeddingCollection
from recsys.embeddings.health_record import FeatureHealth, TableHealth
from recsys.embeddings.mixed_dim import FrequencyBlocks
from recsys.embeddings.packing import SCALE_BYTES
from recsys.embeddings.planned import PlannedRows
from recsys.embeddings.rows import Store
from recsys.embeddings.tables import Table
from recsys.metrics import effective_rank

BLOCK = 1 << 14
"""Rows that are looked up at a time."""


@dataclass(frozen=True)
class Ids:
    """What is known of the ids of one feature."""

    values: NDArray[np.int64]
    """[n] those that stand for a value: of a vocabulary all but missing and OOV."""
    counts: NDArray[np.int64] | None = None
    """[n] training rows that hold each; None where nobody has counted."""


def blocks(vectors: Callable[[NDArray[np.int64]], NDArray[np.float32]], rows: int) -> Iterator[NDArray[np.float32]]:
    """All `rows` rows in pieces [n, d], from what gives those of row numbers [n]."""
    for start in range(0, rows, BLOCK):
        yield vectors(np.arange(start, min(start + BLOCK, rows)))


def table_health(
    name: str,
    embeddings: EmbeddingCollection,
    ids: Mapping[str, Ids],
    *,
    disk_bytes: int,
    slots: Sequence[tf.Variable],
    initial: EmbeddingCollection | None,
) -> TableHealth:
    """Measures one table of a trained model.

    Args:
        name: the table's.
        embeddings: trained.
        ids: by feature, as far as they are known.
        disk_bytes: what the table takes on disk.
        slots: what the optimizer keeps for it.
        initial: the same tables as they were before training; None where that cannot be told.
    """
    table = embeddings.tables[name]
    store, readers = table.store, embeddings.owners(name)
    known = {owner: ids[owner] for owner in readers if owner in ids}
    untrained = None if initial is None else _untrained(table, initial.tables[name], known, readers)
    # A gradient's port is no parameter, nor are a plan's bits.
    weights = [weight for weight in table.weights if weight.shape.rank and not is_index(weight)]
    return TableHealth(
        name=name,
        method=table.method,
        features=tuple(embeddings.config.readers(name)),
        rows=store.rows,
        dim=store.dim,
        precision=", ".join(dict.fromkeys(weight.dtype.name for weight in weights)),
        parameters=sum(numbers(weight) for weight in weights),
        bytes=disk_bytes,
        copies=1,
        optimizer_bytes=sum(slot.shape.num_elements() * slot.dtype.size for slot in slots),
        untrained=untrained,
        effective_rank=effective_rank(blocks(lambda rows: _lookup(store, rows), store.rows)),
        ids_per_row=_ids_per_row(name, embeddings, readers, ids),
        vocabularies=tuple(
            FeatureHealth(owner, len(found.values), _colliding(table.rows_of(readers[owner], found.values)))
            for owner, found in known.items()
        ),
    )


def norms(embeddings: EmbeddingCollection, feature: str, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """[n] Euclidean lengths of the vectors of a feature's ids [n], all chunks together."""
    entry = embeddings.config.features[feature]
    assert entry.table is not None
    table = embeddings.tables[entry.table]
    found = []
    for start in range(0, len(ids), BLOCK):
        rows = table.rows_of(feature, ids[start : start + BLOCK])
        vectors = _lookup(table.store, rows.ravel()).reshape(len(rows), -1)
        found.append(np.linalg.norm(vectors, axis=1).astype(np.float32))
    return np.concatenate(found) if found else np.empty(0, np.float32)


def stored_bytes(checkpoint: Path, prefix: str, tables: Iterable[str]) -> dict[str, int]:
    """What each table's variables take in a TensorFlow checkpoint, which compresses nothing; 0 for one that it lacks.

    Args:
        checkpoint: a checkpoint, or a folder of them.
        prefix: of the tables' keys there.
        tables: their names.
    """
    reader = tf.train.load_checkpoint(str(checkpoint))
    types = reader.get_variable_to_dtype_map()
    sizes = {key: math.prod(shape) * types[key].size for key, shape in reader.get_variable_to_shape_map().items()}
    found = {}
    for table in tables:
        name = table.replace(".", "..").replace("/", ".S")  # as TensorFlow escapes names in keys
        found[table] = sum(size for key, size in sizes.items() if key.startswith(f"{prefix}/{name}/"))
    return found


def numbers(weight: tf.Variable, scale_bytes: int = SCALE_BYTES) -> int:
    """How many numbers a variable holds; of int8 rows, the codes and the scale in their last bytes; of bits, none."""
    if is_index(weight):
        return 0
    packed = weight.shape[0] * (scale_bytes - 1) if weight.dtype == tf.int8 else 0
    return int(weight.shape.num_elements()) - packed


def _lookup(store: Store, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    return store.lookup(tf.constant(rows)).numpy()


def _colliding(rows: NDArray[np.int64]) -> float:
    """Share of ids, by their rows [n, C], that have all rows in common with another one."""
    return float(pd.DataFrame(rows).duplicated(keep=False).mean()) if len(rows) else 0.0


def _ids_per_row(
    name: str, embeddings: EmbeddingCollection, readers: Mapping[str, str], ids: Mapping[str, Ids]
) -> float | None:
    """None where a feature's ids are not known."""
    if not readers.keys() <= ids.keys():
        return None
    table, pairs = embeddings.tables[name], 0
    is_read = np.zeros(table.store.rows, bool)
    for owner, reader in readers.items():
        rows = np.sort(table.rows_of(reader, ids[owner].values), axis=1)
        pairs += len(rows) + int((np.diff(rows, axis=1) > 0).sum())
        is_read[rows.ravel()] = True
    return pairs / max(int(is_read.sum()), 1)


def _untrained(table: Table, initial: Table, known: Mapping[str, Ids], readers: Mapping[str, str]) -> float:
    """Share of the rows of the known ids (where ids share rows: of all rows) that are as they were."""
    same = _unchanged(table.store, initial.store)
    if isinstance(table.addressing, Hashes):
        return float(same.mean())
    rows = [table.rows_of(readers[owner], found.values)[:, 0] for owner, found in known.items()]
    return float(same[np.concatenate(rows)].mean()) if rows else float(same.mean())


def _unchanged(store: Store, initial: Store) -> NDArray[np.bool_]:
    """[V] the rows whose stored numbers are the same in both."""
    if isinstance(store, PlannedRows):
        starts = range(0, store.rows, BLOCK)
        parts = [np.arange(start, min(start + BLOCK, store.rows)) for start in starts]
        return np.concatenate([(_lookup(store, rows) == _lookup(initial, rows)).all(1) for rows in parts])
    pairs = zip(store.trained(), initial.trained(), strict=True)
    same = [(_numpy(now.variable) == _numpy(then.variable)).all(1) for now, then in pairs]
    if not same:
        return np.ones(store.rows, bool)  # frozen
    if not isinstance(store, FrequencyBlocks):
        return np.concatenate(same)
    of_width = dict(zip(sorted({block.width for block in store.blocks}, reverse=True), same, strict=True))
    parts = []
    for block in store.blocks:
        parts.append(of_width[block.width][: block.rows])
        of_width[block.width] = of_width[block.width][block.rows :]
    return np.concatenate(parts)


def _numpy(variable: tf.Variable) -> NDArray:
    return tf.convert_to_tensor(variable).numpy()
