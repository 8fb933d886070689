"""Intervals of metrics that hardly any user has."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.metrics import bootstrap_interval
from recsys.metrics.sparse_intervals import are_sparse, sparse_interval


def test_equal_pulls_are_garwood_s_poisson_bounds() -> None:
    """Three events: 0.6187 to 8.7673 (Garwood 1936)."""
    assert sparse_interval(np.full(3, 0.5), 0.95, signed=False) == pytest.approx((0.5 * 0.6187, 0.5 * 8.7673), rel=1e-4)


def test_a_few_hits_among_many_users_give_an_interval_of_their_size() -> None:
    """Five of 1,500 users: the bootstrap's end would be the greatest value of any user."""
    values = np.zeros(1_500)
    values[:5] = [1.0, 0.5, 0.5, 0.4, 0.3]
    found = bootstrap_interval(values)
    assert found.estimate == pytest.approx(2.7 / 1_500)
    assert 0 < found.low < found.estimate < found.high < 4 * found.estimate


def test_differences_of_few_users_do_not_exclude_0_for_want_of_losers() -> None:
    """Three users who gain and none who loses are no wonder: one of four such samples is one-sided."""
    values = np.zeros(1_000)
    values[:3] = 0.5
    assert bootstrap_interval(values).low > 0
    differences = bootstrap_interval(values, signed=True)
    assert differences.low < 0 < differences.high
    opposite = bootstrap_interval(-values, signed=True)
    assert (opposite.low, opposite.high) == pytest.approx((-differences.high, -differences.low))


def test_weights_are_those_of_a_ratio() -> None:
    values, weights = np.zeros(1_000), np.ones(1_000)
    values[:4], weights[:4] = 1.0, 2.0
    found = bootstrap_interval(values, weights)
    low, high = sparse_interval(np.full(4, 2 / 1_004), 0.95, signed=False)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.estimate == pytest.approx(8 / 1_004)


def test_who_is_sparse() -> None:
    values = np.zeros((300, 5))
    values[:1, 1], values[:19, 2], values[:20, 3] = 1, -1, 1
    values[:, 4] = 0.1
    assert are_sparse(values).tolist() == [False, True, True, False, False]
    assert not are_sparse(values[:100]).tolist()[2]  # 19 of 100 are not rare


@pytest.mark.parametrize("signed", [False, True])
def test_they_hold_the_truth(signed: bool) -> None:
    """6 of many users on average, with gains (and losses) of random size."""
    rng = np.random.default_rng(0)
    held = []
    for _ in range(1_000):
        count = rng.poisson(6)
        if count:
            pulls = rng.random(count) * (rng.choice([-1.0, 1.0], count) if signed else 1.0)
            low, high = sparse_interval(pulls, 0.95, signed)
            held.append(low <= (0.0 if signed else 3.0) <= high)
    assert np.mean(held) > 0.94
