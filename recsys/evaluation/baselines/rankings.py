"""What every model is held to: rankings and scores that anybody has without a model.

All are made of the positive events of the training part. A history is what is known before the part (for scores: before
the example), its newest `HISTORY` events. Equal scores fall to the item with more training events, then to the lower
item index: so users without history are shown what is popular.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys.data.dataset import HISTORIES_OF_TRAINING, STAGES, Part
from recsys.data.prepared import HeldOut, Prepared
from recsys.evaluation.baselines.category_match import CategoryMatch
from recsys.evaluation.baselines.item_knn import HISTORY, ItemKNN
from recsys.evaluation.baselines.sparse_scores import largest, row_of_entry, without
from recsys.evaluation.categories import category_ids
from recsys.evaluation.config import EvaluationConfig
from recsys.evaluation.recommenders import Recommender
from recsys.ragged import Ragged

CELLS = 1 << 22
"""Users times items that are ranked at once: bounds the memory."""
EXAMPLES = 8_192
"""Examples whose histories are held at once."""

Scores = NDArray[np.float64]


def retrieval_baselines(prepared: Prepared, held_out: HeldOut, config: EvaluationConfig) -> dict[str, Recommender]:
    """Rankings of the full catalogue for the users of a part, by name.

    - `popularity`: by positive training events;
    - `recent_popularity`: by those among the newest `config.recent` share of them; without times there is none;
    - `item_knn`: by similarity to the items of the user's history (`recsys.evaluation.baselines.item_knn`);
    - `category_in_history`, if `config.category` names a feature: by the share of the history's events in the item's
      category (`recsys.evaluation.baselines.category_match`).
    """
    catalogue = Catalogue.of(prepared)
    known = held_out.seen
    if prepared.info.split in HISTORIES_OF_TRAINING:  # no order in time; as the model's, no event of another part
        known = prepared.seen_before("valid").take(held_out.user_index)
    seen = catalogue.renumbered(known)
    histories = _slices(seen.values, seen.offsets[:-1], seen.offsets[1:])
    users = len(held_out.seen)
    found: dict[str, Recommender] = {
        name: FixedOrder(np.lexsort((-prepared.train_count, -count)), users)
        for name, count in _counts(prepared, config).items()
    }
    return found | {
        name: ByHistory(scorer, histories, catalogue) for name, scorer in _scorers(prepared, config, catalogue).items()
    }


def score_baselines(prepared: Prepared, part: Part, config: EvaluationConfig) -> dict[str, Scores]:
    """Scores, which are no probabilities, of all examples of a part: by name [n], in the order of `Prepared.examples`.

    The baselines of `retrieval_baselines`, for the example's item and its own history, and
    `target_in_history`: how often the history holds the item. Without times all histories of examples are empty, and
    without users there are none: then there is popularity alone. Without items there is nothing.
    """
    if not prepared.info.table_schema.has_histories:
        return _popularity_alone(prepared, part)
    table = prepared.examples(part, ["user_index", "item_index", "history_stop"])
    user, item, stop = (table[name].to_numpy() for name in ("user_index", "item_index", "history_stop"))
    catalogue = Catalogue.of(prepared)
    events, items = catalogue.number[prepared.events.item_index], catalogue.number[item]
    start = prepared.event_start[user]
    by_history: dict[str, Callable[[Ragged, NDArray[np.integer]], Scores]] = {}
    if prepared.info.has_time:
        by_history = {name: scorer.pairs for name, scorer in _scorers(prepared, config, catalogue).items()}
        by_history["target_in_history"] = _times_in_history
    scores = {name: count[item].astype(np.float64) for name, count in _counts(prepared, config).items()}
    scores |= {name: np.empty(len(item)) for name in by_history}
    for first in range(0, len(item), EXAMPLES):
        block = slice(first, first + EXAMPLES)
        histories = _slices(events, start[block], stop[block])
        for name, score in by_history.items():
            scores[name][block] = score(histories, items[block])
    return scores


def _popularity_alone(prepared: Prepared, part: Part) -> dict[str, Scores]:
    if prepared.info.table_schema.item is None:
        return {}
    item = prepared.examples(part, ["item_index"])["item_index"].to_numpy()
    return {"popularity": prepared.train_count[item].astype(np.float64)}


class Scorer(Protocol):
    """Scores the items of a catalogue for histories of them."""

    def scores(self, histories: Ragged, best: int) -> sparse.csr_array:
        """[R, N] whole numbers, 0 and more, for R histories; it may leave out what is not among a history's `best`
        items, of which equal ones come by their numbers.
        """
        ...

    def pairs(self, histories: Ragged, items: NDArray[np.integer]) -> Scores:
        """[R] the score of one item for each of R histories; 0 for an empty one."""
        ...


@dataclass(frozen=True)
class Catalogue:
    """The items numbered by popularity, so that of equal scores the first is the right one."""

    order: NDArray[np.int64]
    """[N] the item index of each number."""

    @classmethod
    def of(cls, prepared: Prepared) -> Self:
        """By falling positive training events, then by item index."""
        return cls(np.argsort(-prepared.train_count, kind="stable"))

    @cached_property
    def number(self) -> NDArray[np.int32]:
        """[N] the number of each item index."""
        return _inverse(self.order)

    def renumbered(self, items: Ragged) -> Ragged:
        """Numbers in place of item indices."""
        return Ragged(self.number[items.values], items.offsets)


@dataclass(frozen=True)
class FixedOrder:
    """The same order for everyone."""

    order: NDArray[np.integer]
    """[N] item indices, best first."""
    users: int

    @property
    def items(self) -> int:
        """N."""
        return len(self.order)

    def recommend(self, rows: NDArray[np.integer], k: int, exclude: Ragged) -> NDArray[np.int32]:
        """As `Recommender.recommend`."""
        places = Ragged(_inverse(self.order)[exclude.values], exclude.offsets)
        gone = places.difference(Ragged(np.empty(0, np.int64), np.zeros(len(places) + 1, np.int64)))
        # Where places e_0 < e_1 < ... are gone, the j-th that is left is j + the number of i with e_i - i <= j.
        shift = gone.values - np.arange(len(gone.values)) + gone.offsets[gone.row_of_value]
        width = max(self.items, k) + 1
        wanted = np.arange(len(rows))[:, None] * width + np.arange(k)
        passed = np.searchsorted(gone.row_of_value * width + shift, wanted, side="right") - gone.offsets[:-1, None]
        place = np.arange(k) + passed
        return np.where(place < self.items, self.order[np.minimum(place, self.items - 1)], -1).astype(np.int32)


@dataclass(frozen=True)
class ByHistory:
    """By a score for each user's history; equal scores by popularity."""

    scorer: Scorer
    histories: Ragged
    """[Q] the items of each user, by their numbers in the catalogue."""
    catalogue: Catalogue

    @property
    def users(self) -> int:
        """Q."""
        return len(self.histories)

    @property
    def items(self) -> int:
        """N."""
        return len(self.catalogue.order)

    def recommend(self, rows: NDArray[np.integer], k: int, exclude: Ragged) -> NDArray[np.int32]:
        """As `Recommender.recommend`."""
        gone = self.catalogue.renumbered(exclude)
        ranked = np.empty((len(rows), k), np.int32)
        step = max(1, CELLS // self.items)
        for start in range(0, len(rows), step):
            stop = min(start + step, len(rows))
            ranked[start:stop] = self._scored(rows[start:stop], k, gone.slice(start, stop))
        return self._filled(ranked, exclude)

    def _scored(self, rows: NDArray[np.integer], k: int, gone: Ragged) -> NDArray[np.int32]:
        """[n, k] the items that score more than 0, best first, then -1."""
        scores = self.scorer.scores(self.histories.take(rows), k + int(gone.lengths.max()))
        best = largest(without(scores, gone), k)
        row = row_of_entry(best)
        ranked = np.full((len(rows), k), -1, np.int32)
        ranked[row, np.arange(best.nnz) - best.indptr[row]] = self.catalogue.order[best.indices]
        return ranked

    def _filled(self, ranked: NDArray[np.int32], exclude: Ragged) -> NDArray[np.int32]:
        """With the most popular of the other items in place of -1."""
        k = ranked.shape[1]
        short = np.flatnonzero(ranked[:, -1] < 0)
        row, rank = np.nonzero(ranked >= 0)
        rows, items = np.append(exclude.row_of_value, row), np.append(exclude.values, ranked[row, rank])
        taken = Ragged.from_pairs(rows, items, len(ranked)).take(short)
        popular = FixedOrder(self.catalogue.order, len(short)).recommend(np.arange(len(short)), k, taken)
        place = np.arange(k) - (ranked[short] >= 0).sum(1, keepdims=True)
        ranked[short] = np.where(place < 0, ranked[short], np.take_along_axis(popular, np.maximum(place, 0), axis=1))
        return ranked


def _counts(prepared: Prepared, config: EvaluationConfig) -> dict[str, NDArray[np.int64]]:
    """[N] by baseline: training events of each item."""
    counts = {"popularity": prepared.train_count}
    events = prepared.events
    trained = events.stage == STAGES["train"]
    if events.time is not None and trained.any():
        time = events.time[trained]
        # Of the newest share, the oldest: what happened at the same time counts too.
        oldest = len(time) - int(np.ceil(config.recent * len(time)))
        recent = time >= np.partition(time, oldest)[oldest]
        counts["recent_popularity"] = np.bincount(
            events.item_index[trained][recent], minlength=len(prepared.train_count)
        )
    return counts


def _scorers(prepared: Prepared, config: EvaluationConfig, catalogue: Catalogue) -> dict[str, Scorer]:
    """By baseline."""
    scorers: dict[str, Scorer] = {"item_knn": ItemKNN.fit(_baskets(prepared, catalogue), len(catalogue.order))}
    if config.category is not None:
        scorers["category_in_history"] = CategoryMatch.of(category_ids(prepared, config.category)[catalogue.order])
    return scorers


def _baskets(prepared: Prepared, catalogue: Catalogue) -> Ragged:
    """The newest training positives of each user of the data set."""
    trained = prepared.events.stage == STAGES["train"]
    offsets = np.concatenate([[0], np.cumsum(trained)])[prepared.event_start]
    return _slices(catalogue.number[prepared.events.item_index[trained]], offsets[:-1], offsets[1:])


def _slices(values: NDArray[np.integer], start: NDArray[np.int64], stop: NDArray[np.int64]) -> Ragged:
    """`values[start:stop]` for each of R rows, or the last `HISTORY` of them."""
    return Ragged.from_slices(values, np.maximum(start, stop - HISTORY), stop)


def _times_in_history(histories: Ragged, items: NDArray[np.integer]) -> Scores:
    """[R] how often a history holds the item."""
    row = histories.row_of_value
    return np.bincount(row, histories.values == items[row], minlength=len(histories)).astype(np.float64, copy=False)


def _inverse(order: NDArray[np.integer]) -> NDArray[np.int32]:
    """Where each of 0..N-1 stands in `order`."""
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    return place
