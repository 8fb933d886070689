"""Evaluating predicted probabilities: a ranker's clicks, likes, ratings above a bar."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys.errors import DataError
from recsys.evaluation.evidence import Evidence
from recsys.metrics import (
    auc,
    auc_by_group,
    auc_influence,
    calibration,
    gauc,
    logloss,
    normalized_entropy,
    pointwise_logloss,
)

Values = NDArray[np.float64]
BLOCKS = 20_000
"""Enough for intervals by formula, in most slices too."""
BINS = 20
"""Of the calibration curve."""


@dataclass(frozen=True)
class Examples:
    """Examples to be scored.

    Attributes:
        labels: [n] 0 or 1.
        weights: [n]
        users: [n] each one's user, a number from 0; where the log names none, its block (`blocks_of`).
        in_blocks: whether they are blocks; then there is no gauc.
    """

    labels: Values
    weights: Values
    users: NDArray[np.integer]
    in_blocks: bool = False

    def take(self, chosen: NDArray[np.bool_]) -> Examples:
        """Those `chosen` [n]."""
        return Examples(self.labels[chosen], self.weights[chosen], self.users[chosen], self.in_blocks)

    @property
    def named_users(self) -> NDArray[np.integer] | None:
        """`users`, if they are users."""
        return None if self.in_blocks else self.users

    @property
    def base_rate(self) -> float:
        """Weighted share of label 1."""
        return float(np.average(self.labels, weights=self.weights))

    @property
    def one_class(self) -> bool:
        """Whether all labels that weigh anything are the same: then only logloss is defined."""
        return self.base_rate in (0.0, 1.0)


def blocks_of(examples: int) -> NDArray[np.int64]:
    """[n] the block of each example: `BLOCKS` alike, or each its own, in the order of the part's files, which is
    pseudo-random. Sums over blocks vary as the examples do, if those are independent, and there are few of them.
    """
    return np.arange(examples) * min(examples, BLOCKS) // max(examples, 1)


def evaluate_ranking(
    labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None, users: ArrayLike | None = None
) -> dict[str, float]:
    """`auc`, `logloss` (nats), `normalized_entropy`, `ece`, `base_rate` (weighted share of label 1), by user `gauc`.

    Args:
        labels: [B] 0 or 1.
        probabilities: [B] of label 1.
        weights: [B], 1 by default.
        users: [B] numbers from 0; `gauc` is left out without them, or where no user has both labels.

    Raises:
        DataError: all labels are the same.
        ValueError: the arguments are unsound (`recsys.metrics.logloss`).
    """
    loss = logloss(labels, probabilities, weights)
    shares = None if weights is None else np.asarray(weights, np.float64)
    rate = float(np.average(np.asarray(labels, np.float64), weights=shares))
    if rate in (0.0, 1.0):
        raise DataError(
            "labels",
            f"all {np.size(labels)} examples have label {rate:g}",
            "both positives and negatives",
            "set data.negatives, or evaluate a larger part",
        )
    return evaluate_order(labels, probabilities, weights, users) | {
        "logloss": loss,
        "normalized_entropy": normalized_entropy(labels, probabilities, weights),
        "ece": calibration(labels, probabilities, weights, bins=BINS).ece,
        "base_rate": rate,
    }


def evaluate_order(
    labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None, users: ArrayLike | None = None
) -> dict[str, float]:
    """`auc` and, by user, `gauc` of scores that are no probabilities; arguments as for `evaluate_ranking`.

    Raises:
        ValueError: all labels are the same, or the arguments are unsound.
    """
    found = {"auc": auc(labels, scores, weights)}
    if users is not None and not np.isnan(auc_by_group(labels, scores, users)[0]).all():
        found["gauc"] = gauc(labels, scores, users)
    return found


@dataclass(frozen=True)
class UserValues:
    """Metrics of examples as means over users, Σ w x / Σ w."""

    users: NDArray[np.integer]
    """[U] ascending."""
    values: dict[str, Values]
    weights: dict[str, Values]

    def evidence(self, names: NDArray[np.str_]) -> Evidence:
        """With the users' names [U of the data set]."""
        return Evidence(names[self.users], self.values, self.weights)


def user_values(examples: Examples, scores: ArrayLike, *, probabilities: bool = True) -> UserValues:
    """`auc` and `gauc` of any scores, of probabilities `logloss` and `normalized_entropy`, as means over users.

    Where all labels are the same that is `logloss` alone.

    Raises:
        ValueError: as the metrics do.
    """
    y, w = examples.labels, examples.weights
    known, user = np.unique(examples.users, return_inverse=True)
    weight = _sums(user, w)
    share = np.divide(1.0, weight, out=np.zeros_like(weight), where=weight > 0)
    values, weights = dict[str, Values](), dict[str, Values]()
    if not examples.one_class:
        pull = _sums(user, auc_influence(y, scores, w)) * w.mean() * share
        values["auc"], weights["auc"] = auc(y, scores, w) + pull, weight
        inside, sizes = (np.empty(0), weight) if examples.in_blocks else auc_by_group(y, scores, user)
        if not np.isnan(inside).all():
            values["gauc"], weights["gauc"] = inside, np.where(np.isnan(inside), 0.0, sizes)
    if probabilities:
        losses = _sums(user, w * pointwise_logloss(y, scores)) * share
        values["logloss"], weights["logloss"] = losses, weight
        if not examples.one_class:
            scale = normalized_entropy(y, scores, w) / np.average(losses, weights=weight)
            values["normalized_entropy"], weights["normalized_entropy"] = losses * scale, weight
    return UserValues(known, values, weights)


def _sums(groups: NDArray[np.integer], values: Values) -> Values:
    return np.bincount(groups, values).astype(np.float64, copy=False)
