"""Golden requests: what the trained model answered when its bundle was made, and whether the bundle answers so still.

Digests tell damage. They do not tell a bundle that was put together wrongly, or a machine that computes otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from recsys.bundle.bundle import Bundle
from recsys.bundle.columns import arrays_of, known_queries, missing
from recsys.bundle.layout import GOLDEN
from recsys.bundle.manifest import (
    CategoricalField,
    MultiValuedField,
    NumericField,
    RankingFacts,
    RawField,
    SequenceField,
    VectorField,
)
from recsys.bundle.requests import Arrays, RequestEncoder, shown
from recsys.bundle.users import Users
from recsys.bundle.verify import EXPORT_AGAIN
from recsys.bundle.writer import BundleWriter
from recsys.config.base import Config
from recsys.errors import BundleError
from recsys.ragged import Ragged
from recsys.retrieval.exact import ExactIndex
from recsys.retrieval.index import Index, Vectors

KNOWN = 16
"""Known users among those who ask."""
SINGLE = 16
"""Most features of which a request holds nothing but one value that training never met."""
K = 10
"""Items of an answer."""
TOLERANCE = 1e-4
"""Of scores, relative to the greatest of the answer."""
RECALL_LOST = 0.02
"""By which an approximate index's mean recall may be less than it was."""
NO_ITEM = ""
"""Stands for an item of which nothing is known, where the log names none."""
Graph = Callable[[Arrays], NDArray[np.float32]]


class GoldenRequest(Config):
    """A request and its answer."""

    user: str | None = None
    """A user that the bundle knows, without context."""
    features: dict[str, Any] = Field({})
    """Raw features, if it is none."""
    items: tuple[str, ...] = ()
    """The best by exact search; without retrieval, some of the catalogue."""
    scores: tuple[float, ...] = ()
    """Theirs; none without retrieval."""
    ranked: tuple[float, ...] = ()
    """The ranker's of the same items; none without one."""

    @property
    def who(self) -> str:
        """For errors."""
        return f"user {self.user!r}" if self.user is not None else f"features {shown(self.features)}"


class Golden(Config):
    """`golden.json`."""

    requests: tuple[GoldenRequest, ...]
    recall: Annotated[float, Field(ge=0.0, le=1.0)] | None
    """Of the index against exact search, in the mean over these requests; None without retrieval."""


