"""Retrieve, then rank: both stages together, and the recall that each of them loses.

The retriever proposes K candidates, the ranker puts them in order, and the user is shown the first k. Of a user's R
relevant items let c be among the candidates and h among the first k. Then

    lost_in_retrieval@k = (min(k, R) - min(k, c)) / R    no ranker could have made up for it
    lost_in_ranking@k   = (min(k, c) - h) / R            another order of these candidates would have
    reachable@k         = min(k, R) / R = recall@k + lost_in_ranking@k + lost_in_retrieval@k

The part of `lost_in_retrieval@k` that an approximate index is to blame for is `lost_in_index@k` =
(min(k, c of exact search) - min(k, c)) / R. It is negative for a user whom the index did a favour by chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recsys.data.dataset import DatasetInfo, Part
from recsys.data.prepared import Features, Prepared
from recsys.embeddings.served import ServedRows
from recsys.errors import ConfigError, DataError
from recsys.evaluation.config import EvaluationConfig
from recsys.evaluation.evidence import MODEL
from recsys.evaluation.model import Evaluated, held_out_users, measured_retrieval, retrieval_task
from recsys.evaluation.recommenders import Nearest, Recommender
from recsys.evaluation.retrieval import PerUser, RetrievalResult, Rows, Task, evaluate_retrieval
from recsys.evaluation.showcase import recommended
from recsys.evaluation.tuned_index import held_out_queries, tuned_index
from recsys.metrics import hits
from recsys.models.ranker import Ranker
from recsys.models.two_tower import TwoTower
from recsys.ragged import Ragged
from recsys.retrieval.config import IndexConfig
from recsys.retrieval.exact import ExactIndex

RETRIEVER = "retriever"
"""What the first stage alone is called beside both."""
CANDIDATES = 500
"""K, unless the caller says otherwise."""
_PAIRS = 8_192
"""Pairs that a ranker scores at once."""


class PairScorer(Protocol):
    """Says how well an item suits a user of the part under test."""

    def scores(self, rows: NDArray[np.integer], items: NDArray[np.integer]) -> NDArray[np.floating]:
        """[n] scores of the users `rows` [n] with the `items` [n], pair by pair; the higher, the better."""
        ...


@dataclass(frozen=True)
class RankerScorer:
    """A ranker's logits: each user at the moment of the query, with each item."""

    ranker: Ranker
    query: Features
    """[Q, ...] `HeldOut.query`."""
    item: Features
    """[N, ...] `Prepared.item_features`."""
    served: Mapping[str, ServedRows] | None = None
    """Rows to score with in place of the trained ones, by table."""
    pairs_at_once: int = _PAIRS
    """Bounds the memory."""

    def scores(self, rows: NDArray[np.integer], items: NDArray[np.integer]) -> NDArray[np.floating]:
        """As `PairScorer.scores`."""
        logits = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), self.pairs_at_once):
            part = slice(start, start + self.pairs_at_once)
            batch = {"query": _take(self.query, rows[part]), "item": _take(self.item, items[part])}
            logits[part] = self.ranker.score(batch, self.served)
        return logits


def _take(features: Features, rows: NDArray[np.integer]) -> Features:
    return {name: column[rows] for name, column in features.items()}


@dataclass(frozen=True)
class Reranked:
    """A retriever's candidates in the order of a scorer; equal scores keep the retriever's."""

    retriever: Recommender
    scorer: PairScorer
    candidates: int = CANDIDATES

    @property
    def users(self) -> int:
        """Q."""
        return self.retriever.users

    @property
    def items(self) -> int:
        """N."""
        return self.retriever.items

    def recommend(self, rows: NDArray[np.integer], k: int, exclude: Ragged) -> NDArray[np.int32]:
        """As `Recommender.recommend`.

        Raises:
            DataError: a score is NaN or infinite.
            ValueError: k is more than there are candidates.
        """
        if k > self.candidates:
            raise ValueError(f"the best {k} of {self.candidates} candidates")
        found = self.retriever.recommend(rows, self.candidates, exclude)
        user, rank = np.nonzero(found >= 0)
        scores = np.full(found.shape, -np.inf, np.float32)
        scores[user, rank] = self.scorer.scores(rows[user], found[user, rank])
        unsound = ~np.isfinite(scores[user, rank])
        if unsound.any():
            raise DataError("the ranker's scores", f"{unsound.sum()} of {len(unsound)} are NaN or infinite", "numbers")
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(found, order, axis=1)


