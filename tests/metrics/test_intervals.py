"""Many intervals at once: what they are by a loop that does as it is told, who counts, and what formulas leave out."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.metrics import (
    Interval,
    bootstrap_interval,
    bootstrap_intervals,
    intervals,
    minimal_detectable_difference,
    randomization_test,
    significance,
)

Array = NDArray[np.float64]


def ends(found: list[Interval | None]) -> Array:
    return np.array([[each.estimate, each.low, each.high] for each in found if each is not None])


def visits(rng: np.random.Generator, users: int) -> tuple[Array, Array]:
    """Impressions, few for most, and the share clicked, which falls with them."""
    shown = rng.geometric(0.25, users).astype(float)
    return rng.binomial(shown.astype(int), 0.1 + 0.6 / shown) / shown, shown


def by_the_book(x: Array, w: Array, resamples: int, seed: int) -> tuple[float, float]:
    """A bootstrap-t interval, resample by resample."""

    def mean_and_error(x: Array, w: Array) -> tuple[float, float]:
        mean = np.average(x, weights=w)
        return mean, np.sqrt(len(x) / (len(x) - 1) * np.sum((w * (x - mean)) ** 2)) / w.sum()

    estimate, error = mean_and_error(x, w)
    students = []
    for drawn in np.random.default_rng(seed).integers(0, len(x), (resamples, len(x))):
        mean, its_error = mean_and_error(x[drawn], w[drawn])
        students.append((mean - estimate) / its_error)
    pull = w * (x - estimate)
    pull /= np.sqrt(np.mean(pull**2))
    coverage = (np.mean(pull**4) - 3 - 1.5 * np.mean(pull**3) ** 2) * (1 + 2 * 1.96**2) / 6 / len(x)
    z = 1.959963984540054 * (1 + np.clip(coverage, -0.05, 0.05))
    tail = math.erfc(z / math.sqrt(2)) / 2
    low, high = np.quantile(students, tail, method="lower"), np.quantile(students, 1 - tail, method="higher")
    return estimate - high * error, estimate - low * error


def test_the_bootstrap_is_that_of_the_book() -> None:
    """Means far from 0 in units of their spread included: sums of squares must not cancel."""
    rng = np.random.default_rng(0)
    clicks, shown = visits(rng, 40)
    for x in (clicks, rng.random(40), 1e6 + rng.random(40)):
        for w in (np.ones(40), shown, 1e-6 * shown):
            found = bootstrap_interval(x, w, resamples=300, seed=5)
            np.testing.assert_allclose((found.low, found.high), by_the_book(x, w, 300, 5), rtol=1e-9)


@pytest.mark.parametrize("users", [60, intervals.MANY])
def test_a_metric_among_others_is_the_metric_alone(users: int) -> None:
    rng = np.random.default_rng(1)
    values = rng.random((users, 4)) ** 3
    weights = rng.integers(0, 3, (users, 4)).astype(float)
    weights[:, 1] = weights[:, 3]  # the same users, so the same draws
    for w in (None, weights[:, 0], weights):
        found = bootstrap_intervals(values, w, resamples=200, seed=2)
        for column in range(4):
            own = w if w is None or w.ndim == 1 else w[:, column]
            alone = bootstrap_interval(values[:, column], own, resamples=200, seed=2)
            np.testing.assert_allclose(ends([found[column]]), ends([alone]), rtol=1e-9)
            assert alone.users == (users if own is None else np.count_nonzero(own))


def test_blocks_of_draws_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).random((50, 2))
    whole = bootstrap_intervals(values, resamples=500), randomization_test(values[:, 0] - 0.5, resamples=500)
    monkeypatch.setattr(intervals, "BLOCK", 350)
    np.testing.assert_allclose(ends(bootstrap_intervals(values, resamples=500)), ends(whole[0]), rtol=1e-9)
    assert 0 < randomization_test(values[:, 0] - 0.5, resamples=500) <= 1


@pytest.mark.parametrize("users", [60, intervals.MANY])
def test_users_of_weight_0_do_not_count(users: int) -> None:
    """Not their number either: an interval with them is that without them."""
    rng = np.random.default_rng(3)
    x, w = visits(rng, users)
    longer = np.concatenate([x, np.full(20, np.nan)])[:, None]
    weights = np.concatenate([w, np.zeros(20)])
    order = rng.permutation(users + 20)
    assert bootstrap_intervals(longer, weights, seed=1) == bootstrap_intervals(x[:, None], w, seed=1)
    found = bootstrap_interval(longer[order, 0], weights[order])
    assert found.users == users
    assert found.estimate == pytest.approx(np.average(x, weights=w), rel=1e-12)
    np.testing.assert_allclose(
        minimal_detectable_difference(longer[order, 0], weights[order]), minimal_detectable_difference(x, w), rtol=1e-12
    )


def test_a_metric_of_fewer_than_two_users_has_no_interval() -> None:
    values = np.array([[0.1, 0.2, np.nan, 0.4], [0.3, np.nan, np.nan, 0.6]])
    found = bootstrap_intervals(values, (~np.isnan(values)).astype(float))
    assert found[1:3] == [None, None]
    assert (found[0] and found[0].users, found[3] and found[3].users) == (2, 2)


@pytest.mark.parametrize("hits", [0, 1, 2, 12])
def test_every_end_is_finite(hits: int) -> None:
    """Many of the resamples of 12 users with one hit have none, and bound nothing."""
    x = (np.arange(12) < hits) * 1.0
    found = bootstrap_interval(x, seed=1)
    assert np.isfinite([found.low, found.high]).all()
    assert found.low <= found.estimate <= found.high
    assert (found.low == found.high) == (hits in (0, 12))
    if hits == 2:  # one of six is not rare: the bootstrap's, with an end that its resamples leave open
        assert found.high == 1.0


@pytest.mark.parametrize("law", ["mean", "ratio", "sparse"])
def test_the_formula_is_the_limit_of_the_draws(law: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With users few enough that skewness and a random denominator move the ends by more than the tolerance.

    A formula with one of its terms left out, doubled or of the wrong sign fails.
    """
    rng = np.random.default_rng(4)
    w = np.ones(400)
    if law == "ratio":
        w = rng.geometric(0.25, 400).astype(float)
        x = 0.1 * w + rng.random(400)
    elif law == "sparse":
        x = (rng.random(400) < 0.06) * rng.random(400)
    else:
        x = rng.random(400) ** 8
    monkeypatch.setattr(intervals, "CALIBRATION", 0.0)
    drawn = bootstrap_interval(x, w, resamples=20_000)
    monkeypatch.setattr(intervals, "MANY", 400)
    formula = bootstrap_interval(x, w)
    error = (drawn.high - drawn.low) / 3.92
    assert (formula.low - drawn.low) / error == pytest.approx(0, abs=0.05)
    assert (formula.high - drawn.high) / error == pytest.approx(0, abs=0.05)
    normal = drawn.estimate + 1.96 * error
    assert abs(drawn.high - normal) / error > 0.1, "this law does not tell the formula from a normal interval"


