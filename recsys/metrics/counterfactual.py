"""What another policy would have earned on logged traffic, from the propensities with which it was logged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class OffPolicy:
    """An off-policy estimate of the mean reward."""

    ips: float
    """Inverse propensity score: mean(w r) (Horvitz and Thompson 1952). Unbiased without clipping."""
    snips: float
    """Self-normalised: Σ w r / Σ w (Swaminathan and Joachims 2015). Slightly biased, far less spread."""
    effective_samples: float
    """(Σ w)² / Σ w² (Kish 1965): so many unweighted events would say as much."""
    clipped: float
    """Share of the events whose weight was cut."""
    events: int


def off_policy(
    rewards: ArrayLike, propensities: ArrayLike, target: ArrayLike, *, clip: float | None = None
) -> OffPolicy:
    """Mean reward of a target policy, from events that a logging policy chose.

    Args:
        rewards: [B] what each logged action earned.
        propensities: [B] in (0, 1], probability with which the logging policy chose the logged action.
        target: [B] in [0, 1], probability with which the target policy would choose it.
        clip: the largest weight target / propensity; None leaves them. Clipping trades variance for bias.

    Raises:
        ValueError: a probability is out of range, or the arguments are unsound.
    """
    r, p, q = (np.asarray(x, np.float64) for x in (rewards, propensities, target))
    if r.ndim != 1 or len(r) == 0 or r.shape != p.shape or r.shape != q.shape:
        raise ValueError(f"rewards, propensities and target must be [B] alike, not {r.shape}, {p.shape}, {q.shape}")
    if not np.isfinite(r).all():
        raise ValueError("rewards must be finite")
    if not ((p > 0) & (p <= 1)).all():
        raise ValueError("propensities must lie in (0, 1]: the logging policy could have chosen every logged action")
    if not ((q >= 0) & (q <= 1)).all():
        raise ValueError("the target's probabilities must lie in [0, 1]")
    weights, cut = importance_weights(p, q), importance_weights(p, q, clip=clip)
    total = cut.sum()
    return OffPolicy(
        ips=float((cut * r).mean()),
        snips=float((cut * r).sum() / total) if total > 0 else float("nan"),
        effective_samples=_effective(cut),
        clipped=float((cut < weights).mean()),
        events=len(r),
    )


def importance_weights(propensities: ArrayLike, target: ArrayLike, *, clip: float | None = None) -> NDArray[np.float64]:
    """[B] target / propensity, at most `clip`: what each logged event counts for in an estimate of `off_policy`.

    Raises:
        ValueError: `clip` is not above 0.
    """
    if clip is not None and clip <= 0:
        raise ValueError(f"clip must be above 0, not {clip}")
    weights = np.asarray(target, np.float64) / np.asarray(propensities, np.float64)
    return weights if clip is None else np.minimum(weights, clip)


def _effective(weights: NDArray[np.float64]) -> float:
    squares = float(np.square(weights).sum())
    return float(weights.sum() ** 2 / squares) if squares > 0 else 0.0
