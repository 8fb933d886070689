"""The second stage: the ranker's scores of candidates, and what it looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from recsys.bundle.bundle import Bundle
from recsys.bundle.manifest import EXPLAIN, RANK, SequenceField
from recsys.bundle.requests import Arrays, RequestEncoder
from recsys.errors import RequestError
from serving.config import Together
from serving.pipeline.batching import together
from serving.pipeline.profiles import Profile
from serving.pipeline.shelf import Rows, Shelf


@dataclass(frozen=True)
class Looks:
    """What the ranker's layers weighed by for one item: shares, not reasons."""

    history: dict[str, float] | None
    """By event: the item's id, or the value that the request gave; events of one item together."""
    fields: dict[str, float] | None
    """By feature."""


class Ranking:
    """Scores items of a shelf for encoded queries, by the bundle's ranker."""

    def __init__(self, bundle: Bundle, batching: Together | None = None) -> None:
        """Raises `BundleError` where the bundle has no ranker, or one that cannot put items in order."""
        self._bundle = bundle
        _ = bundle.candidate_ranker
        self._rank = together(self._ranked, batching)
        fields = bundle.ranking.request
        self._inputs = RequestEncoder(fields).inputs
        self._sequences = {name: each for name, each in fields.items() if isinstance(each, SequenceField)}

    @classmethod
    def of(cls, bundle: Bundle, batching: Together | None = None) -> Self | None:
        """None where the bundle has no ranker, or is of one that cannot put items in order, as one of clicks."""
        if bundle.manifest.ranking is None or not bundle.ranker.has(RANK):
            return None
        return cls(bundle, batching)

    def scores(self, query: Arrays, shelf: Shelf, rows: Rows) -> NDArray[np.float32]:
        """[K] the probabilities of the items `rows` [K] for an encoded query.

        Raises:
            RequestError: one is not finite.
        """
        if not len(rows):
            return np.empty(0, np.float32)
        (found,) = self._rank([(self._own(query), self._bundle.candidates(rows, shelf.items))])
        if not np.isfinite(found).all():
            raise RequestError(
                "features", "the ranker's score is not finite", "numbers of a usual size", "send smaller numbers"
            )
        return found

    def _ranked(self, asked: Sequence[tuple[Arrays, Arrays]]) -> Sequence[NDArray[np.float32]]:
        """Of several requests, each with its features and its items'."""
        if len(asked) == 1:
            ((query, items),) = asked
            return [self._bundle.candidate_ranker({**query, **items})]
        return self._bundle.rank_many([query for query, _ in asked], [items for _, items in asked])

    def looks(self, query: Arrays, profile: Profile, shelf: Shelf, rows: Rows) -> list[Looks] | None:
        """What the layers weighed by for each of the items `rows`; None where there are none, or no layer
        weighs anything.
        """
        if not len(rows) or not self._bundle.ranker.has(EXPLAIN):
            return None
        repeated = {name: np.repeat(array, len(rows), 0) for name, array in self._own(query).items()}
        found = self._bundle.ranker.explain({**repeated, **self._bundle.candidates(rows, shelf.items)})
        history, fields = found.get("history"), found.get("attention", found.get("gates"))
        events: list[dict[str, float] | None] = [None] * len(rows)
        shares = events
        if history is not None:
            names = self._events(query, profile, shelf)
            events = [_summed(names, weights) for weights in history]
        if fields is not None:
            names = [name.decode() for name in found["fields"]]
            shares = [_summed(names, weights) for weights in fields.reshape(len(rows), -1, len(names)).mean(1)]
        return [Looks(*each) for each in zip(events, shares, strict=True)]

    def _own(self, query: Arrays) -> Arrays:
        return {name: array for name, array in query.items() if name in self._inputs}

    def _events(self, query: Arrays, profile: Profile, shelf: Shelf) -> list[str]:
        """What the events of the longest history are called, oldest first."""
        name = max(self._sequences, key=lambda each: query[each].shape[1])
        if not len(profile.history):
            return [value for value in query[name][0].tolist() if value]
        newest = profile.history[-self._sequences[name].max_length :]
        return shelf.items["item"].take(newest).to_pylist()


def _summed(names: list[str], weights: NDArray[np.floating]) -> dict[str, float]:
    """The weights of the first `names`, those of one name together."""
    found = dict[str, float]()
    for name, weight in zip(names, weights.tolist(), strict=False):  # after the newest event there is padding
        found[name] = found.get(name, 0.0) + weight
    return found
