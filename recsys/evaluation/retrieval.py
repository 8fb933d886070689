"""Ranking the full catalogue for each user.

Protocol: one query per user. Every item of the catalogue is a candidate but for those that the user has had before the
part under test (`seen`). Relevant are the distinct items of the part under test that the user has not had: an item that
may not be recommended cannot be missed. Users without such items are left out of all means, and counted.

In a slice of the items, the relevant items are those of the slice alone, while every item stays a candidate; users with
none of them are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recsys.errors import DataError
from recsys.evaluation.categories import Categories
from recsys.evaluation.config import METRICS, EvaluationConfig
from recsys.evaluation.grades import Gains, gains_of, graded_ndcg
from recsys.evaluation.recommenders import Recommender
from recsys.evaluation.slices import Slicing
from recsys.metrics import (
    gini,
    hit_rate_at_k,
    hits,
    map_at_k,
    mean_popularity,
    mrr_at_k,
    ndcg_at_k,
    novelty,
    precision_at_k,
    recall_at_k,
)
from recsys.ragged import Ragged

_FUNCTIONS = {
    "recall": recall_at_k,
    "precision": precision_at_k,
    "hit_rate": hit_rate_at_k,
    "ndcg": ndcg_at_k,
    "mrr": mrr_at_k,
    "map": map_at_k,
}
SLICED = ("recall", "ndcg")
"""Metrics of each slice, at every cut-off."""
Rows = NDArray[np.int64]
PerUser = NDArray[np.float64]


@dataclass(frozen=True)
class Task:
    """What Q users are to be shown, of N items.

    Attributes:
        relevant: for each user the items of the part under test.
        seen: for each user the items not to be recommended.
        train_count: [N] positive training events of each item.
        gain: of each of `relevant.values`, for graded nDCG; None without grades.
        categories: of the items; None without.
        slicings: of the N items.
    """

    relevant: Ragged
    seen: Ragged
    train_count: NDArray[np.integer]
    gain: NDArray[np.floating] | None = None
    categories: Categories | None = None
    slicings: Sequence[Slicing] = ()

    def __post_init__(self) -> None:
        if len(self.seen) != len(self.relevant):
            raise ValueError(f"{len(self.relevant)} users in relevant, {len(self.seen)} in seen")


@dataclass(frozen=True)
class SliceResult:
    """How well the relevant items of one slice were ranked."""

    by: str
    name: str
    rows: Rows
    """[S] of the evaluated users those who have any, as places in `RetrievalResult.users`."""
    per_user: dict[str, PerUser]
    """`METRIC@K` -> [S]; a metric of SLICED."""


@dataclass(frozen=True)
class RetrievalResult:
    """How well a catalogue was ranked for U users."""

    users: Rows
    """[U] the rows of the users who were evaluated, ascending."""
    per_user: dict[str, PerUser]
    """`METRIC@K` -> [U], NaN where it is not defined for a user. METRIC is one of `evaluation.config.METRICS`,
    `graded_ndcg`, or of the K recommended items `popularity` (mean train count), `novelty` (bits, by share of the
    training events), `diversity` and `miscalibration` (nats) of their categories.
    """
    relevant_popularity: PerUser
    """[U] mean train count of the user's relevant items."""
    exposure: dict[str, float]
    """Of all recommendations: `coverage@K`, the share of the catalogue recommended to anybody, and `gini@K`."""
    without_relevant: int
    """Users left out because nothing relevant could be recommended to them."""
    slices: tuple[SliceResult, ...] = ()

    def summary(self) -> dict[str, float]:
        """Means over users, exposure, and `popularity_lift@K`: popularity of the recommended over that of the relevant.

        All are finite: what is defined for nobody is left out, as is the lift where no relevant item has a training
        event.
        """
        known = {name: array[~np.isnan(array)] for name, array in self.per_user.items()}
        values = {name: float(array.mean()) for name, array in known.items() if len(array)} | self.exposure
        base = float(self.relevant_popularity.mean())
        if base > 0:
            popularity = {name: value for name, value in values.items() if name.startswith("popularity@")}
            values |= {name.replace("@", "_lift@"): value / base for name, value in popularity.items()}
        return values


