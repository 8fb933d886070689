"""From a trained model to a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.bundle import Bundle, BundleWriter, Description, IndexFacts, TableFacts, fields_of
from recsys.bundle.filters import TRAIN_COUNT
from recsys.bundle.golden import Stages, write_golden
from recsys.bundle.layout import (
    COMPLEMENT_INDEX,
    COMPLEMENT_INPUTS,
    ITEM_TOWER,
    ITEMS,
    QUERIES,
    QUERY_TOWER,
    RANKER,
    USERS,
)
from recsys.bundle.manifest import AlignmentFacts, RankingFacts, described_of
from recsys.bundle.requests import Arrays
from recsys.bundle.retrieval_parts import RetrievalFacts, index_facts, write_retrieval
from recsys.bundle.users import Users
from recsys.data.dataset import SequenceInfo
from recsys.data.prepared import Prepared
from recsys.embeddings.bitmap import is_index
from recsys.embeddings.collection import EmbeddingCollection
from recsys.embeddings.served import ServedRows
from recsys.evaluation.tuned_index import Queries, held_out_queries, tuned_index
from recsys.export.alignment import align
from recsys.export.complements import Complements
from recsys.export.config import RetrievalConfig
from recsys.export.gates import refuse_collapsed
from recsys.export.signatures import Encoder, RankerModule, TowerModule
from recsys.models.ranker import Ranker
from recsys.models.two_tower import TwoTower
from recsys.retrieval.exact import ExactIndex
from recsys.retrieval.index import Vectors
from recsys.retrieval.scann_index import ScannIndex
from recsys.schema.config import MultiValued, Role, SchemaConfig

SHOWN = 20
"""Newest positives of a user that the bundle knows at least, to be shown beside recommendations."""


@dataclass(frozen=True)
class Provenance:
    """What the manifest says of the experiment that a bundle comes from."""

    name: str
    config_digest: str
    metrics: dict[str, float]
    """Of the test part."""


@dataclass(frozen=True)
class RankingStage:
    """A ranker that puts in order what a two_tower finds."""

    model: Ranker
    """Trained."""
    provenance: Provenance


def export_two_tower(
    model: TwoTower,
    prepared: Prepared,
    config: RetrievalConfig,
    bundles: Path,
    provenance: Provenance,
    complements: Complements | None = None,
    align_to: Bundle | None = None,
    ranker: RankingStage | None = None,
) -> Path:
    """Writes the next bundle under `bundles`; returns its folder.

    Args:
        model: trained.
        prepared: the data it was trained on.
        config: the index and its promise.
        bundles: the run's `bundle/`.
        provenance: of the manifest.
        complements: what goes with items, if that is asked for.
        align_to: the bundle to whose vectors the new ones are turned.
        ranker: a second stage, trained on the same prepared data.

    Raises:
        ExportError: a table cannot be stored as it is to be served; the item vectors have collapsed; the index does not
            keep the recall that the YAML promises, or does not fit the catalogue; there is nothing to align to in the
            other bundle.
        DataError: a vector is not finite.
    """
    served = model.embeddings.serve()
    vectors = model.item_vectors(prepared.item_features, served)
    refuse_collapsed(vectors, config.min_rank)
    queries = held_out_queries(model, prepared, served)
    alignment = None if align_to is None else align(vectors, queries, prepared, align_to)
    rotation = None if alignment is None else alignment.rotation
    if rotation is not None:
        vectors, queries = vectors @ rotation, replace(queries, vectors=queries.vectors @ rotation)
    index = tuned_index(vectors, config.index, queries, prepared.info.name)
    with BundleWriter(bundles) as writer:
        tower = TowerModule(model.query_tower, _encoder(prepared, "user", "context"), served, rotation)
        tower.save(writer.graph(QUERY_TOWER))
        item_tower = TowerModule(model.item_tower, _encoder(prepared, "item"), served, rotation)
        item_tower.save(writer.graph(ITEM_TOWER))
        facts = write_retrieval(writer, index, prepared.items["item"], config.retriever_k)
        pq.write_table(query_table(prepared, queries), writer.path(QUERIES))
        beside = None
        if complements is not None:
            np.save(writer.path(COMPLEMENT_INPUTS), complements.inputs, allow_pickle=False)
            complements.index.save(writer.path(COMPLEMENT_INDEX))
            beside = index_facts(complements.index, config.retriever_k)
        _finish(
            writer,
            prepared,
            provenance,
            tables=table_facts(model.embeddings, served),
            embedding_dim=vectors.shape[1],
            retriever=_WrittenRetriever(tower, index, facts),
            complements=beside,
            alignment=None if alignment is None else alignment.facts,
            ranker=None if ranker is None else _write_ranker(writer, prepared, ranker),
        )
    return writer.folder


def export_ranker(model: Ranker, prepared: Prepared, bundles: Path, provenance: Provenance) -> Path:
    """Writes the next bundle under `bundles`; returns its folder.

    Args:
        model: trained.
        prepared: the data it was trained on.
        bundles: the run's `bundle/`.
        provenance: of the manifest.

    Raises:
        ExportError: a table cannot be stored as it is to be served.
    """
    with BundleWriter(bundles) as writer:
        _finish(writer, prepared, provenance, ranker=_write_ranker(writer, prepared, RankingStage(model, provenance)))
    return writer.folder


@dataclass(frozen=True)
class _WrittenRetriever:
    """What was written of the first stage, and what answers golden requests as it should."""

    tower: TowerModule
    index: ExactIndex | ScannIndex
    facts: RetrievalFacts

    def embed(self, arrays: Arrays) -> Vectors:
        """[B, d] the trained query tower's vectors."""
        return np.asarray(self.tower.embed(_tensors(arrays)))


