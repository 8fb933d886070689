"""Ranking the full catalogue for each user.

Protocol: one query per user. Every item of the catalogue is a candidate but for those that the user has had before the
part under test (`seen`). Relevant are the distinct items of the part under test that the user has not had: an item that
may not be recommended cannot be missed. Users without such items are left out of all means, and counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.errors import DataError
from recsys.evaluation.config import EvaluationConfig
from recsys.metrics import (
    hit_rate_at_k,
    hits,
    map_at_k,
    mean_popularity,
    mrr_at_k,
    ndcg_at_k,
    precision_at_k,
    recall_at_k,
)
from recsys.ragged import Ragged
from recsys.retrieval.exact import ExactIndex
from recsys.retrieval.index import Index, Vectors

_FUNCTIONS = {
    "recall": recall_at_k,
    "precision": precision_at_k,
    "hit_rate": hit_rate_at_k,
    "ndcg": ndcg_at_k,
    "mrr": mrr_at_k,
    "map": map_at_k,
}


@dataclass(frozen=True)
class RetrievalResult:
    """How well a catalogue was ranked for U users."""

    users: NDArray[np.int64]
    """[U] the rows of the users who were evaluated, ascending."""
    per_user: dict[str, NDArray[np.float64]]
    """`METRIC@K` -> [U]; a metric of `evaluation.config.METRICS`, or `popularity`: mean train count of the K items."""
    relevant_popularity: NDArray[np.float64]
    """[U] mean train count of the user's relevant items."""
    coverage: dict[str, float]
    """`coverage@K` -> share of the catalogue recommended to anybody."""
    without_relevant: int
    """Users left out because nothing relevant could be recommended to them."""

    def summary(self) -> dict[str, float]:
        """Means over users, coverage, and `popularity_lift@K`: popularity of the recommended over that of the relevant.

        All are finite: the lift is left out where no relevant item has a training event.
        """
        values = {name: float(array.mean()) for name, array in self.per_user.items()} | self.coverage
        base = float(self.relevant_popularity.mean())
        if base > 0:
            popularity = {name: value for name, value in values.items() if name.startswith("popularity@")}
            values |= {name.replace("@", "_lift@"): value / base for name, value in popularity.items()}
        return values


def evaluate_retrieval(
    index: Index,
    queries: Vectors | Iterable[Vectors],
    relevant: Ragged,
    seen: Ragged,
    train_count: NDArray[np.integer],
    config: EvaluationConfig,
) -> RetrievalResult:
    """Rank the index for every user with something relevant; never holds users x items.

    Args:
        index: over the N items, usually `ExactIndex(vectors)`.
        queries: [Q, d] one query per user, or blocks of them in the same order.
        relevant: for each of the Q users the items of the part under test.
        seen: for each of the Q users the items not to be recommended.
        train_count: [N] training events of each item.
        config: cut-offs and block size.

    Raises:
        DataError: a query is not finite, or no user has anything relevant.
        ValueError: the arguments do not fit each other.
    """
    if len(seen) != len(relevant):
        raise ValueError(f"{len(relevant)} users in relevant, {len(seen)} in seen")
    if len(train_count) != index.size:
        raise ValueError(f"{len(train_count)} items in train_count, {index.size} in the index")
    targets = relevant.difference(seen)
    users = np.flatnonzero(targets.lengths)
    if len(users) == 0:
        raise DataError(
            "the part under test",
            f"none of {len(relevant)} users has an item that was not seen before",
            cure="hold out a larger share in data.split",
        )
    tally = _Tally(config.ks, train_count)
    rows = 0
    for block in _blocks(queries, config.users_per_block):
        first, last = np.searchsorted(users, (rows, rows + len(block)))
        chosen = users[first:last]
        if len(chosen):
            ranked = index.search(block[chosen - rows], config.ks[-1], seen.take(chosen)).ids
            tally.add(ranked, targets.take(chosen))
        rows += len(block)
    if rows != len(relevant):
        raise ValueError(f"{rows} queries for {len(relevant)} users")
    return tally.result(users, mean_popularity(targets.take(users), train_count), len(relevant) - len(users))


def evaluate_popularity(
    relevant: Ragged, seen: Ragged, train_count: NDArray[np.integer], config: EvaluationConfig
) -> RetrievalResult:
    """The baseline: to everyone the items with most training events that they have not had.

    The same protocol and code as for a model, with the count as the item's vector and 1 as every query.

    Raises:
        DataError, ValueError: as `evaluate_retrieval` does.
    """
    index = ExactIndex(train_count[:, None])
    return evaluate_retrieval(index, np.ones((len(relevant), 1), np.float32), relevant, seen, train_count, config)


def _blocks(queries: Vectors | Iterable[Vectors], size: int) -> Iterator[Vectors]:
    for block in [queries] if isinstance(queries, np.ndarray) else queries:
        for start in range(0, len(block), size):
            yield block[start : start + size]


class _Tally:
    """What is kept of the rankings: numbers of each user, and which items were recommended."""

    def __init__(self, ks: tuple[int, ...], train_count: NDArray[np.integer]) -> None:
        self._ks = ks
        self._train_count = train_count
        self._per_user: dict[str, list[NDArray[np.float64]]] = {}
        self._recommended = {k: np.zeros(len(train_count), np.bool_) for k in ks}

    def add(self, ranked: NDArray[np.integer], targets: Ragged) -> None:
        found, lengths = hits(ranked, targets), targets.lengths
        for k in self._ks:
            for name, function in _FUNCTIONS.items():
                self._append(f"{name}@{k}", function(found, lengths, k))
            rows, ranks = np.nonzero(ranked[:, :k] >= 0)
            items = ranked[rows, ranks]
            self._recommended[k][items] = True
            self._append(
                f"popularity@{k}", mean_popularity(Ragged.from_pairs(rows, items, len(ranked)), self._train_count)
            )

    def _append(self, name: str, values: NDArray[np.float64]) -> None:
        self._per_user.setdefault(name, []).append(values)

    def result(
        self, users: NDArray[np.int64], relevant_popularity: NDArray[np.float64], without_relevant: int
    ) -> RetrievalResult:
        return RetrievalResult(
            users=users,
            per_user={name: np.concatenate(parts) for name, parts in self._per_user.items()},
            relevant_popularity=relevant_popularity,
            coverage={f"coverage@{k}": float(flags.mean()) for k, flags in self._recommended.items()},
            without_relevant=without_relevant,
        )