@dataclass(frozen=True)
class Stages:
    """What answers: a bundle's parts, or the models that are to become one.

    Attributes:
        users: that are known.
        items: the catalogue.
        request: features of a request.
        unit: of the users' times.
        embed: from encoded queries to vectors; None without retrieval.
        index: over the items' vectors; None without retrieval.
        ranking: what the ranker takes; None without one.
        rank: from encoded pairs to scores; None without a ranker.
    """

    users: Users
    items: pa.Table
    request: Mapping[str, RawField]
    unit: str | None
    embed: Graph | None = None
    index: Index | None = None
    ranking: RankingFacts | None = None
    rank: Graph | None = None

    def golden(self) -> Golden:
        """Requests, and the answers to them."""
        asked, last = [*_known(self.users), *_unusual(self.request)], max(len(self.items) - 1, 0)
        spread = np.unique(np.linspace(0, last, K).astype(np.int64))
        candidates, scores, recall = Ragged.from_lists([spread] * len(asked)), None, None
        if self.embed is not None and self.index is not None:
            vectors = self.vectors(asked)
            best = ExactIndex(self.index.vectors).search(vectors, K, allowed=self.index.alive)
            recall = _recall(self.index.search(vectors, K).ids, best.ids)
            candidates, scores = Ragged.from_lists([row[row >= 0] for row in best.ids]), best.scores[best.ids >= 0]
        ranked = self.ranked(asked, candidates)
        known = self.items["item"].take(pa.array(candidates.values)).to_pylist() if len(self.items) else []
        names, answered = known or [NO_ITEM] * len(asked), list[GoldenRequest]()
        for n, each in enumerate(asked):
            part = slice(candidates.offsets[n], candidates.offsets[n + 1])
            parts = {"scores": scores, "ranked": ranked}
            told = {name: tuple(all_[part].tolist()) for name, all_ in parts.items() if all_ is not None}
            answered.append(each.model_copy(update={"items": tuple(names[part]), **told}))
        return Golden(requests=tuple(answered), recall=recall)

    def vectors(self, asked: Sequence[GoldenRequest]) -> Vectors:
        """[Q, d] of the queries."""
        assert self.embed is not None
        return np.concatenate([self.embed(self.queries(part, self.request)) for part in _alike(asked)])

    def ranked(self, asked: Sequence[GoldenRequest], candidates: Ragged) -> NDArray[np.float32] | None:
        """[number of candidates] the ranker's scores; None without one."""
        if self.rank is None or self.ranking is None:
            return None
        found, at = [], 0
        for part in _alike(asked):
            own = candidates.slice(at, at + len(part))
            queries = self.queries(part, self.ranking.request)
            pairs = {name: array[own.row_of_value] for name, array in queries.items()}
            known = arrays_of(self.items, self.ranking.item, own.values) if len(self.items) else None
            found.append(self.rank(pairs | (missing(self.ranking.item, len(own.values)) if known is None else known)))
            at += len(part)
        return np.concatenate(found)

    def queries(self, asked: Sequence[GoldenRequest], fields: Mapping[str, RawField]) -> Arrays:
        """Encoded, of known users alone, or of features alone."""
        if asked[0].user is None:
            return RequestEncoder(fields).encode([each.features for each in asked])
        rows = np.array([self.users.row(each.user) for each in asked if each.user is not None])
        return known_queries(self.users, self.items, fields, rows, self.unit)


def write_golden(writer: BundleWriter, stages: Stages) -> None:
    """Writes `golden.json` of a bundle that is being made."""
    writer.path(GOLDEN).write_text(stages.golden().model_dump_json(indent=1) + "\n", encoding="utf-8")


def self_test(bundle: Bundle) -> None:
    """Asks a bundle its golden requests again.

    Scores must agree within 1e-4 of the greatest of an answer: of the query tower with the index, with the item tower,
    and of the ranker. Where items differ, their scores must not; of an approximate index, its mean recall must.

    Raises:
        BundleError: with the first request that is answered otherwise; or there are no golden requests.
    """
    path, manifest = bundle.folder / GOLDEN, bundle.manifest
    try:
        golden = Golden.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        lines = str(error).splitlines()
        raise BundleError(str(path), f"cannot be read ({lines[0]})", "golden requests", EXPORT_AGAIN) from error
    stages = stages_of(bundle)
    candidates = Ragged.from_lists([[_row_of(bundle, item) for item in each.items] for each in golden.requests])
    check = _Check(str(path), golden.requests, candidates)
    if manifest.kind == "two_tower":
        stored = np.array([score for each in golden.requests for score in each.scores], np.float32)
        vectors, index = stages.vectors(golden.requests), bundle.index
        own = vectors[candidates.row_of_value]
        check.scores("query tower and index", (own * index.vectors[candidates.values]).sum(1), stored)
        items = bundle.item_tower(arrays_of(bundle.items, manifest.item, candidates.values))
        check.scores("query and item tower", (own * items).sum(1), stored)
        found = index.search(vectors, K)
        if isinstance(index, ExactIndex):
            check.scores("search", found.scores[found.ids >= 0], stored)
        expected = _padded(candidates)
        recall, least = _recall(found.ids, expected), (golden.recall or 0.0) - RECALL_LOST
        if recall < least and not isinstance(index, ExactIndex):
            raise BundleError(str(path), f"the index's recall@{K} is {recall:.3f}", f"{least:.3f}", EXPORT_AGAIN)
    ranked = stages.ranked(golden.requests, candidates)
    if ranked is not None:
        stored = np.array([score for each in golden.requests for score in each.ranked], np.float32)
        check.scores("ranker", ranked, stored)


