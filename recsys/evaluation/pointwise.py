"""Evaluating predicted probabilities: a ranker's clicks, likes, ratings above a bar."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from recsys.errors import DataError
from recsys.metrics import auc, logloss, normalized_entropy


def evaluate_ranking(labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None) -> dict[str, float]:
    """`auc`, `logloss` (nats), `normalized_entropy` and `base_rate` (weighted share of label 1).

    Args:
        labels: [B] 0 or 1.
        probabilities: [B] of label 1.
        weights: [B], 1 by default.

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
    return {
        "auc": auc(labels, probabilities, weights),
        "logloss": loss,
        "normalized_entropy": normalized_entropy(labels, probabilities, weights),
        "base_rate": rate,
    }
