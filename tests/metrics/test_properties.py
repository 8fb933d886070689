"""What must hold of a metric on any data."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys import metrics
from recsys.metrics import auc, auc_by_group, auc_influence, calibration, gauc, hits, logloss, normalized_entropy
from recsys.ragged import Ragged

seeds = st.integers(0, 2**32 - 1)
RANKING = {
    "recall": metrics.recall_at_k,
    "precision": metrics.precision_at_k,
    "hit_rate": metrics.hit_rate_at_k,
    "ndcg": metrics.ndcg_at_k,
    "mrr": metrics.mrr_at_k,
    "map": metrics.map_at_k,
}
Weighted = Callable[[NDArray, NDArray, NDArray | None], float]
WEIGHTED: dict[str, Weighted] = {
    "auc": auc,
    "logloss": logloss,
    "normalized_entropy": normalized_entropy,
    "ece": lambda y, p, w: calibration(y, p, w, bins=4, strategy="uniform").ece,
    "curve": lambda y, p, w: float(calibration(y, p, w, bins=4, strategy="uniform").observed @ [1, 2, 3, 4]),
}
close = {"rel": 0, "abs": 1e-12}


def rankings(seed: int, items: int = 20, longest: int = 8) -> tuple[NDArray, Ragged]:
    """[5, longest] rankings, some of them short, and what is relevant."""
    rng = np.random.default_rng(seed)
    ranked = np.argsort(rng.random((5, items)), axis=1)[:, :longest]
    ranked = np.where(np.arange(longest) < rng.integers(1, longest + 1, (5, 1)), ranked, -1)
    relevant = [rng.permutation(items)[: rng.integers(1, 12)] for _ in range(5)]
    return ranked, Ragged.from_lists(relevant)


def examples(seed: int, count: int = 30) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Labels of both kinds, probabilities with ties in every quarter, integer weights, groups."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([[0, 1, 0, 1], rng.integers(0, 2, count - 4)])
    probabilities = np.concatenate([[0.125, 0.375, 0.625, 0.875], rng.integers(1, 32, count - 4) / 32])
    weights = rng.integers(0, 4, count)
    weights[:4] = rng.integers(1, 4, 4)
    return labels, probabilities, weights, np.concatenate([[0, 0, 1, 1], rng.integers(0, 5, count - 4)])


@given(seeds)
def test_recall_and_hits_grow_with_k(seed: int) -> None:
    ranked, relevant = rankings(seed)
    found = hits(ranked, relevant)
    for name in ("recall", "hit_rate", "mrr"):
        values = np.stack([RANKING[name](found, relevant.lengths, k) for k in range(1, 9)])
        assert (np.diff(values, axis=0) >= 0).all(), name


@given(seeds, st.integers(1, 8))
def test_names_of_items_and_order_of_queries_do_not_matter(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    ranked, relevant = rankings(seed)
    new, order = rng.permutation(20), rng.permutation(5)
    renamed = np.where(ranked >= 0, new[np.maximum(ranked, 0)], -1)
    relabelled = Ragged(new[relevant.values], relevant.offsets)
    for name, function in RANKING.items():
        expected = function(hits(ranked, relevant), relevant.lengths, k)
        np.testing.assert_array_equal(function(hits(renamed, relabelled), relevant.lengths, k), expected, name)
        moved = relevant.take(order)
        np.testing.assert_array_equal(function(hits(ranked[order], moved), moved.lengths, k), expected[order], name)


@given(st.integers(1, 12), st.integers(1, 8))
def test_the_best_ranking_has_all_there_is(relevant: int, k: int) -> None:
    best = np.arange(8)[None] < relevant
    count = np.array([relevant])
    for name in ("hit_rate", "ndcg", "mrr", "map"):
        assert RANKING[name](best, count, k)[0] == pytest.approx(1, **close), name
    assert metrics.recall_at_k(best, count, k)[0] == pytest.approx(min(relevant, k) / relevant, **close)
    assert metrics.precision_at_k(best, count, k)[0] == pytest.approx(min(relevant, k) / k, **close)


@given(seeds, st.integers(1, 6))
def test_graded_ndcg_rewards_gain_further_up(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    ideal = -np.sort(-np.append(rng.random(5), 1.0))[None]
    gains = rng.permutation(ideal[0])[None]
    value = metrics.graded_ndcg_at_k(gains, ideal, k)[0]
    assert 0 <= value <= 1 + 1e-12
    assert metrics.graded_ndcg_at_k(ideal, ideal, k)[0] == pytest.approx(1, **close)
    assert metrics.graded_ndcg_at_k(7 * gains, 7 * ideal, k)[0] == pytest.approx(value, **close)
    low, high = np.sort(rng.choice(6, 2, replace=False))
    if gains[0, low] < gains[0, high]:
        gains[0, [low, high]] = gains[0, [high, low]]
        assert metrics.graded_ndcg_at_k(gains, ideal, k)[0] >= value


@pytest.mark.parametrize("name", WEIGHTED)
@given(seed=seeds)
def test_a_weight_is_that_many_examples(name: str, seed: int) -> None:
    """So an example of weight 0 is not there, and the unit of the weights is of no matter."""
    metric = WEIGHTED[name]
    labels, probabilities, weights, _ = examples(seed)
    expected = metric(np.repeat(labels, weights), np.repeat(probabilities, weights), None)
    assert metric(labels, probabilities, weights) == pytest.approx(expected, **close)
    assert metric(labels, probabilities, 0.37 * weights) == pytest.approx(expected, **close)


@pytest.mark.parametrize("name", WEIGHTED)
@given(seed=seeds)
def test_the_order_of_examples_does_not_matter(name: str, seed: int) -> None:
    labels, probabilities, weights, _ = examples(seed)
    order = np.random.default_rng(seed).permutation(len(labels))
    expected = WEIGHTED[name](labels, probabilities, weights)
    assert WEIGHTED[name](labels[order], probabilities[order], weights[order]) == pytest.approx(expected, **close)


@given(seeds)
def test_auc_and_gauc_see_order_only(seed: int) -> None:
    labels, scores, weights, groups = examples(seed)
    for monotone in (np.exp(3 * scores), np.log(scores), 7 * scores - 100, np.sqrt(scores)):
        assert auc(labels, monotone, weights) == auc(labels, scores, weights)
        assert gauc(labels, monotone, groups) == gauc(labels, scores, groups)
    assert 0 <= auc(labels, scores, weights) <= 1
    assert 0 <= gauc(labels, scores, groups) <= 1
    assert auc(labels, labels, weights) == 1
    assert gauc(labels, labels, groups) == 1
    assert auc(labels, np.zeros(30)) == 0.5
    # What the other class's probability says of the other class.
    assert auc(1 - labels, -scores, weights) == pytest.approx(auc(labels, scores, weights), **close)
    assert gauc(1 - labels, -scores, groups) == pytest.approx(gauc(labels, scores, groups), **close)


@given(seeds)
def test_gauc_compares_inside_groups_only(seed: int) -> None:
    labels, scores, _, groups = examples(seed)
    expected = gauc(labels, scores, groups)
    shift = np.random.default_rng(seed).normal(size=5)
    assert gauc(labels, scores + 100 * np.round(shift)[groups], groups) == pytest.approx(expected, **close)
    assert gauc(labels, scores, 7 - groups) == pytest.approx(
        expected, **close
    )  # numbers without examples are no groups
    assert gauc(labels, scores, np.zeros(30, int)) == pytest.approx(auc(labels, scores), **close)
    values, sizes = auc_by_group(labels, scores, groups)
    assert sizes.sum() == 30
    assert np.nanmin(values) - 1e-12 <= expected <= np.nanmax(values) + 1e-12


@given(seeds)
def test_influence_is_the_change_that_a_little_weight_makes(seed: int) -> None:
    labels, scores, weights, _ = examples(seed)
    weights = weights + 1.0
    influence = auc_influence(labels, scores, weights)
    assert influence.mean() == pytest.approx(0, abs=1e-12)
    step = 1e-6 * weights.sum()
    for at in (0, 1, 17):
        more = weights.copy()
        more[at] += step
        slope = (auc(labels, scores, more) - auc(labels, scores, weights)) / 1e-6
        assert slope == pytest.approx(influence[at] * weights.mean() / weights[at], abs=1e-4)


@given(seeds, st.floats(0.01, 0.99))
def test_nobody_beats_the_base_rate_with_one_number(seed: int, constant: float) -> None:
    labels, probabilities, weights, _ = examples(seed)
    rate = np.average(labels, weights=weights)
    entropy = -rate * math.log(rate) - (1 - rate) * math.log(1 - rate)
    assert logloss(labels, np.full(30, constant), weights) >= entropy - 1e-12
    assert logloss(labels, np.full(30, rate), weights) == pytest.approx(entropy, **close)
    assert logloss(labels, probabilities, weights) > 0
    for metric in (logloss, normalized_entropy):
        mirrored = metric(1 - labels, 1 - probabilities, weights)
        assert mirrored == pytest.approx(metric(labels, probabilities, weights), **close)


@given(seeds, st.integers(1, 12), st.sampled_from(["quantile", "uniform"]))
def test_calibration_error_has_bounds(seed: int, bins: int, strategy: str) -> None:
    """Between the error of the mean, which is one bin's, and the mean absolute error."""
    labels, p, w, _ = examples(seed)
    curve = calibration(labels, p, w, bins=bins, strategy=strategy)  # type: ignore[arg-type]
    assert len(curve.weight) <= bins
    assert (np.diff(curve.predicted) > 0).all()
    assert curve.weight.sum() == w.sum()
    assert abs(np.average(labels - p, weights=w)) - 1e-12 <= curve.ece
    assert curve.ece <= np.average(np.abs(labels - p), weights=w) + 1e-12
    one = calibration(labels, p, w, bins=1, strategy=strategy).ece  # type: ignore[arg-type]
    assert one == pytest.approx(abs(np.average(labels - p, weights=w)), **close)
    assert calibration(labels, labels.astype(float), w, bins=bins).ece == 0


