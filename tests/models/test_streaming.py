"""AUC and logloss while training: near the exact ones, and how near."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from recsys.metrics import logloss
from recsys.models.streaming import BINS, REACH, StreamingRanking

WIDTH = 2 * REACH / BINS


def streamed(labels: np.ndarray, logits: np.ndarray, weights: np.ndarray, batch: int = 97) -> dict[str, float]:
    metric = StreamingRanking()
    for start in range(0, len(labels), batch):
        part = slice(start, start + batch)
        metric.update_state(labels[part], logits[part].astype(np.float32), weights[part])
    return {name: float(value) for name, value in metric.result().items()}


def pairs_in_one_bin(labels: np.ndarray, logits: np.ndarray, weights: np.ndarray) -> float:
    """The share of pairs, by a second way of binning."""
    edges = np.linspace(-REACH, REACH, BINS + 1)[1:-1]
    place = np.searchsorted(edges, logits.astype(np.float32), side="right")
    positive, negative = (np.bincount(place, weights * share, minlength=BINS) for share in (labels, 1 - labels))
    return float(positive @ negative / (positive.sum() * negative.sum()))


@pytest.mark.parametrize("spread", [0.01, 0.3, 1.0, 4.0])
def test_within_its_bound_of_scikit_learn(spread: float) -> None:
    rng = np.random.default_rng(3)
    labels = (rng.random(20_000) < 0.2).astype(float)
    logits = (spread * (rng.normal(size=20_000) + labels)).astype(np.float32)
    weights = rng.exponential(size=20_000)
    found = streamed(labels, logits, weights)
    exact = roc_auc_score(labels, logits, sample_weight=weights)
    bound = pairs_in_one_bin(labels, logits, weights) / 2
    assert abs(found["auc"] - exact) <= bound + 1e-9
    if spread >= 1:
        assert bound < 0.0023, "what docs/metrics.md says"
        assert found["auc"] == pytest.approx(exact, abs=1e-4)
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    assert found["logloss"] == pytest.approx(log_loss(labels, probabilities, sample_weight=weights), rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(-1100, 1100), st.integers(0, 5)), min_size=1, max_size=60))
def test_the_middles_of_bins_are_told_apart_exactly(found: list[tuple[bool, int, int]]) -> None:
    """Ties, logits beyond the reach, weights of 0, one class: then AUC is NaN and logloss still there."""
    labels, at, weights = (np.array(each, float) for each in zip(*found, strict=True))
    logits = (at + 0.5) * WIDTH
    result = streamed(labels, logits, weights, batch=7)
    if weights.sum() == 0:
        assert np.isnan(list(result.values())).all()
        return
    shown = np.clip(logits.astype(np.float32).astype(np.float64), -REACH, REACH)
    assert result["logloss"] == pytest.approx(logloss(labels, 1 / (1 + np.exp(-shown)), weights), rel=1e-6, abs=1e-6)
    kept = weights > 0
    if len(set(labels[kept])) < 2:
        assert np.isnan(result["auc"])
        return
    near = np.clip(at[kept], -BINS // 2, BINS // 2 - 1)
    exact = roc_auc_score(labels[kept], near, sample_weight=weights[kept])
    assert result["auc"] == pytest.approx(exact, abs=1e-12)


def test_by_hand() -> None:
    """Pairs: 2 > -1 wins, 2 > 0.001 wins, 0.002 and 0.001 share a bin: half, 0.002 > -1 wins; weights 1."""
    labels, logits = np.array([1.0, 0.0, 1.0, 0.0]), np.array([2.0, 0.001, 0.002, -1.0])
    assert streamed(labels, logits, np.ones(4), batch=1)["auc"] == 3.5 / 4


def test_an_epoch_starts_from_nothing_and_what_is_no_number_harms_nobody() -> None:
    metric = StreamingRanking()
    metric.update_state([1.0, 0.0], [np.nan, np.inf], [1.0, 1.0])
    assert np.isnan(float(metric.result()["logloss"]))
    metric.reset_state()
    metric.update_state([1.0, 0.0], [1.0, 0.0], [1.0, 1.0])
    assert float(metric.result()["auc"]) == 1.0
    assert float(metric.result()["logloss"]) == pytest.approx((np.log(2) + np.log1p(np.exp(-1.0))) / 2)