def evaluate_retrieval(recommender: Recommender, task: Task, config: EvaluationConfig) -> RetrievalResult:
    """Rank the catalogue for every user with something relevant; never holds users x items.

    Args:
        recommender: of Q users and N items.
        task: what they are to be shown.
        config: cut-offs and block size.

    Raises:
        DataError: no user has anything relevant.
        ValueError: the arguments do not fit each other.
    """
    if recommender.users != len(task.relevant):
        raise ValueError(f"{recommender.users} users of the recommender, {len(task.relevant)} of the task")
    if recommender.items != len(task.train_count):
        raise ValueError(f"{recommender.items} items of the recommender, {len(task.train_count)} in train_count")
    targets = task.relevant.difference(task.seen)
    users = np.flatnonzero(targets.lengths)
    if len(users) == 0:
        raise DataError(
            "the part under test",
            f"none of {len(task.relevant)} users has an item that was not seen before",
            cure="hold out a larger share in data.split",
        )
    targets = targets.take(users)
    gains = _gains(task, users, targets)
    tally = _Tally(task, config.ks)
    size = config.users_per_block

    def rank(start: int) -> tuple[NDArray[np.int32], Ragged]:
        block = users[start : start + size]
        seen = task.seen.take(block)
        return recommender.recommend(block, config.ks[-1], seen), seen

    with ThreadPoolExecutor(1) as ahead:  # one block is ranked while the one before is measured
        following = ahead.submit(rank, 0)
        for start in range(0, len(users), size):
            ranked, seen = following.result()
            stop = start + len(ranked)
            if stop < len(users):
                following = ahead.submit(rank, stop)
            worth = None if gains is None else gains[targets.offsets[start] : targets.offsets[stop]]
            tally.add(ranked, targets.slice(start, stop), seen, worth)
    return RetrievalResult(
        users=users,
        per_user=tally.per_user(),
        relevant_popularity=mean_popularity(targets, task.train_count),
        exposure=tally.exposure(),
        without_relevant=len(task.relevant) - len(users),
        slices=tally.slices(),
    )


def _gains(task: Task, users: Rows, targets: Ragged) -> Gains | None:
    if task.gain is None:
        return None
    relevant = task.relevant.take(users)
    place = Ragged(np.arange(len(task.gain)), task.relevant.offsets).take(users).values
    return gains_of(targets, relevant, task.gain[place], len(task.train_count))


@dataclass
class _Columns:
    """Values of each metric, block after block."""

    parts: dict[str, list[PerUser]] = field(default_factory=dict)

    def add(self, values: Mapping[str, PerUser]) -> None:
        for name, array in values.items():
            self.parts.setdefault(name, []).append(array)

    def joined(self) -> dict[str, PerUser]:
        return {name: np.concatenate(parts) for name, parts in self.parts.items()}


def _accuracy(
    names: Sequence[str], found: NDArray[np.bool_], relevant: Rows, ks: tuple[int, ...]
) -> dict[str, PerUser]:
    return {f"{name}@{k}": _FUNCTIONS[name](found, relevant, k) for name in names for k in ks}


class _Tally:
    """What is kept of the rankings: numbers of each user, and how often each item was recommended."""

    def __init__(self, task: Task, ks: tuple[int, ...]) -> None:
        self._task, self._ks = task, ks
        self._whole = _Columns()
        self._shown = {k: np.zeros(len(task.train_count), np.int64) for k in ks}
        self._slices = [(s.by, name, members) for s in task.slicings for name, members in s.members.items()]
        self._sliced = [_Columns() for _ in self._slices]
        self._rows: list[list[Rows]] = [[] for _ in self._slices]
        self._events = int(task.train_count.sum())
        self._done = 0

    def add(self, ranked: NDArray[np.integer], targets: Ragged, seen: Ragged, gains: Gains | None) -> None:
        """One block: rankings [n, K], relevant items and their gains, seen items."""
        found = hits(ranked, targets)
        self._whole.add(_accuracy(METRICS, found, targets.lengths, self._ks))
        if gains is not None:
            self._whole.add(graded_ndcg(ranked, targets, gains, len(self._task.train_count), self._ks))
        self._beyond(ranked, seen)
        for number, (_, _, members) in enumerate(self._slices):
            lengths = np.bincount(targets.row_of_value[members[targets.values]], minlength=len(targets))
            rows = np.flatnonzero(lengths)
            inside = found[rows] & members[ranked[rows]]
            self._sliced[number].add(_accuracy(SLICED, inside, lengths[rows], self._ks))
            self._rows[number].append(rows + self._done)
        self._done += len(ranked)

    def _beyond(self, ranked: NDArray[np.integer], seen: Ragged) -> None:
        task = self._task
        for k in self._ks:
            there = ranked[:, :k] >= 0
            top = Ragged(ranked[:, :k][there], np.concatenate([[0], np.cumsum(there.sum(1))]))
            self._shown[k] += np.bincount(top.values, minlength=len(task.train_count))
            self._whole.add(
                {
                    f"popularity@{k}": mean_popularity(top, task.train_count),
                    f"novelty@{k}": novelty(top, task.train_count, self._events),
                }
            )
        if task.categories is not None:
            self._whole.add(task.categories.of_rankings(ranked, self._ks, task.categories.shares(seen)))

    def per_user(self) -> dict[str, PerUser]:
        return self._whole.joined()

    def exposure(self) -> dict[str, float]:
        found = {f"coverage@{k}": float((shown > 0).mean()) for k, shown in self._shown.items()}
        return found | {f"gini@{k}": gini(shown) for k, shown in self._shown.items()}

    def slices(self) -> tuple[SliceResult, ...]:
        """Those in which anybody has a relevant item."""
        return tuple(
            SliceResult(by, name, np.concatenate(rows), columns.joined())
            for (by, name, _), rows, columns in zip(self._slices, self._rows, self._sliced, strict=True)
            if sum(map(len, rows))
        )