@dataclass(frozen=True)
class _WrittenRanker:
    """Likewise of the second."""

    module: RankerModule
    facts: RankingFacts

    def rank(self, arrays: Arrays) -> NDArray[np.float32]:
        """[B] the trained ranker's scores."""
        return np.asarray(self.module.scores(_tensors(arrays))["score"])


def _tensors(arrays: Arrays) -> dict[str, tf.Tensor]:
    return {name: tf.constant(a, tf.string if a.dtype == object else tf.float32) for name, a in arrays.items()}


def _write_ranker(writer: BundleWriter, prepared: Prepared, stage: RankingStage) -> _WrittenRanker:
    model, schema = stage.model, prepared.info.table_schema
    served = model.embeddings.serve()
    module = RankerModule(model, _encoder(prepared, "user", "context", "item"), served)
    module.save(writer.graph(RANKER))
    facts = RankingFacts(
        name=stage.provenance.name,
        request=fields_of(schema, "user", "context"),
        item=fields_of(schema, "item"),
        heads=tuple(model.config.further_heads),
        metrics=stage.provenance.metrics,
        tables=table_facts(model.embeddings, served),
        config_digest=stage.provenance.config_digest,
    )
    return _WrittenRanker(module, facts)


def _finish(
    writer: BundleWriter,
    prepared: Prepared,
    provenance: Provenance,
    tables: tuple[TableFacts, ...] = (),
    embedding_dim: int | None = None,
    retriever: _WrittenRetriever | None = None,
    complements: IndexFacts | None = None,
    alignment: AlignmentFacts | None = None,
    ranker: _WrittenRanker | None = None,
) -> None:
    """Writes what bundles of every kind hold: items, users, golden requests and the description."""
    items, users = served_items(prepared), served_users(prepared).combine_chunks()
    pq.write_table(items, writer.path(ITEMS))
    pq.write_table(users, writer.path(USERS))
    schema, time = prepared.info.table_schema, prepared.events.time
    time = None if time is None or not len(time) else time  # a log without users or items has no history to be timed
    unit = schema.timestamp_unit if time is not None else None
    stages = Stages(
        users=Users(users, USERS),
        items=items,
        request=fields_of(schema, "user", "context"),
        unit=unit,
        embed=None if retriever is None else retriever.embed,
        index=None if retriever is None else retriever.index,
        ranking=None if ranker is None else ranker.facts,
        rank=None if ranker is None else ranker.rank,
    )
    write_golden(writer, stages)
    retrieval = None if retriever is None else retriever.facts
    writer.describe(
        Description(
            name=provenance.name,
            kind="ranker" if retrieval is None else "two_tower",
            request=fields_of(schema, "user", "context"),
            item=fields_of(schema, "item"),
            embedding_dim=embedding_dim,
            catalogue_size=len(prepared.items),
            metrics=provenance.metrics,
            index=None if retrieval is None else retrieval.index,
            catalogue=None if retrieval is None else retrieval.catalogue,
            retriever_k=100 if retrieval is None else retrieval.retriever_k,
            described=described_of(schema),
            item_columns=_item_columns(schema),
            item_separators={
                name: feature.separator
                for name, feature in schema.features.items()
                if isinstance(feature, MultiValued) and feature.role == "item" and feature.separator is not None
            },
            complements=complements,
            alignment=alignment,
            ranking=None if ranker is None else ranker.facts,
            tables=tables,
            config_digest=provenance.config_digest,
            data_digest=prepared.info.digest,
            timestamp_unit=unit,
            data_time=int(time.max()) if time is not None else None,
        )
    )