@given(seeds)
def test_gini_has_no_unit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    exposure = np.append(rng.integers(0, 9, 20), 1)
    value = metrics.gini(exposure)
    assert 0 <= value < 1
    assert metrics.gini(3.7 * exposure) == pytest.approx(value, **close)
    assert metrics.gini(rng.permutation(exposure)) == pytest.approx(value, **close)
    assert metrics.gini(np.tile(exposure, 3)) == pytest.approx(value, **close)
    # To take from the poor and give to the rich is less equal, to add the same to all is more.
    richer = np.sort(exposure).astype(float)
    richer[[0, -1]] += [-richer[0], richer[0] + 1]
    assert metrics.gini(richer) > value
    assert metrics.gini(exposure + 5) <= value


@given(seeds)
def test_beyond_accuracy_has_bounds_and_knows_no_names(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ranked, _ = rankings(seed)
    new = rng.permutation(20)
    renamed = np.where(ranked >= 0, new[np.maximum(ranked, 0)], -1)
    assert 0 < metrics.coverage(ranked, 20) <= 1
    assert metrics.coverage(renamed, 20) == metrics.coverage(ranked, 20)
    vectors, moved = rng.normal(size=(20, 3)), np.empty((20, 3))
    moved[new] = vectors
    diversity = metrics.intra_list_diversity(ranked, vectors)
    np.testing.assert_allclose(metrics.intra_list_diversity(renamed, 5 * moved), diversity, atol=1e-12)
    known = diversity[~np.isnan(diversity)]
    assert ((known >= -1e-12) & (known <= 2 + 1e-12)).all()
    shares = rng.dirichlet(np.ones(4), (2, 5))
    found = metrics.category_miscalibration(*shares)
    assert (found >= -1e-12).all()
    order = rng.permutation(4)
    np.testing.assert_allclose(metrics.category_miscalibration(*shares[..., order]), found, atol=1e-12)
    np.testing.assert_allclose(metrics.category_miscalibration(shares[0], shares[0]), 0, atol=1e-12)


@given(seeds)
def test_clipping_never_adds_to_what_a_policy_earns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rewards, propensities, target = rng.random(20), rng.uniform(0.05, 1, 20), rng.uniform(0.01, 1, 20)
    free = metrics.off_policy(rewards, propensities, target)
    clipped = [metrics.off_policy(rewards, propensities, target, clip=clip) for clip in (0.5, 1.0, 4.0)]
    assert np.all(np.diff([each.ips for each in [*clipped, free]]) >= 0)
    for each in (*clipped, free):
        assert rewards.min() - 1e-12 <= each.snips <= rewards.max() + 1e-12
        assert 1 - 1e-12 <= each.effective_samples <= 20 + 1e-9
    assert metrics.off_policy(np.full(20, 0.3), propensities, target).snips == pytest.approx(0.3, **close)