@dataclass(frozen=True)
class _Check:
    """Compares scores request by request."""

    place: str
    requests: Sequence[GoldenRequest]
    candidates: Ragged

    def scores(self, part: str, found: NDArray[np.float32], stored: NDArray[np.float32]) -> None:
        """Both of all candidates."""
        if len(found) != len(stored):
            raise BundleError(self.place, f"{part}: {len(found)} scores", f"{len(stored)}", EXPORT_AGAIN)
        rows = self.candidates.row_of_value
        scale = np.zeros(len(self.requests), np.float32)
        np.maximum.at(scale, rows, np.abs(stored))
        wrong = np.flatnonzero(~(np.abs(found - stored) <= TOLERANCE * scale[rows]))  # NaN is wrong, too
        if len(wrong):
            first = int(wrong[0])
            row = int(rows[first])
            place = f"{self.place}: requests[{row}] ({self.requests[row].who})"
            answer = f"{part}: {found[first]:.6g} for item {first - int(self.candidates.offsets[row])} of the answer"
            raise BundleError(place, answer, f"{stored[first]:.6g}, as when it was exported", EXPORT_AGAIN)


def stages_of(bundle: Bundle) -> Stages:
    """Those of a bundle."""
    manifest, retrieves = bundle.manifest, bundle.manifest.kind == "two_tower"
    return Stages(
        users=bundle.users,
        items=bundle.items,
        request=manifest.request,
        unit=manifest.timestamp_unit,
        embed=bundle.query_tower if retrieves else None,
        index=bundle.index if retrieves else None,
        ranking=manifest.ranking,
        rank=None if manifest.ranking is None else bundle.ranker,
    )


def _row_of(bundle: Bundle, item: str) -> int:
    row = bundle.find_item(item) if item != NO_ITEM else 0
    if row is None:
        raise BundleError(str(bundle.folder / GOLDEN), f"names the item {item!r}", "one of items.parquet", EXPORT_AGAIN)
    return row


def _recall(found: NDArray[np.int32], best: NDArray[np.int32]) -> float:
    """Mean share of each row of `best` that stands in the same row of `found`; -1 is none."""
    hit = ((best[:, :, np.newaxis] == found[:, np.newaxis]) & (best >= 0)[:, :, np.newaxis]).any(2)
    return float((hit.sum(1) / np.maximum((best >= 0).sum(1), 1)).mean())


def _padded(rows: Ragged) -> NDArray[np.int32]:
    padded = np.full((len(rows), K), -1, np.int32)
    padded[rows.row_of_value, np.arange(len(rows.values)) - rows.offsets[rows.row_of_value]] = rows.values
    return padded


def _alike(asked: Sequence[GoldenRequest]) -> list[list[GoldenRequest]]:
    """Those of known users, and those of features, which come after them."""
    parts = [each for each in asked if each.user is not None], [each for each in asked if each.user is None]
    return [part for part in parts if part]


def _known(users: Users) -> list[GoldenRequest]:
    if not len(users):
        return []
    rows = np.unique(np.linspace(0, len(users) - 1, KNOWN).astype(np.int64))
    return [GoldenRequest(user=users.table["user"][int(row)].as_py()) for row in rows]


def _unusual(fields: Mapping[str, RawField]) -> list[GoldenRequest]:
    """Of somebody of whom nothing is known, and of each of some features alone."""
    return [GoldenRequest(), *(GoldenRequest(features=_one(*each)) for each in list(fields.items())[:SINGLE])]


def _one(name: str, field: RawField) -> dict[str, Any]:
    match field:
        case NumericField():
            return {name: 1.5}
        case VectorField():
            return {name: [0.5] * field.dim}
        case CategoricalField():
            return {name: "no such value"}
        case MultiValuedField():
            return {name: ["no such value"]}
        case SequenceField():
            return {name: ["no such value"]} | ({f"{name}.age": [3_600.0]} if field.age else {})