def _item_columns(schema: SchemaConfig) -> dict[str, str]:
    """Where the source's table of items holds what, but for features that are named as their columns."""
    columns = {name: getattr(each, "column", None) for name, each in schema.features.items() if each.role == "item"}
    columns |= {"item": schema.item, "title": schema.title}
    return {name: column for name, column in columns.items() if column is not None}


def table_facts(embeddings: EmbeddingCollection, served: Mapping[str, ServedRows]) -> tuple[TableFacts, ...]:
    """What the manifest says of each table."""
    return tuple(
        TableFacts(
            name=name,
            method=table.method,
            rows=table.store.rows,
            dim=table.store.dim,
            precision=", ".join(dict.fromkeys(v.dtype.name for v in served[name].variables if not is_index(v))),
            bytes=sum(variable.shape.num_elements() * variable.dtype.size for variable in served[name].variables),
            features=tuple(embeddings.config.readers(name)),
        )
        for name, table in embeddings.tables.items()
    )


def query_table(prepared: Prepared, queries: Queries) -> pa.Table:
    """The bundle's `queries.parquet`: by whom the index was tuned, so that it can be measured again."""
    width = queries.vectors.shape[1]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(queries.vectors.ravel()), width)
    return pa.table({"user": prepared.users["user"].take(pa.array(queries.users)), "vector": vectors})


def served_items(prepared: Prepared) -> pa.Table:
    """The bundle's `items.parquet`: what a person, a filter or a model needs of the catalogue, and what is popular."""
    described = [name for name, info in prepared.info.features.items() if info.role == "item"]
    inputs = [f"raw.{name}" for name in described]
    return prepared.items.select(_there(prepared.items, "item", "title", TRAIN_COUNT, *inputs))


def served_users(prepared: Prepared) -> pa.Table:
    """The bundle's `users.parquet`: raw user features of a request, the newest positive events in time order, all items
    seen.
    """
    table, events, start = prepared.users, prepared.events, prepared.event_start
    inputs = [f"raw.{name}" for name in prepared.names("user")]
    columns = {name: table[name] for name in _there(table, "user", *inputs)}
    sequences = [f.max_length for f in prepared.info.features.values() if isinstance(f, SequenceInfo)]
    longest = max([SHOWN, *sequences])
    user = np.repeat(np.arange(len(start) - 1), np.diff(start))
    # After a random split the training events come first; a served history is in time order.
    order = np.lexsort((events.time, user)) if events.time is not None else np.arange(len(user))
    newest = order[np.arange(len(user)) >= start[1:][user] - longest]
    lengths = np.minimum(np.diff(start), longest)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    columns["history"] = pa.LargeListArray.from_arrays(offsets, pa.array(events.item_index[newest], pa.int32()))
    if events.time is not None:
        columns["history_time"] = pa.LargeListArray.from_arrays(offsets, pa.array(events.time[newest], pa.int64()))
    seen = pa.array(events.item_index, pa.int32())
    columns["seen"] = pa.LargeListArray.from_arrays(start, seen)
    return pa.table(columns)


def _there(table: pa.Table, *names: str) -> list[str]:
    """Those columns of the table, in its order: histories have no raw column, nor has every schema a title."""
    return [name for name in table.column_names if name in names]


def _encoder(prepared: Prepared, *roles: Role) -> Encoder:
    return Encoder(prepared.path, prepared.info.features, prepared.names(*roles))
