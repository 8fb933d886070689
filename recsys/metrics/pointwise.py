"""Metrics of predicted probabilities (or, for AUC, of any score) against binary labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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


def rela_impr(auc: float, base: float) -> float:
    """Relative improvement of an AUC over that of a base model, both counted from 1/2 (RelaImpr, Zhou et al. 2018).

    Raises:
        ValueError: one is outside [0, 1], or the base is not above 1/2.

    >>> round(rela_impr(0.8818, 0.8624), 4)
    0.0535
    """
    if not (0 <= auc <= 1 and 0.5 < base <= 1):
        raise ValueError(f"AUC must lie in [0, 1] and the base's above 0.5, not {auc:g} and {base:g}")
    return (auc - 0.5) / (base - 0.5) - 1


def pointwise_logloss(labels: ArrayLike, probabilities: ArrayLike) -> Vector:
    """[B] -log p(label) of each example, in nats; probabilities are clipped to [TINIEST, 1 - TINIEST].

    Args:
        labels: [B] 0 or 1.
        probabilities: [B] of label 1, in [0, 1].

    Raises:
        ValueError: a probability is outside [0, 1], or the arguments are unsound.
    """
    y, p, _ = _checked(labels, probabilities, None)
    if np.any((p < 0) | (p > 1)):
        raise ValueError(f"probabilities must lie in [0, 1], not {p.min():g} to {p.max():g}: are they logits?")
    p = np.clip(p, TINIEST, 1 - TINIEST)
    return -y * np.log(p) - (1 - y) * np.log1p(-p)


def logloss(labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Weighted mean of `pointwise_logloss`.

    Args:
        labels: [B] 0 or 1.
        probabilities: [B] of label 1, in [0, 1].
        weights: [B], 1 by default.

    Raises:
        ValueError: a probability is outside [0, 1], or the arguments are unsound.
    """
    _, _, w = _checked(labels, probabilities, weights)
    return float(np.average(pointwise_logloss(labels, probabilities), weights=w))


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
    return float(logloss(labels, probabilities, weights) / entropy)


def auc_by_group(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike) -> tuple[Vector, NDArray[np.int64]]:
    """AUC inside each group, and how many examples the group has; groups are numbered 0 .. G - 1.

    Args:
        labels: [B] 0 or 1.
        scores: [B] in any unit.
        groups: [B] the group (user, request) of each example.

    Returns:
        [G] AUC, ties counting one half, NaN where a group's labels are all the same; [G] examples.

    >>> auc_by_group([1, 0, 0, 1], [0.5, 0.5, 0.1, 0.2], [0, 0, 1, 2])[0].tolist()
    [0.5, nan, nan]
    """
    y, s, _ = _checked(labels, scores, None)
    g = np.asarray(groups)
    if g.shape != y.shape or not np.issubdtype(g.dtype, np.integer) or (len(g) and g.min() < 0):
        raise ValueError(f"groups must be [B] numbers from 0, not {g.dtype} {g.shape}")
    count = int(g.max()) + 1 if len(g) else 0
    sizes = np.bincount(g, minlength=count)
    # Ranks inside the group, those of tied scores averaged: AUC is the positives' ranks' (Mann and Whitney 1947).
    order = np.lexsort((s, g))
    sorted_groups, sorted_scores = g[order], s[order]
    new = (np.diff(sorted_groups) != 0) | (np.diff(sorted_scores) != 0)
    first = np.flatnonzero(np.concatenate([[len(y) > 0], new]))
    tied = np.diff(first, append=len(y))
    before = (np.cumsum(sizes) - sizes)[sorted_groups[first]]
    ranks = np.repeat(first - before + (tied + 1) / 2, tied)
    positive = np.bincount(g, y, minlength=count)
    negative = sizes - positive
    rank_sums = np.bincount(sorted_groups, ranks * y[order], minlength=count)
    pairs = positive * negative
    wins = rank_sums - positive * (positive + 1) / 2
    return np.divide(wins, pairs, out=np.full(count, np.nan), where=pairs > 0), sizes


def gauc(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike) -> float:
    """AUC inside each group, averaged with the group's examples as weight (Zhu et al. 2017, impression-weighted).

    Groups whose labels are all the same are left out.

    Raises:
        ValueError: no group has both labels, or the arguments are unsound.
    """
    values, sizes = auc_by_group(labels, scores, groups)
    both = ~np.isnan(values)
    if not both.any():
        raise ValueError("no group has positives and negatives: GAUC is not defined")
    return float(np.average(values[both], weights=sizes[both]))


def auc_influence(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> Vector:
    """[B] each example's pull on AUC: AUC + mean(influence) is AUC, and its spread over users is AUC's (DeLong 1988).

    A positive's is (share of negatives that it beats - AUC) / share of positives, a negative's likewise, so that sums
    over a user's examples stand for the user in a bootstrap. With weights, shares are of weight.
    """
    y, s, w = _checked(labels, scores, weights)
    value = auc(y, s, w)
    _, group = np.unique(s, return_inverse=True)
    positive, negative = np.bincount(group, w * y), np.bincount(group, w * (1 - y))
    negatives_below = (np.cumsum(negative) - negative / 2) / negative.sum()
    positives_above = 1 - (np.cumsum(positive) - positive / 2) / positive.sum()
    beaten = np.where(y == 1, negatives_below[group], positives_above[group])
    share = np.where(y == 1, positive.sum(), negative.sum()) / w.sum()
    return w / w.mean() * (beaten - value) / share


@dataclass(frozen=True)
class Calibration:
    """A calibration curve: bins of predictions, rising."""

    predicted: Vector
    """[N] weighted mean prediction of each bin."""
    observed: Vector
    """[N] weighted share of label 1."""
    weight: Vector
    """[N] weight of the bin's examples."""

    @property
    def ece(self) -> float:
        """Expected calibration error: Σ weight |observed - predicted| (Naeini et al. 2015)."""
        return float(np.average(np.abs(self.observed - self.predicted), weights=self.weight))


def calibration(
    labels: ArrayLike,
    probabilities: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    bins: int = 10,
    strategy: Literal["quantile", "uniform"] = "quantile",
) -> Calibration:
    """Predictions in bins beside what came of them; empty bins are left out.

    Args:
        labels: [B] 0 or 1.
        probabilities: [B] of label 1.
        weights: [B], 1 by default.
        bins: at most so many.
        strategy: bins of equal width over [0, 1], or with equally many examples (ties stay together).

    Raises:
        ValueError: a probability is outside [0, 1], or the arguments are unsound.
    """
    y, p, w = _checked(labels, probabilities, weights)
    if np.any((p < 0) | (p > 1)):
        raise ValueError(f"probabilities must lie in [0, 1], not {p.min():g} to {p.max():g}: are they logits?")
    if strategy == "uniform":
        edges = np.linspace(0, 1, bins + 1)[1:-1]
    else:
        edges = np.unique(np.quantile(p, np.linspace(0, 1, bins + 1)[1:-1]))
    place = np.searchsorted(edges, p, side="right")
    weight = np.bincount(place, w, minlength=len(edges) + 1).astype(np.float64)
    used = weight > 0
    predicted, observed = (np.bincount(place, w * x, minlength=len(edges) + 1)[used] / weight[used] for x in (p, y))
    return Calibration(predicted, observed, weight[used])