@dataclass(frozen=True)
class TwoStageResult:
    """How well two stages rank a catalogue together, beside the first of them alone, for the same U users."""

    two_stages: RetrievalResult
    """`per_user` also has `candidate_recall@K` and, at each cut-off, the metrics of `evaluation.config.STAGES`."""
    retriever: RetrievalResult
    """The same candidates in the retriever's own order."""


def evaluate_two_stage(
    retriever: Recommender,
    scorer: PairScorer,
    task: Task,
    config: EvaluationConfig,
    *,
    candidates: int = CANDIDATES,
    exact: Recommender | None = None,
) -> TwoStageResult:
    """Retrieve `candidates` of the catalogue for every user with something relevant, and let the scorer order them.

    Holds the candidates of all users, 4 Q K bytes (twice that while they are compared with those of `exact`), and
    what one block of `config.users_per_block` users takes: some 50 bytes a pair, and one batch of the scorer's.

    Args:
        retriever: of Q users and N items.
        scorer: usually a `RankerScorer`.
        task: what the users are to be shown.
        config: cut-offs and block size.
        candidates: K.
        exact: what `retriever` stands in for, if its index is approximate.

    Raises:
        ConfigError: there are fewer candidates than the largest cut-off.
        DataError: no user has anything relevant, or a score is NaN or infinite.
        ValueError: the arguments do not fit each other.
    """
    if candidates < config.ks[-1]:
        needed = f"at least {config.ks[-1]}, the largest of evaluation.ks"
        raise ConfigError("candidates", f"{candidates}", needed, "ask for more, or lower the cut-offs")
    proposed = _propose(retriever, task, candidates, config.users_per_block)
    both = evaluate_retrieval(Reranked(proposed, scorer, candidates), task, config)
    alone = evaluate_retrieval(proposed, task, config)
    targets = task.relevant.difference(task.seen).take(both.users)
    found = proposed.found(both.users, targets, config.users_per_block)
    reachable = _possible(targets.lengths, targets.lengths, config.ks)
    possible = _possible(found, targets.lengths, config.ks)
    told = {f"candidate_recall@{candidates}": found / targets.lengths}
    for k in config.ks:
        told[f"reachable@{k}"] = reachable[k]
        told[f"lost_in_retrieval@{k}"] = reachable[k] - possible[k]
        told[f"lost_in_ranking@{k}"] = possible[k] - both.per_user[f"recall@{k}"]
    if exact is not None:
        best = _propose(exact, task, candidates, config.users_per_block)
        found = best.found(both.users, targets, config.users_per_block)
        exactly = _possible(found, targets.lengths, config.ks)
        told |= {f"lost_in_index@{k}": exactly[k] - possible[k] for k in config.ks}
    return TwoStageResult(replace(both, per_user=both.per_user | told), alone)


