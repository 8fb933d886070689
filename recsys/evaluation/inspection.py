"""What has become of a trained model's tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.dataset import MISSING, CategoricalInfo, FeatureInfo, FingerprintInfo, NumericInfo
from recsys.data.prepared import Prepared
from recsys.embeddings.addressing import vocabulary_of, vocabulary_rows
from recsys.embeddings.collection import EmbeddingCollection
from recsys.embeddings.health import Ids, TableHealth, norms, table_health
from recsys.models.base import EmbeddingModel


@dataclass(frozen=True)
class Norms:
    """How long the vectors of a feature's ids are, and how often training met those ids."""

    feature: str
    table: str
    counts: NDArray[np.int64]
    """[n] training rows that hold the id."""
    norms: NDArray[np.float32]
    """[n] Euclidean length of its vector."""


@dataclass(frozen=True)
class Inspection:
    """All tables of a model, and the vectors of all features that have been counted."""

    tables: tuple[TableHealth, ...]
    norms: tuple[Norms, ...]


def inspect_model(
    model: EmbeddingModel, prepared: Prepared, disk_bytes: Mapping[str, int], initial: EmbeddingCollection | None
) -> Inspection:
    """Measures a trained model's tables.

    Args:
        model: trained, with its optimizers.
        prepared: the data it was trained on.
        disk_bytes: what each table takes on disk.
        initial: its tables as they were before training; None where that cannot be told.
    """
    embeddings, ids = model.embeddings, _ids(model.embeddings, prepared)
    tables = []
    for name, table in embeddings.tables.items():
        optimizer = model.table_optimizers.optimizer_of(name)
        slots = [slot for trained in table.trained() for slot in optimizer.slots(trained.variable)]
        # Decay moves the rows that nobody reads, too.
        before = None if optimizer.decays else initial
        found = table_health(name, embeddings, ids, disk_bytes=disk_bytes[name], slots=slots, initial=before)
        tables.append(found)
    measured = []
    for feature, known in ids.items():
        entry = embeddings.config.features.get(feature)
        if known.counts is not None and entry is not None and entry.table is not None:
            lengths = norms(embeddings, feature, known.values)
            measured.append(Norms(feature, entry.table, known.counts, lengths))
    return Inspection(tuple(tables), tuple(measured))


def _ids(embeddings: EmbeddingCollection, prepared: Prepared) -> dict[str, Ids]:
    """Of each feature whose ids a table holds, as far as the data tell."""
    readers = [name for name, entry in embeddings.config.features.items() if entry.table is not None]
    owners = dict.fromkeys(vocabulary_of(reader, embeddings.features) for reader in readers)
    found = {owner: _ids_of(owner, embeddings.features[owner], prepared) for owner in owners}
    return {owner: ids for owner, ids in found.items() if ids is not None}


def _ids_of(name: str, info: FeatureInfo, prepared: Prepared) -> Ids | None:
    match info:
        case CategoricalInfo():
            values = np.arange(1 + info.oov_rows, info.rows)
            return Ids(values, prepared.frequencies(name)[values])
        case NumericInfo():
            return Ids(np.arange(1, vocabulary_rows(info)))
        case FingerprintInfo() if info.role != "context":
            columns = prepared.item_features if info.role == "item" else prepared.user_features
            values = np.unique(columns[name])
            return Ids(values[values != MISSING])
    return None
