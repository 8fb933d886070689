"""From a request to an answer: features, retrieve, rank, re-rank, respond."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from recsys.bundle.bundle import Bundle
from recsys.bundle.requests import Arrays, text_of
from recsys.errors import ConfigError, ExportError, RequestError
from serving.config import ServingConfig
from serving.features import open_store
from serving.features.store import now
from serving.log.parquet_log import LogCounts
from serving.log.response_log import Counted, Feedback, ResponseLog
from serving.messages import (
    Beside,
    BesideRequest,
    BundleName,
    Degraded,
    EmbedRequest,
    EventRequest,
    FeedbackRequest,
    Id,
    Item,
    ItemsRequest,
    Noted,
    Ranked,
    RankRequest,
    Recommendations,
    Request,
    Updated,
    Vectors,
)
from serving.pipeline.candidates import Candidates
from serving.pipeline.journal import Journal
from serving.pipeline.profiles import Profile, Profiles
from serving.pipeline.ranking import Ranking
from serving.pipeline.response import explained, logged, respond
from serving.pipeline.retrieval import Retrieval
from serving.pipeline.shelf import LiveShelf
from serving.pipeline.stages import Budget, LateError, Stopwatch

_log = logging.getLogger(__name__)


class Pipeline:
    """Answers requests from one bundle, in any thread. Items may come, change and go meanwhile.

    Making one goes through every stage once, so that a broken part shows at once and the first real request is no
    slower than the next. It owns its `Bundle`: updates change the index in there.
    """

    def __init__(self, bundle: Bundle, config: ServingConfig | None = None, counted: Counted = lambda *_: None) -> None:
        """`counted` is told what becomes of the log's rows.

        Raises `BundleError` for parts that cannot be opened, `ConfigError` for rules that do not fit the items,
        `StoreError` for an online store that cannot be opened, and `JournalError` for a journal that cannot be read.
        """
        self.bundle, self.config = bundle, config or ServingConfig()
        self.name = BundleName(name=bundle.manifest.name, version=bundle.manifest.version)
        budgets, threads = self.config.budgets, self.config.threads
        self._shelf = LiveShelf(bundle, self.config.rules)
        self._store = None if self.config.features is None else open_store(self.config.features)
        self._profiles = Profiles(bundle, self._store, Budget("features", budgets.features, threads))
        self._retrieval = Retrieval(bundle, self._shelf, self.config.batching.query)
        self._ranking = Ranking.of(bundle, self.config.batching.rank)
        self._rank_budget = Budget("rank", budgets.rank, threads)
        self._warm_up()
        self._journal = self._replayed()
        self._log = (
            None if self.config.log is None else ResponseLog.open(self.config.log, bundle.manifest.request, counted)
        )

    @property
    def shelf(self) -> LiveShelf:
        """The catalogue."""
        return self._shelf

    def recommend(self, request: Request) -> Recommendations:
        """The best `k` items.

        Raises:
            BundleError: the bundle has no index.
            RequestError: a value does not fit its feature, or is more than the server allows.
        """
        self._within("k", request.k, self.config.limits.k)
        watch, degraded, request_id = Stopwatch(), list[Degraded](), uuid4().hex
        with watch.stage("features"):
            profile = self._profiles.of(request.user, request.features, request.time, self._shelf.now)
            query = self.bundle.query_encoder.encode([profile.features])
        if profile.late:
            degraded.append("features")
        with watch.stage("retrieve"):
            found = self._retrieved(query, profile, request)
        scores = None
        if not profile.known:
            degraded.append("unknown_user")
        elif self._ranking is not None:
            with watch.stage("rank"):
                scores = self._scores(self._ranking, query, found)
            if scores is None:
                degraded.append("ranker")
        ranked = None if scores is None else found.reordered(scores)
        with watch.stage("rerank"):
            shown = (ranked or found).shown(request.k, request_id)
        whys = None
        if request.explain:
            looks = None
            if ranked is not None and self._ranking is not None:
                looks = self._ranking.looks(query, profile, found.shelf, shown.items)
            whys = explained(shown, found, ranked, looks)
        answer = Recommendations(
            items=respond(found.shelf, shown, whys),
            user=profile.user,
            bundle=self.name,
            degraded=tuple(degraded),
            milliseconds=watch.milliseconds,
            request_id=request_id,
        )
        if self._log is not None:
            self._log.response(logged(answer, profile, found, scores, shown))
        return answer

    def rank(self, request: RankRequest) -> Ranked:
        """Items of the catalogue in the ranker's order.

        Raises:
            BundleError: the bundle has no ranker, or one that cannot put items in order.
            RequestError: an item is not in the catalogue, a value does not fit its feature, or there are more items
                than the server allows.
            UnknownUserError: neither store nor bundle know the user, and no features came.
        """
        self._within("items", len(request.items), self.config.limits.batch)
        ranking, shelf = self._ranking or Ranking(self.bundle), self._shelf.now  # which says why there is none
        profile = self._profiles.of(request.user, request.features, request.time, shelf)
        if not profile.known:
            raise self._profiles.unknown(str(profile.user))
        query = self.bundle.query_encoder.encode([profile.features])
        rows = np.array([shelf.row(item, f"items[{n}]") for n, item in enumerate(request.items)], np.int64)
        scores = ranking.scores(query, shelf, rows)
        ranked = Candidates(shelf, rows, scores).reordered(scores)
        shown, whys = ranked.first(len(rows)), None
        if request.explain:
            whys = explained(shown, None, ranked, ranking.looks(query, profile, shelf, shown.items))
        return Ranked(items=respond(shelf, shown, whys), user=profile.user, bundle=self.name)

    def beside(self, request: BesideRequest) -> Beside:
        """The items most like one of the catalogue (with the nearest vectors), or that go best with it: that are met
        after it. Without the item itself.

        Raises:
            BundleError: the bundle was exported without `complements`.
            RequestError: the catalogue has no such item, or too little is known of it.
        """
        self._within("k", request.k, self.config.limits.k)
        row, found = self._retrieval.beside(request)
        (item,) = found.shelf.described(np.array([row]))
        return Beside(item=item, items=respond(found.shelf, found.first(request.k)), bundle=self.name)

    def embed(self, request: EmbedRequest) -> Vectors:
        """The vectors of raw queries and of raw items.

        Raises:
            BundleError: the bundle has no towers.
            RequestError: a value does not fit its feature, or there are more than the server allows.
        """
        self._within("queries", len(request.queries), self.config.limits.batch)
        self._within("items", len(request.items), self.config.limits.batch)
        return Vectors(
            queries=_listed(self.bundle.embed(request.queries)) if request.queries else (),
            items=_listed(self.bundle.embed_items(request.items)) if request.items else (),
            bundle=self.name,
        )

    def update(self, request: ItemsRequest) -> Updated:
        """Put items on the shelf, change them, take them away: see `LiveShelf.update`. With a journal, the change is on
        the disk when this returns.

        Raises:
            BundleError: the bundle has no index.
            ExportError: the index does not keep its promise any more; the items are there all the same.
            JournalError: the change has been made, but cannot be kept.
            RequestError: a value does not fit its feature, or an item to be deleted is not there; nothing has changed.
        """
        self._within("upsert", len(request.upsert), self.config.limits.batch)
        self._within("delete", len(request.delete), self.config.limits.batch)
        if self._journal is None:
            self._shelf.update(request.upsert, request.delete)
        else:
            self._journal.update(self._shelf, request.upsert, request.delete)
        return Updated(items=int(self._shelf.now.filters.there.sum()), bundle=self.name)

    def feedback(self, request: FeedbackRequest) -> Noted:
        """Log what came of a shown item.

        Raises:
            ConfigError: the server keeps no log.
            RequestError: the id is none.
        """
        if self._log is None:
            raise ConfigError("log", "this server keeps none", "a log of answers", "add `log` to its YAML")
        item, time = text_of(request.item, "item"), request.time or datetime.now(UTC)
        return Noted(noted=self._log.feedback(Feedback(request.request_id, item, request.label, time)))

    def event(self, request: EventRequest) -> Noted:
        """Put a positive event into the online store: the next request of the user sees it.

        Raises:
            ConfigError: the server has no online store.
            RequestError: an id is none, or the time is out of range.
            StoreError: the store cannot be reached.
        """
        if self._store is None:
            raise ConfigError("features", "this server has no online store", "one", "add `features` to its YAML")
        time = now(self.bundle.manifest.timestamp_unit) if request.time is None else request.time
        user, item = text_of(request.user, "user"), text_of(request.item, "item")
        try:
            self._store.append(user, item, time)
        except ValueError as error:
            raise RequestError("time", str(error), "a time in the bundle's unit", "leave it out for now") from error
        return Noted(noted=True)

    def log_counts(self) -> dict[str, LogCounts]:
        """What has become of the rows of the log, by its part; nothing without a log."""
        return {} if self._log is None else self._log.counts()

    def close(self) -> None:
        """Write what waits to be logged, and let go of files and connections. Nothing may be asked afterwards."""
        for part in (self._log, self._journal, self._store):
            if part is not None:
                part.close()

    def users(self, prefix: str = "", count: int = 10) -> list[str]:
        """The first users of the bundle whose ids begin so."""
        return self._profiles.names(prefix, count)

    def history(self, user: Id, count: int = 50) -> list[Item]:
        """A user's newest positive items, the newest first.

        Raises:
            UnknownUserError: neither store nor bundle know the user.
        """
        shelf = self._shelf.now
        return shelf.described(self._profiles.history(user, shelf)[:count])

    def popular(self, count: int) -> list[Item]:
        """The items that training met most often, the first first; none where the bundle does not tell."""
        shelf = self._shelf.now
        return shelf.described(shelf.popular[:count])

    def _retrieved(self, query: Arrays, profile: Profile, request: Request) -> Candidates:
        """As many as the later stages want to choose from."""
        choice = self._ranking is not None or self.config.rules is not None
        count = max(request.k, self.config.candidates) if choice else request.k
        if not profile.known:
            return self._retrieval.popular(profile, request, count)
        return self._retrieval.candidates(query, profile, request, count)

    def _scores(self, ranking: Ranking, query: Arrays, found: Candidates) -> NDArray[np.float32] | None:
        """[K] by the ranker; None if they come too late."""
        try:
            return self._rank_budget.spent_on(lambda: ranking.scores(query, found.shelf, found.rows))
        except LateError:
            return None

    def _warm_up(self) -> None:
        """Without budgets: what runs for the first time is slow."""
        query, profile = self.bundle.query_encoder.encode([{}]), Profile(None, {})
        if self.bundle.manifest.kind == "ranker":
            return
        found = self._retrieved(query, profile, Request(features={}, exclude=("",)))
        if self._ranking is not None:
            self._ranking.scores(query, found.shelf, found.rows)
            self._ranking.looks(query, profile, found.shelf, found.rows[:1])
        if self.bundle.manifest.complements is not None:
            _ = self.bundle.complements

    def _replayed(self) -> Journal | None:
        """The journal of the bundle, whose changes have been made again."""
        if self.config.journal is None:
            return None
        journal = Journal.open(Path(self.config.journal), self.name.name, self.name.version)
        try:
            journal.replay(self._shelf)
        except ExportError as error:  # as when the change was made: the items are there
            _log.warning("the index does not keep its promise after the journal's changes: %s", error)
        return journal

    @staticmethod
    def _within(place: str, found: int, most: int) -> None:
        if found > most:
            raise RequestError(place, str(found), f"at most {most} on this server", "ask for less at once")


def _listed(vectors: NDArray[Any]) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, vectors.tolist()))