def evaluate_two_models(
    retriever: TwoTower,
    ranker: Ranker,
    prepared: Prepared,
    part: Part,
    config: EvaluationConfig,
    index: IndexConfig,
    candidates: int = CANDIDATES,
) -> Evaluated:
    """A two-tower model and a ranker together, as they would be served: over this index, with served rows.

    `model` of the result are the two stages, its baseline `retriever` is the first of them alone. Where the index is
    approximate, what it loses is told.

    Raises:
        ConfigError, DataError: as `evaluate_two_stage` says, or a vector is not finite.
        ExportError: a table cannot be stored as it is to be served, or the index does not keep its promise.
        InstallError: ScaNN is asked for and missing.
    """
    held_out = held_out_users(prepared, part)
    served = retriever.embeddings.serve()
    vectors, queries = (
        retriever.item_vectors(prepared.item_features, served),
        retriever.query_vectors(held_out.query, served),
    )
    tuned_by = held_out_queries(retriever, prepared, served)
    nearest = Nearest(tuned_index(vectors, index, tuned_by, prepared.info.name), queries)
    exact = None if isinstance(nearest.index, ExactIndex) else Nearest(ExactIndex(vectors), queries)
    scorer = RankerScorer(ranker, held_out.query, prepared.item_features, ranker.embeddings.serve())
    task = retrieval_task(prepared, held_out, config, sliced=True)
    found = evaluate_two_stage(nearest, scorer, task, config, candidates=candidates, exact=exact)
    both = Reranked(nearest, scorer, candidates)
    results = {MODEL: found.two_stages, RETRIEVER: found.retriever}
    evaluated = len(found.two_stages.users)
    return Evaluated(
        {name: each.summary() for name, each in results.items()},
        {"users_evaluated": evaluated, "users_without_relevant": prepared.info.counts.users - evaluated},
        {name: measured_retrieval(prepared, part, held_out, config, each) for name, each in results.items()},
        showcase=recommended(both, held_out, prepared, part, config.ks[-1]),
    )


def _possible(found: Rows, relevant: Rows, ks: tuple[int, ...]) -> dict[int, PerUser]:
    """k -> [U] recall@k of a ranking that begins with as many relevant items as were `found`."""
    return {k: np.minimum(k, found) / relevant for k in ks}


def must_share_data(place: str, retriever: DatasetInfo, ranker: DatasetInfo) -> None:
    """Two stages number users, items and values alike only where both read one prepared data set.

    Args:
        place: what to name in the error: the ranker's run.
        retriever: of the data that the retriever was trained on.
        ranker: likewise.

    Raises:
        DataError: they read different ones.
    """
    if retriever.digest != ranker.digest:
        raise DataError(
            place,
            f"its data are prepared otherwise than the retriever's ({ranker.digest[:12]}, {retriever.digest[:12]})",
            "one prepared data set for both",
            "give both the same data and schema, data.negatives too, and train again",
        )


@dataclass(frozen=True)
class _Proposed:
    """What a retriever has recommended, kept, so that it is asked once."""

    items: int
    """N."""
    ids: NDArray[np.int32]
    """[Q, K] -1 where there is none, as for users who have nothing relevant."""

    @property
    def users(self) -> int:
        """Q."""
        return len(self.ids)

    def recommend(self, rows: NDArray[np.integer], k: int, exclude: Ragged) -> NDArray[np.int32]:
        """As `Recommender.recommend`; `exclude` is what was excluded when the retriever was asked."""
        return self.ids[rows, :k]

    def found(self, users: Rows, targets: Ragged, users_per_block: int) -> Rows:
        """[U] how many of their `targets` [U rows] are among the candidates of `users` [U]."""
        counts = np.empty(len(users), np.int64)
        for start in range(0, len(users), users_per_block):
            stop = min(start + users_per_block, len(users))
            counts[start:stop] = hits(self.ids[users[start:stop]], targets.slice(start, stop)).sum(axis=1)
        return counts


def _propose(retriever: Recommender, task: Task, k: int, users_per_block: int) -> _Proposed:
    if (retriever.users, retriever.items) != (len(task.relevant), len(task.train_count)):
        shape = f"{len(task.relevant)} users and {len(task.train_count)} items"
        raise ValueError(f"{retriever.users} users and {retriever.items} items to recommend, the task has {shape}")
    ids = np.full((retriever.users, k), -1, np.int32)
    users = np.flatnonzero(task.relevant.difference(task.seen).lengths)
    for start in range(0, len(users), users_per_block):
        rows = users[start : start + users_per_block]
        ids[rows] = retriever.recommend(rows, k, task.seen.take(rows))
    return _Proposed(retriever.items, ids)
