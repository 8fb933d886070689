"""A bundle, loaded: verified first, then opened part by part as it is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.bundle.columns import arrays_of, known_queries, stacked
from recsys.bundle.filters import DELETED, TRAIN_COUNT, ItemFilters
from recsys.bundle.layout import (
    COMPLEMENT_INDEX,
    COMPLEMENTS,
    INDEX,
    ITEM_TOWER,
    ITEMS,
    MANIFEST,
    QUERY_TOWER,
    RANKER,
    USERS,
    graph_folder,
)
from recsys.bundle.manifest import (
    QUERY_OF,
    RANK,
    RANK_MANY,
    Kind,
    Manifest,
    RankingFacts,
    RawField,
    SequenceField,
    age_inputs,
    further_score,
)
from recsys.bundle.requests import Arrays, Request, RequestEncoder
from recsys.bundle.tower import ServedGraph
from recsys.bundle.users import RAW, Texts, Users
from recsys.bundle.verify import check_files, check_versions, find, read_manifest
from recsys.errors import BundleError
from recsys.retrieval.exact import ExactIndex
from recsys.retrieval.folder import load_vectors
from recsys.retrieval.index import Index
from recsys.retrieval.scann_index import ScannIndex


class Bundle:
    """What is served. `Bundle.load(path)` makes one; its parts are opened on first use."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def load(cls, path: Path | str, *, verify: bool = True) -> Self:
        """Verify a bundle and hand it out. Nothing in it is opened before all of it is found as the manifest says.

        Args:
            path: a bundle (`bundle/3`), a folder of bundles (the highest number is taken) or a run directory.
            verify: False leaves out the SHA-256 digests (every file is read once for them), nothing else.

        Raises:
            BundleError: the bundle is missing, incomplete, altered, or made for other versions.
        """
        folder = find(path)
        manifest = read_manifest(folder)
        check_files(folder, manifest, digests=verify)
        check_versions(folder, manifest)
        return cls(folder, manifest)

    def graph_folder(self, graph: str) -> Path:
        """Where the SavedModel of `layout.GRAPHS` stands, if the bundle has it."""
        return self.folder / graph_folder(graph, self.manifest.version)

    @cached_property
    def items(self) -> pa.Table:
        """Row n is item index n: `item`, `title` (if there are titles), `raw.FEATURE`, `train_count`, `deleted` (if any
        is).
        """
        read = dict.fromkeys([*self.manifest.item, *(field.of for field in self._sequences)])
        table = self._table(ITEMS, ["item", *(f"{RAW}{name}" for name in read)], whole=True)
        if table.num_rows != self.manifest.catalogue_size:
            raise BundleError(
                str(self.folder / ITEMS),
                f"{table.num_rows} rows",
                f"{self.manifest.catalogue_size}, the catalogue's size",
                "export the run again",
            )
        return table

    @cached_property
    def users(self) -> Users:
        """The known users, with the raw features that the request schema names."""
        columns = ["user", "history", "seen"]
        if age_inputs(self.manifest.request):
            columns.append("history_time")
        for name, field in self.manifest.request.items():
            if field.role == "user" and not isinstance(field, SequenceField):
                columns.append(f"{RAW}{name}")
        return Users(self._table(USERS, columns, whole=False), str(self.folder / USERS))

    @cached_property
    def query_encoder(self) -> RequestEncoder:
        """Encodes user and context features."""
        return RequestEncoder(self.manifest.request)

    @cached_property
    def item_encoder(self) -> RequestEncoder:
        """Encodes item features."""
        return RequestEncoder(self.manifest.item)

    @cached_property
    def pair_encoder(self) -> RequestEncoder:
        """Encodes user, context and item features together, for a ranker."""
        return RequestEncoder({**self.ranking.request, **self.ranking.item})

    @property
    def ranking(self) -> RankingFacts:
        """What the ranker takes.

        Raises:
            BundleError: the bundle has no ranker.
        """
        if self.manifest.ranking is None:
            raise BundleError(
                f"{self.folder / MANIFEST}: ranking",
                "there is no ranker in this bundle",
                "one",
                "recsys export TWO_TOWER --ranker RANKER",
            )
        return self.manifest.ranking

    @cached_property
    def query_tower(self) -> ServedGraph:
        """[B, d] embeddings of encoded queries."""
        self._must_be("two_tower")
        return ServedGraph(self.graph_folder(QUERY_TOWER), self.query_encoder.inputs, "embedding")

    @cached_property
    def item_tower(self) -> ServedGraph:
        """[B, d] embeddings of encoded items."""
        self._must_be("two_tower")
        return ServedGraph(self.graph_folder(ITEM_TOWER), self.item_encoder.inputs, "embedding")

    @cached_property
    def ranker(self) -> ServedGraph:
        """[B] scores of encoded pairs."""
        further = [further_score(head) for head in self.ranking.heads]
        return ServedGraph(self.graph_folder(RANKER), self.pair_encoder.inputs, "score", further)

    @cached_property
    def candidate_ranker(self) -> ServedGraph:
        """[K] scores of K encoded items for one encoded query."""
        return self.ranker.signature(RANK)

    @cached_property
    def index(self) -> Index:
        """The index over the catalogue's vectors; its ids are item indices."""
        self._must_be("two_tower")
        folder, manifest = self.folder / INDEX, self.manifest
        assert manifest.index is not None  # as it is a two_tower
        index: Index = ScannIndex.load(folder) if manifest.index.kind == "scann" else ExactIndex.load(folder)
        if (index.size, index.dim) != (manifest.catalogue_size, manifest.embedding_dim):
            raise BundleError(
                str(folder),
                f"{index.size} vectors of width {index.dim}",
                f"{manifest.catalogue_size} of width {manifest.embedding_dim}",
                "export the run again",
            )
        return index

    @cached_property
    def complements(self) -> Index:
        """The index over the vectors of what goes with items; its ids are item indices.

        Raises:
            BundleError: the bundle was exported without.
        """
        facts = self.manifest.complements
        if facts is None:
            cure = "add `complements: {}` to the YAML, and export the run again"
            raise BundleError(str(self.folder), "does not know what goes with items", "a second index", cure)
        folder = self.folder / COMPLEMENT_INDEX
        return ScannIndex.load(folder) if facts.kind == "scann" else ExactIndex.load(folder)

    @cached_property
    def complement_inputs(self) -> NDArray[np.float32]:
        """[N, d] the vectors with which `complements` is asked; 0 for items of which too little is known."""
        return load_vectors(self.folder / COMPLEMENTS)

    @cached_property
    def filters(self) -> ItemFilters:
        """The items that satisfy conditions on their columns."""
        return ItemFilters(self.items)

    def embed(self, requests: Sequence[Request]) -> NDArray[np.float32]:
        """[B, d] query embeddings of raw requests.

        Raises:
            RequestError: a value does not fit its feature.
        """
        return self.query_tower(self.query_encoder.encode(requests))

    def embed_items(self, items: Sequence[Request]) -> NDArray[np.float32]:
        """[B, d] item embeddings of raw item features, such as those of an item that is new.

        Raises:
            RequestError: a value does not fit its feature.
        """
        return self.item_tower(self.item_encoder.encode(items))

    def score(self, pairs: Sequence[Request]) -> NDArray[np.float32]:
        """[B] probabilities that a pair's label is 1, each pair the raw features of a request and of an item.

        Raises:
            RequestError: a value does not fit its feature.
        """
        return self.ranker(self.pair_encoder.encode(pairs))

    def scores(self, pairs: Sequence[Request]) -> dict[str, NDArray[np.float32]]:
        """[B] probabilities of each label: of `label`, as `score` gives them, and of those of `ranking.heads`.

        Raises:
            RequestError: a value does not fit its feature.
        """
        found = self.ranker.all(self.pair_encoder.encode(pairs))
        return {"label": found["score"]} | {head: found[further_score(head)] for head in self.ranking.heads}

    def explain(self, pairs: Sequence[Request]) -> dict[str, NDArray[Any]]:
        """What the ranker's layers looked at, for B pairs as `score` takes them.

        `attention` [B, layers, heads, F, F] of AutoInt or `gates` [B, heads, neurons, F] of ARM-Net, with the names of
        the F features in `fields`; `history` [B, T], what each of the newest T events of a history weighs: oldest
        first, and 0 after the newest.

        Raises:
            BundleError: no layer of the model weighs fields or events.
            RequestError: a value does not fit its feature.
        """
        found = self.ranker.explain(self.pair_encoder.encode(pairs))
        return found | {"fields": np.array([name.decode() for name in found["fields"]])}

    def rank(self, request: Request, items: Sequence[Request]) -> NDArray[np.float32]:
        """[K] as `score` gives for pairs of one request with each of K items' raw features. The request's features and
        history are sent and worked on once, however many items there are.

        Raises:
            BundleError: it was exported without this, or knows no features of users, or none of items.
            RequestError: a value does not fit its feature.
        """
        query, item = RequestEncoder(self.ranking.request), RequestEncoder(self.ranking.item)
        return self.candidate_ranker({**query.encode([request]), **item.encode(items)})

    def rank_items(self, request: Request, indices: NDArray[np.integer]) -> NDArray[np.float32]:
        """[K] as `rank`, of items of the catalogue by index [K]. A server encodes the request once and calls
        `candidate_ranker` with `candidates` itself.

        Raises:
            BundleError, RequestError: as `rank`.
        """
        query = RequestEncoder(self.ranking.request).encode([request])
        return self.candidate_ranker({**query, **self.candidates(indices)})

    def rank_many(self, queries: Sequence[Arrays], candidates: Sequence[Arrays]) -> list[NDArray[np.float32]]:
        """The scores of the candidates of several requests, worked out in one call, which costs less than one for each
        where they have few (some hundred).

        Args:
            queries: of each request, its encoded features, as those of `ranking.request`.
            candidates: of each request, its encoded items, as `candidates` gives them.

        Raises:
            BundleError: as `rank`.
        """
        counts = [len(next(iter(items.values()))) for items in candidates]
        query_of = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        scores = self._many_ranker({**stacked(queries), **stacked(candidates), QUERY_OF: query_of})
        return np.split(scores, np.cumsum(counts)[:-1])

    @cached_property
    def _many_ranker(self) -> ServedGraph:
        return self.ranker.signature(RANK_MANY)

    def candidates(self, indices: NDArray[np.integer], items: pa.Table | None = None) -> Arrays:
        """The ranker's inputs of K items by index; `items` is the table as it stands now, by default the bundle's."""
        return arrays_of(self.items if items is None else items, self.ranking.item, indices)

    def queries(self, rows: NDArray[np.integer], fields: Mapping[str, RawField]) -> Arrays:
        """Inputs of known users [B], by their rows in `users`: of `manifest.request` or `ranking.request`. Each asks
        at the time of the newest event, and without context.
        """
        return known_queries(self.users, self.items, fields, rows, self.manifest.timestamp_unit)

    def popular(self, k: int, items: pa.Table | None = None) -> NDArray[np.int64]:
        """Indices of the k items (or of all, if there are fewer) that training met most often, the most popular first;
        of items met as often, the lower index. `items` is the table as it stands now, by default the bundle's.

        Raises:
            BundleError: the bundle does not tell how often.
        """
        items = self.items if items is None else items
        if TRAIN_COUNT not in items.column_names:
            raise BundleError(f"{self.folder / ITEMS}: {TRAIN_COUNT}", "is missing", "how often training met each item")
        count = items[TRAIN_COUNT].fill_null(0).to_numpy()
        there = np.flatnonzero(~items[DELETED].to_numpy()) if DELETED in items.column_names else np.arange(len(items))
        return there[np.argsort(-count[there], kind="stable")[:k]]

    def find_item(self, item: str) -> int | None:
        """The index of an item, or None where the catalogue has none of this id."""
        return self._item_rows.find(item)

    @cached_property
    def _item_rows(self) -> Texts:
        return self.rows_of(self.items)

    def rows_of(self, items: pa.Table) -> Texts:
        """Rows of a table of items by their ids."""
        return Texts(items["item"], f"{self.folder / ITEMS}: column item")

    def _must_be(self, kind: Kind) -> None:
        if self.manifest.kind != kind:
            raise BundleError(
                f"{self.folder / MANIFEST}: kind", self.manifest.kind, kind, f"export a {kind} model for that"
            )

    @property
    def _sequences(self) -> list[SequenceField]:
        return [field for field in self.manifest.request.values() if isinstance(field, SequenceField)]

    def _table(self, name: str, needed: list[str], *, whole: bool) -> pa.Table:
        """The columns needed, or all, each contiguous in memory."""
        path = self.folder / name
        try:
            absent = [column for column in needed if column not in pq.read_schema(path).names]
            if not absent:
                return pq.read_table(path, columns=None if whole else needed).combine_chunks()
        except (OSError, pa.ArrowInvalid) as error:
            raise BundleError(str(path), f"cannot be read ({error})", "Parquet", "export the run again") from error
        raise BundleError(
            str(path), f"has no column {', '.join(absent)}", "what the request schema needs", "export the run again"
        )
