"""What has become of a trained model's tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.bundle import Bundle, TableFacts
from recsys.bundle.layout import ITEM_TOWER, QUERY_TOWER, RANKER, RETRIEVER
from recsys.data.dataset import MISSING, CategoricalInfo, FeatureInfo, FingerprintInfo, NumericInfo
from recsys.data.prepared import Prepared
from recsys.embeddings.addressing import vocabulary_of, vocabulary_rows
from recsys.embeddings.collection import EmbeddingCollection
from recsys.embeddings.health import (
    Ids,
    blocks,
    norms,
    numbers,
    stored_bytes,
    table_health,
)
from recsys.embeddings.health_record import TableHealth
from recsys.embeddings.packing import SERVED_SCALE_BYTES
from recsys.errors import BundleError
from recsys.metrics import effective_rank
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


def inspect_bundle(bundle: Bundle) -> tuple[TableHealth, ...]:
    """Measures a bundle's tables, as they are served; it knows neither frequencies nor optimizers.

    Raises:
        BundleError: it does not tell of its tables.
    """
    manifest, found = bundle.manifest, list[TableHealth]()
    if manifest.kind == "two_tower":
        found += _served_tables(bundle, manifest.tables, (QUERY_TOWER, ITEM_TOWER, RETRIEVER))
    if manifest.ranking is not None:
        tables = _served_tables(bundle, manifest.ranking.tables, (RANKER,))
        both = bool(found)  # two stages may have tables of one name
        found += [replace(each, name=f"{RANKER} {each.name}") if both else each for each in tables]
    return tuple(found)


def _served_tables(bundle: Bundle, facts: Sequence[TableFacts], stage: tuple[str, ...]) -> tuple[TableHealth, ...]:
    """Of one stage's SavedModels; a retriever comes last, which needs ScaNN to be loaded, and has no table that the
    query tower has not.
    """
    names = [table.name for table in facts]
    folders = [folder for name in stage if (folder := bundle.graph_folder(name)).exists()]
    sizes = [stored_bytes(folder / "variables" / "variables", "tables", names) for folder in folders]
    untold = not facts or any(not any(size[name] for size in sizes) for name in names)
    if untold:
        found = "does not tell of its tables"
        raise BundleError(str(bundle.folder), found, "a bundle of the installed recsys", "export the run again")
    holders = {name: next(f for f, size in zip(folders, sizes, strict=True) if size[name]) for name in names}
    graphs = {folder: tf.saved_model.load(str(folder)) for folder in dict.fromkeys(holders.values())}
    return tuple(
        _served_table(table, graphs[holders[table.name]], [size[table.name] for size in sizes]) for table in facts
    )


def _served_table(facts: TableFacts, graph: Any, sizes: Sequence[int]) -> TableHealth:
    lookup = graph.lookups[facts.name]
    return TableHealth(
        name=facts.name,
        method=facts.method,
        features=facts.features,
        rows=facts.rows,
        dim=facts.dim,
        precision=facts.precision,
        parameters=sum(numbers(variable, SERVED_SCALE_BYTES) for variable in graph.tables[facts.name]),
        bytes=sum(sizes),
        copies=sum(size > 0 for size in sizes),
        optimizer_bytes=None,
        untrained=None,
        effective_rank=effective_rank(blocks(lambda rows: lookup(tf.constant(rows)).numpy(), facts.rows)),
        ids_per_row=None,
        vocabularies=(),
    )


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
