"""Metrics of predicted probabilities (or, for AUC, of any score) against binary labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Vector = NDArray[np.float64]
TINIEST = float(np.finfo(np.float32).eps)
"""Probabilities are kept this far from 0 and 1: what a float32 sigmoid can tell from 1."""


def _checked(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None) -> tuple[Vector, Vector, Vector]:
    y, s = np.asarray(labels, np.float64), np.asarray(scores, np.float64)
    w = np.ones_like(y) if weights is None else np.asarray(weights, np.float64)
    if y.ndim != 1 or y.shape != s.shape or y.shape != w.shape:
        raise ValueError(f"labels, scores and weights must be [B] alike, not {y.shape}, {s.shape}, {w.shape}")
    if not np.isin(y, (0.0, 1.0)).all():
        raise ValueError("labels must be 0 or 1")
    if np.isnan(s).any():
        raise ValueError(f"{np.isnan(s).sum()} scores are NaN")
    if not np.isfinite(w).all() or np.any(w < 0) or w.sum() == 0:
        raise ValueError("weights must be finite, not negative, and not all 0")
    return y, s, w


def auc(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Probability that a positive scores above a negative, ties counting one half; pairs weigh w_i w_j.

    Args:
        labels: [B] 0 or 1.
        scores: [B] in any unit.
        weights: [B], 1 by default.

    Raises:
        ValueError: only one class has weight, for which AUC is not defined, or the arguments are unsound.

    >>> auc([1, 0, 1, 0], [0.9, 0.5, 0.5, 0.1])
    0.875
    """
    y, s, w = _checked(labels, scores, weights)
    _, group = np.unique(s, return_inverse=True)
    positive, negative = np.bincount(group, w * y), np.bincount(group, w * (1 - y))
    pairs = positive.sum() * negative.sum()
    if pairs == 0:
        raise ValueError("all labels are the same: AUC needs positives and negatives")
    below = np.cumsum(negative) - negative
    return float(positive @ (below + negative / 2) / pairs)


def logloss(labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Weighted mean of -log p(label), in nats; probabilities are clipped to [TINIEST, 1 - TINIEST].

    Args:
        labels: [B] 0 or 1.
        probabilities: [B] of label 1, in [0, 1].
        weights: [B], 1 by default.

    Raises:
        ValueError: a probability is outside [0, 1], or the arguments are unsound.
    """
    y, p, w = _checked(labels, probabilities, weights)
    if np.any((p < 0) | (p > 1)):
        raise ValueError(f"probabilities must lie in [0, 1], not {p.min():g} to {p.max():g}: are they logits?")
    p = np.clip(p, TINIEST, 1 - TINIEST)
    return float(np.average(-y * np.log(p) - (1 - y) * np.log1p(-p), weights=w))


def normalized_entropy(labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Logloss over that of always predicting the base rate: below 1 is better than knowing nothing (He et al., 2014).

    Raises:
        ValueError: as `auc` and `logloss` do.
    """
    y, _, w = _checked(labels, probabilities, weights)
    rate = float(np.average(y, weights=w))
    if rate in (0.0, 1.0):
        raise ValueError("all labels are the same: the base rate's entropy is 0")
    entropy = -rate * np.log(rate) - (1 - rate) * np.log1p(-rate)
    return logloss(labels, probabilities, weights) / entropy
