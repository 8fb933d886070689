"""Evaluating predicted probabilities: a ranker's clicks, likes, ratings above a bar."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys.errors import DataError
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
BINS = 20
"""Of the calibration curve."""


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
    found = {
        "auc": auc(labels, probabilities, weights),
        "logloss": loss,
        "normalized_entropy": normalized_entropy(labels, probabilities, weights),
        "ece": calibration(labels, probabilities, weights, bins=BINS).ece,
        "base_rate": rate,
    }
    if users is not None and not np.isnan(auc_by_group(labels, probabilities, users)[0]).all():
        found["gauc"] = gauc(labels, probabilities, users)
    return found


def user_values(
    labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike, users: NDArray[np.integer]
) -> tuple[NDArray[np.integer], dict[str, Values], dict[str, Values]]:
    """What `Evidence` holds of predicted probabilities, as means over users.

    Returns:
        [U] users, ascending; for each of `auc`, `logloss`, `normalized_entropy` and `gauc` a value and a weight [U],
        so that Σ w x / Σ w is the metric.

    Raises:
        ValueError: as the metrics do.
    """
    w = np.asarray(weights, np.float64)
    known, user = np.unique(users, return_inverse=True)
    weight = np.bincount(user, w)
    share = np.divide(1.0, weight, out=np.zeros_like(weight), where=weight > 0)
    pull = np.bincount(user, auc_influence(labels, probabilities, w)) * w.mean() * share
    losses = np.bincount(user, w * pointwise_logloss(labels, probabilities)) * share
    inside, sizes = auc_by_group(labels, probabilities, user)
    values = {
        "auc": auc(labels, probabilities, w) + pull,
        "logloss": losses,
        "normalized_entropy": losses
        * (normalized_entropy(labels, probabilities, w) / np.average(losses, weights=weight)),
        "gauc": inside,
    }
    return (
        known,
        values,
        {
            "auc": weight,
            "logloss": weight,
            "normalized_entropy": weight,
            "gauc": np.where(np.isnan(inside), 0.0, sizes),
        },
    )
