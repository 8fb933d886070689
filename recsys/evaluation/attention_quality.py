"""How well attention finds the events that tell something of the candidate, as the DARE paper measures it (Feng et al.,
ICLR 2025, arXiv:2410.02604, sections 2.3 and 4.3; code: github.com/thuml/DARE): the learned order of a history's events
against their target-aware mutual information.

Given the target's category, the information of category c at place p of the history is

    I(c, p) = I(X; Y | target's category),    X = [the history holds an event of category c at place p], Y = the label

and a search is as good as the information of what it finds: NDCG of the top K by learned weight, whose gains are the
I(c, p) of the events found, against the best order of the same history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.dataset import CategoricalInfo, Part, SequenceInfo
from recsys.data.prepared import Prepared
from recsys.data.reader import Examples
from recsys.models.ranker import Ranker

PLACES = (1, 2, 3, 4, 5, 6, 8, 11, 16, 26, 51, 101)
"""Where ranges of places begin, counted from the newest event, which has place 1."""
LEAST = 700
"""Training examples of a target category that its information needs, as in DARE's code: fewer are noise."""
_NONE = -1
_ROWS = 512

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CategoryHistories:
    """Examples as attention sees them, by category."""

    targets: Integers
    """[n] category of each target."""
    labels: Floats
    """[n]"""
    events: Integers
    """[n, T] categories of the history's events, oldest first; -1 for padding and for events of no known category."""
    categories: int
    """C: categories are numbered from 0."""
    weights: Floats | None = None
    """[n, T] how much a model heeds each event."""

    @property
    def places(self) -> Integers:
        """[n, T] counted from the newest event, 1; of no meaning where there is no event."""
        indices = np.arange(1, self.events.shape[1] + 1)
        newest = np.where(self.events != _NONE, indices, 0).max(axis=1, initial=0)
        return newest[:, None] - indices + 1


def category_histories(
    prepared: Prepared, part: Part, history: str, category: str, rows: int, model: Ranker | None = None
) -> CategoryHistories:
    """The first `rows` examples of a part, which its files hold in pseudo-random order.

    Args:
        prepared: the data.
        part: which of its parts.
        history: the sequence feature.
        category: a categorical item feature, whether the model reads it or not.
        rows: at most.
        model: whose weights are wanted, if any: a ranker with a sequence layer over `history`.

    Raises:
        ValueError: a feature is not of that kind.
    """
    info, sequence = prepared.info.features[category], prepared.info.features[history]
    if not isinstance(info, CategoricalInfo) or info.max_length is not None or not isinstance(sequence, SequenceInfo):
        raise ValueError(f"{category} is to be one category of an item, and {history} a history")
    of_item = prepared.values(category).astype(np.int64)
    of_id = _by_id(prepared, sequence.of, of_item)
    columns: list[tuple[NDArray, ...]] = []
    for batch in Examples(prepared, part, 1, None).whole(_ROWS):
        ids, weights = batch["query"][history], np.empty(0)
        if model is not None:
            ids = model.embeddings.ids_and_ages([history], batch["query"])[0][history]
            weights = model.looks(batch)["history"].numpy().astype(np.float64)
        found = (of_item[batch["item_index"].numpy()], batch["label"].numpy().astype(np.float64))
        columns.append((*found, of_id[ids.numpy()], weights))
        if sum(len(each[0]) for each in columns) >= rows:
            break
    targets, labels, events, weights = (np.concatenate(each)[:rows] for each in zip(*columns, strict=True))
    return CategoryHistories(targets, labels, events, info.rows, weights if model is not None else None)


def _by_id(prepared: Prepared, feature: str, of_item: Integers) -> Integers:
    """[rows] the category of each id of an item feature; none for missing and OOV, which are many items at once."""
    info = prepared.info.features[feature]
    if not isinstance(info, CategoricalInfo):
        raise ValueError(f"{feature} has no vocabulary")
    found = np.full(info.rows, _NONE, np.int64)
    found[prepared.values(feature)] = of_item
    found[: 1 + info.oov_rows] = _NONE
    return found


