"""New, changed and deleted items: into a bundle's parts, and into the next bundle."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.bundle.bundle import Bundle
from recsys.bundle.filters import DELETED
from recsys.bundle.golden import stages_of, write_golden
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
from recsys.bundle.manifest import Description
from recsys.bundle.new_items import NewItems
from recsys.bundle.retrieval_parts import write_retrieval
from recsys.bundle.writer import BundleWriter
from recsys.errors import BundleError, RequestError
from recsys.retrieval.exact import ExactIndex
from recsys.retrieval.index import Index, Vectors
from recsys.retrieval.scann_index import ScannIndex
from recsys.retrieval.upkeep import kept_up

UNCHANGED = (USERS, QUERIES, COMPLEMENT_INPUTS, COMPLEMENT_INDEX)
"""Parts of a bundle that no update of its items touches: what goes with items is told by events."""
AT_ONCE = 1_024
"""Items embedded at once."""


@dataclass(frozen=True)
class Changed:
    """Item indices of an update."""

    upserted: NDArray[np.int64]
    deleted: NDArray[np.int64]
    items: pa.Table
    """The whole `items.parquet` afterwards."""
    vectors: Vectors
    """[upserted, d]"""


def changes(bundle: Bundle, items: pa.Table, upserts: NewItems | None, deletes: Sequence[str]) -> Changed:
    """What an update does to the table `items` of a bundle (or of a server that has changed it since).

    Raises:
        BundleError: the bundle is of a ranker.
        RequestError: a value does not fit its feature, or an item to be deleted is not there.
    """
    rows = bundle.rows_of(items)
    deleted = list[int]()
    for at, name in enumerate(deletes):
        row = rows.find(name)
        if row is None:
            raise RequestError(f"delete[{at}]", f"no item {name!r}", "an item of the catalogue", "leave it out")
        deleted.append(row)
    if upserts is None or not len(upserts.ids):
        none = np.empty((0, bundle.index.dim), np.float32)
        gone = np.array(deleted, np.int64)
        return Changed(np.empty(0, np.int64), gone, _marked(items, np.empty(0, np.int64), gone), none)
    inputs = upserts.inputs(bundle.manifest.item)
    blocks = range(0, len(inputs), AT_ONCE)
    vectors = np.concatenate([bundle.embed_items(inputs[at : at + AT_ONCE]) for at in blocks])
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        found = f"the item tower's embedding of {upserts.ids[bad[0]]!r} is not finite"
        raise RequestError(f"items[{bad[0]}]", found, "numbers of a usual size", "send smaller numbers")
    known = rows.find_all(upserts.ids)
    ids = np.where(known < 0, len(items) + np.cumsum(known < 0) - 1, known)
    place = np.arange(int(max(len(items) - 1, ids.max())) + 1)
    place[ids] = len(items) + np.arange(len(ids))
    whole = pa.concat_tables([items, upserts.table(items.schema)]).take(place)
    gone = np.setdiff1d(np.array(deleted, np.int64), ids)
    return Changed(ids, gone, _marked(whole, ids, gone), vectors)


def _marked(items: pa.Table, there: NDArray[np.int64], gone: NDArray[np.int64]) -> pa.Table:
    """With the column `deleted`, if any is."""
    deleted = np.zeros(len(items), np.bool_)
    if DELETED in items.column_names:
        deleted[:] = items[DELETED].to_numpy()
        items = items.drop_columns([DELETED])
    deleted[gone], deleted[there] = True, False
    return items.append_column(DELETED, pa.array(deleted)) if deleted.any() else items


def apply(index: Index, changed: Changed) -> None:
    """Do to an index what has changed. Nothing is found while this goes on."""
    if len(changed.upserted):
        index.upsert(changed.upserted, changed.vectors)
    if len(changed.deleted):
        index.delete(changed.deleted)


def next_bundle(bundle: Bundle, upserts: NewItems | None, deletes: Sequence[str] = ()) -> Path:
    """Write a bundle with these items new, changed or deleted beside the one given; nothing is trained.

    The towers and users are copied. New items get their vectors from the item tower. An index that does not keep its
    promise with them is built and tuned anew.

    Raises:
        BundleError: the bundle cannot be updated: it is a ranker's, or knows no queries to measure its index by.
        ExportError: the index, built anew, does not keep its promise.
        RequestError: as `changes` says, or nothing would be left.
    """
    index = bundle.index
    assert isinstance(index, ExactIndex | ScannIndex)
    changed = changes(bundle, bundle.items, upserts, deletes)
    try:
        apply(index, changed)
    except ValueError as error:
        raise RequestError("delete", str(error), "a catalogue with items", "export a new bundle") from error
    index = kept_up(index, changed.upserted, queries_of(bundle))
    with BundleWriter(bundle.folder.parent) as writer:
        for graph in (QUERY_TOWER, ITEM_TOWER, *((RANKER,) if bundle.manifest.ranking else ())):
            shutil.copytree(bundle.graph_folder(graph), writer.graph(graph))
        for part in UNCHANGED:
            if (bundle.folder / part).is_dir():
                shutil.copytree(bundle.folder / part, writer.path(part))
            elif (bundle.folder / part).exists():
                shutil.copyfile(bundle.folder / part, writer.path(part))
        pq.write_table(changed.items, writer.path(ITEMS))
        write_golden(writer, replace(stages_of(bundle), items=changed.items, index=index))
        facts = write_retrieval(writer, index, changed.items["item"], bundle.manifest.retriever_k)
        known = {name: getattr(bundle.manifest, name) for name in Description.model_fields}
        moved = {"catalogue_size": len(changed.items), "index": facts.index, "catalogue": facts.catalogue}
        writer.describe(Description(**(known | moved)))
    return writer.folder


def queries_of(bundle: Bundle) -> Vectors:
    """[Q, d] the held-out queries by which the index was tuned.

    Raises:
        BundleError: they cannot be read, or are needed and not there.
    """
    path, dim = bundle.folder / QUERIES, bundle.index.dim
    if not path.exists() and isinstance(bundle.index, ExactIndex):
        return np.empty((0, dim), np.float32)
    try:
        column = pq.read_table(path, columns=["vector"])["vector"].combine_chunks()
        return column.flatten().to_numpy().reshape(len(column), dim)
    except (OSError, pa.ArrowInvalid, ValueError) as error:
        raise BundleError(
            str(path), f"cannot be read ({error})", f"vectors of {dim}", "export the run again"
        ) from error
