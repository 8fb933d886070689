"""Intervals and tests over users: by hand, by property, and by what they promise in repetition."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.metrics import adjust, bootstrap_interval, minimal_detectable_difference, randomization_test


def skewed(rng: np.random.Generator, users: int) -> NDArray[np.float64]:
    """Like nDCG of users who mostly miss: 20% hits, mean 0.1."""
    return (rng.random(users) < 0.2) * rng.random(users)


def test_bootstrap_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """A percentile or a normal interval of the wrong level, or one without the square root of U, fails this."""
    rng = np.random.default_rng(0)
    held = [
        interval.low <= 0.1 <= interval.high
        for seed in range(400)
        if (interval := bootstrap_interval(skewed(rng, 150), resamples=400, seed=seed))
    ]
    assert 0.92 <= np.mean(held) <= 0.975


def test_a_weighted_mean_is_a_ratio_of_sums() -> None:
    """Users with many impressions weigh more, and their number is random: the interval must know both."""
    rng = np.random.default_rng(1)
    held = []
    for seed in range(300):
        weights = rng.poisson(3, 200) + 1.0
        values = rng.normal(1.0, 1.0, 200) + (weights - 4.0)  # heavy users have other values
        interval = bootstrap_interval(values, weights, resamples=400, seed=seed)
        held.append(interval.low <= 1.0 + 3.0 / 4.0 <= interval.high)  # E[w x] / E[w] = 1 + Var(w) / E[w]
    assert 0.91 <= np.mean(held) <= 0.98


def test_an_interval_narrows_with_the_square_root_of_the_users() -> None:
    rng = np.random.default_rng(2)
    widths = [
        (interval := bootstrap_interval(rng.normal(size=users), seed=0)).high - interval.low for users in (400, 6_400)
    ]
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.15)


def test_users_who_are_all_alike_leave_no_doubt() -> None:
    interval = bootstrap_interval([0.5] * 10)
    assert (interval.estimate, interval.low, interval.high, interval.users) == (0.5, 0.5, 0.5, 10)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(3).random(50)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_randomization_by_hand() -> None:
    """Of the 8 ways to sign (1, 2, 3), two have a sum as far from 0 as 6: p = 2/8."""
    assert randomization_test([1.0, 2.0, 3.0], resamples=40_000) == pytest.approx(0.25, abs=0.01)
    assert randomization_test([-1.0, -2.0, -3.0], resamples=40_000) == pytest.approx(0.25, abs=0.01)
    assert randomization_test([1.0, -1.0], resamples=100) == 1.0


def test_randomization_cries_wolf_as_often_as_it_may() -> None:
    rng = np.random.default_rng(4)
    found = [
        randomization_test(skewed(rng, 100) - skewed(rng, 100), resamples=400, seed=seed) <= 0.05 for seed in range(600)
    ]
    assert 0.03 <= np.mean(found) <= 0.07


def test_randomization_finds_a_real_difference() -> None:
    rng = np.random.default_rng(5)
    assert randomization_test(rng.normal(0.5, 1.0, 200)) < 1e-3


def test_weights_count_in_the_randomization() -> None:
    """Nearly all weight on one user: her sign alone decides, either is as far from 0."""
    assert randomization_test([5.0, 1.0, 1.0, 1.0], [1.0, 1e-20, 1e-20, 1e-20], resamples=200) == 1.0


@pytest.mark.parametrize(
    ("method", "expected"),
    [("holm", [0.04, 0.06, 0.06, 0.5]), ("benjamini_hochberg", [0.04, 0.04, 0.04, 0.5])],
)
def test_corrections_by_hand(method: str, expected: list[float]) -> None:
    found = adjust([0.01, 0.03, 0.02, 0.5], method)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, expected)


def test_a_correction_keeps_the_order_and_never_passes_one() -> None:
    p = np.random.default_rng(6).random(30)
    for method in ("holm", "benjamini_hochberg"):
        found = adjust(p, method)  # type: ignore[arg-type]
        assert (found >= p).all()
        assert (found <= 1).all()
        assert (np.diff(found[np.argsort(p)]) >= 0).all()


def test_the_minimal_detectable_difference_is_found_as_often_as_promised() -> None:
    rng = np.random.default_rng(7)
    least = minimal_detectable_difference(rng.normal(0, 1, 100_000)[:400])
    assert least == pytest.approx((1.96 + 0.8416) / np.sqrt(400), rel=0.1)
    found = [randomization_test(rng.normal(least, 1.0, 400), resamples=300, seed=seed) <= 0.05 for seed in range(300)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.08)


@pytest.mark.parametrize(
    ("values", "weights", "text"),
    [
        ([0.5], None, "1 users"),
        ([0.5, np.nan], None, "finite"),
        ([0.5, 0.6], [1.0], "alike"),
        ([0.5, 0.6], [0.0, 0.0], "all 0"),
        ([0.5, 0.6], [-1.0, 2.0], "negative"),
    ],
)
def test_unsound_arguments(values: list[float], weights: list[float] | None, text: str) -> None:
    for function in (bootstrap_interval, randomization_test, minimal_detectable_difference):
        with pytest.raises(ValueError, match=text):
            function(values, weights)


def test_p_values_must_be_probabilities() -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        adjust([0.5, 1.5])