@dataclass(frozen=True)
class Information:
    """What the training examples tell of labels, by the target's category."""

    bits: Floats
    """[C, C, P] I(c, p), by the target's category, the event's, and the range of places."""
    examples: Integers
    """[C] training examples by the target's category."""
    starts: tuple[int, ...]
    """[P] the first place of each range; the last range has no end."""

    @classmethod
    def of(cls, histories: CategoryHistories, starts: Sequence[int] = PLACES) -> Information:
        """Counted over these examples, whose labels are 0 or 1.

        Args:
            histories: of the training part.
            starts: where the ranges of places begin, rising from 1; `(1,)` counts whole histories.
        """
        count = histories.categories
        shape = (count, count, len(starts))
        totals = np.stack([np.bincount(histories.targets, histories.labels == y, count) for y in (0, 1)])
        present = np.stack([_present(histories, starts, y).reshape(shape) for y in (0, 1)])
        totals = np.broadcast_to(totals[:, :, None, None], present.shape)
        return cls(
            bits=_information(np.stack([totals - present, present])),
            examples=np.bincount(histories.targets, minlength=count),
            starts=tuple(starts),
        )

    def values(self, histories: CategoryHistories) -> Floats:
        """[n, T] the information of each event of these examples; 0 for padding."""
        target = np.broadcast_to(histories.targets[:, None], histories.events.shape)
        found = self.bits[target, histories.events, _ranges(histories, self.starts)]
        return np.where(histories.events != _NONE, found, 0.0)

    def known(self, histories: CategoryHistories, least: int = LEAST) -> NDArray[np.bool_]:
        """[n] whether at least so many training examples had the target's category."""
        return self.examples[histories.targets] >= least

    def pairs(self) -> Floats:
        """[C, C] by the target's category and the event's, over all ranges of places."""
        return self.bits.sum(axis=2)


def _present(histories: CategoryHistories, starts: Sequence[int], label: int) -> Floats:
    """[C * C * P] examples of this label whose history holds the category in the range, by the target's category."""
    rows = np.flatnonzero(histories.labels == label)
    events, count = histories.events[rows], histories.categories
    inside = _ranges(histories, starts)[rows]
    row = np.broadcast_to(np.arange(len(rows))[:, None], events.shape)
    there = events != _NONE
    keys = np.unique(((row * count + events) * len(starts) + inside)[there])
    row_and_event, place = np.divmod(keys, len(starts))
    row_of_key, event = np.divmod(row_and_event, count)
    target = histories.targets[rows][row_of_key]
    return np.bincount((target * count + event) * len(starts) + place, minlength=count * count * len(starts)).astype(
        np.float64
    )


def _ranges(histories: CategoryHistories, starts: Sequence[int]) -> Integers:
    return np.maximum(np.searchsorted(np.asarray(starts), histories.places, side="right") - 1, 0)


def _information(counts: Floats) -> Floats:
    """[...] mutual information in bits of two binary variables, from counts [2, 2, ...]; 0 where there are none."""
    total = counts.sum(axis=(0, 1))
    joint = counts / np.maximum(total, 1.0)
    independent = joint.sum(axis=0, keepdims=True) * joint.sum(axis=1, keepdims=True)
    ratio = np.divide(joint, independent, out=np.ones_like(joint), where=joint > 0)
    return np.maximum((joint * np.log2(ratio)).sum(axis=(0, 1)), 0.0)


@dataclass(frozen=True)
class SearchQuality:
    """How good a search is on average."""

    ndcg: float
    """1 for the best possible order of each history."""
    random: float
    """What a search at random would have, in expectation."""
    examples: int
    """Those that count: something in the history has a gain."""


def search_quality(weights: Floats, gains: Floats, events: NDArray[np.bool_], k: int = 20) -> SearchQuality:
    """NDCG of the k events with the largest weights, with the gains of what they are.

    Args:
        weights: [n, T] learned; of equal ones the newer come first.
        gains: [n, T] at least 0: information, or 1 for what is known to be relevant.
        events: [n, T] false for padding.
        k: events that are kept.
    """
    kept = min(k, events.shape[1])
    discounts = 1 / np.log2(np.arange(2, kept + 2))
    gains = np.where(events, gains, 0.0)
    best = -np.sort(-gains, axis=1)[:, :kept] @ discounts
    # From the newest on, so that a stable sort keeps the newer of equals before the older.
    order = np.argsort(np.where(events, -weights, np.inf)[:, ::-1], axis=1, kind="stable")[:, :kept]
    found = np.take_along_axis(gains[:, ::-1], order, axis=1) @ discounts
    lengths = events.sum(axis=1)
    shares = np.concatenate([[0.0], np.cumsum(discounts)])[np.minimum(lengths, kept)]
    random = gains.sum(axis=1) / np.maximum(lengths, 1) * shares
    counts = best > 0
    if not counts.any():
        return SearchQuality(float("nan"), float("nan"), 0)
    return SearchQuality(
        ndcg=float((found[counts] / best[counts]).mean()),
        random=float((random[counts] / best[counts]).mean()),
        examples=int(counts.sum()),
    )


def attention_by_pair(histories: CategoryHistories) -> Floats:
    """[C, C] the mean weight of an event, by the target's category and the event's; NaN where no such pair was met.

    Raises:
        ValueError: no model's weights are there.
    """
    if histories.weights is None:
        raise ValueError("these histories were read without a model")
    count, there = histories.categories, histories.events != _NONE
    pair = (histories.targets[:, None] * count + histories.events)[there]
    sums = np.bincount(pair, histories.weights[there], count * count)
    met = np.bincount(pair, minlength=count * count)
    return np.divide(sums, met, out=np.full(count * count, np.nan), where=met > 0).reshape(count, count)