def test_signs_by_counting_them_all() -> None:
    rng = np.random.default_rng(5)
    for users in (7, 8, 11):
        x, w = rng.normal(0.3, 1, users), rng.uniform(0.5, 2, users)
        sums = np.array([signs @ (w * x) for signs in np.array(list(product([-1, 1], repeat=users)))])
        exact = np.mean(np.abs(sums) >= abs(w @ x) - 1e-12)
        assert randomization_test(x, w, resamples=40_000) == pytest.approx(exact, abs=0.012)
        # Users without a difference, or without weight, are no users.
        padded = np.concatenate([x, np.zeros(30), np.full(4, np.nan)])
        weights = np.concatenate([w, np.ones(30), np.zeros(4)])
        assert randomization_test(padded, weights, resamples=500) == randomization_test(x, w, resamples=500)


def test_many_signs_are_normal(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(6).normal(0.01, 1, 6_000)
    w = np.random.default_rng(7).uniform(0.5, 1.5, 6_000)
    drawn = randomization_test(x, w, resamples=10_000)
    monkeypatch.setattr(significance, "MANY", 6_000)
    limit = randomization_test(x, w)
    assert 0.002 < drawn < 0.2
    assert limit == pytest.approx(drawn, abs=4 * math.sqrt(drawn / 10_000))
    assert limit == randomization_test(x, w, seed=9)
    assert 0 < randomization_test(x + 5, w, resamples=999) < 1e-100, "no draws bound it from below"


def test_one_user_may_outweigh_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Either sign of the one decides all, so p is 1, where a normal limit would say 0.32."""
    monkeypatch.setattr(significance, "MANY", 1_000)
    x = np.append(np.full(2_000, 1e-9), 1.0)
    x[::2] *= -1
    assert randomization_test(x, resamples=500) > 0.4


@pytest.mark.parametrize(
    ("values", "weights", "text"),
    [
        ([0.5, 0.5], None, r"\[U, M\]"),
        ([[0.5], [0.5]], [1.0], r"\[U\] or \[U, M\]"),
        ([[0.5, 0.1], [0.5, 0.1]], [[1.0], [1.0], [1.0]], r"\[U\] or \[U, M\]"),
        ([[0.5], [0.5]], [1.0, -1.0], "not negative"),
        ([[0.5], [0.5]], [1.0, np.nan], "finite"),
        ([[0.5], [np.nan]], [1.0, 1.0], "weight 0"),
        ([[0.5, 0.5], [0.5, np.inf]], None, "weight 0"),
    ],
)
def test_unsound_arguments_of_many(values: list, weights: list | None, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        bootstrap_intervals(values, weights)
