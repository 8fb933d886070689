"""Entmax against closed forms, bisection in float64 and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.interactions.entmax import entmax

Floats = NDArray[np.float64]
ALPHAS = [1.1, 1.5, 1.7, 2.0]


def by_bisection(scores: Floats, alpha: float) -> Floats:
    """Peters et al., algorithm 1, as it is printed."""
    z = scores * (alpha - 1.0)
    low, high = z.max(-1, keepdims=True) - 1.0, z.max(-1, keepdims=True)
    for _ in range(80):
        tau = (low + high) / 2
        p = np.maximum(z - tau, 0.0) ** (1.0 / (alpha - 1.0))
        low, high = np.where(p.sum(-1, keepdims=True) >= 1, (tau, high), (low, tau))
    return p / p.sum(-1, keepdims=True)


def sparsemax(scores: Floats) -> Floats:
    """Martins and Astudillo 2016, algorithm 1: tau from the longest prefix of the sorted scores that allows it."""
    ordered = -np.sort(-scores, -1)
    counts = np.arange(1, scores.shape[-1] + 1)
    support = (1.0 + counts * ordered > np.cumsum(ordered, -1)).sum(-1, keepdims=True)
    tau = (np.take_along_axis(np.cumsum(ordered, -1), support - 1, -1) - 1.0) / support
    return np.maximum(scores - tau, 0.0)


def scores(*shape: int, scale: float = 2.0, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(scale=scale, size=shape)


def test_by_hand() -> None:
    """sparsemax: tau = (1 + .5 - 1) / 2 = .25. alpha = 1.5: p = (s/2 - tau)², and (.7 - .1)² + (.9 - .1)² = 1."""
    np.testing.assert_allclose(entmax(tf.constant([1.0, 0.5, -2.0]), 2.0), [0.75, 0.25, 0.0], atol=1e-7)
    np.testing.assert_allclose(entmax(tf.constant([1.4, 1.8, 0.2]), 1.5), [0.36, 0.64, 0.0], atol=1e-6)
    np.testing.assert_allclose(entmax(tf.constant([3.0, 3.0, 3.0, 3.0]), 1.7), [0.25] * 4, atol=1e-7)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_rows_sum_to_one_and_hold_exact_zeros(alpha: float) -> None:
    p = entmax(tf.constant(scores(50, 3, 12, scale=6.0), tf.float32), alpha).numpy()
    assert p.shape == (50, 3, 12)
    assert p.dtype == np.float32
    np.testing.assert_allclose(p.sum(-1), 1.0, atol=1e-6)
    assert p.min() == 0.0
    assert 0.1 < (p == 0.0).mean() < 0.95


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 3e-6)])
def test_alpha_two_is_sparsemax(dtype: type, tolerance: float) -> None:
    for scale in (0.01, 1.0, 30.0):
        x = scores(200, 17, scale=scale).astype(dtype)
        found = entmax(tf.constant(x), 2.0).numpy()
        expected = sparsemax(x.astype(np.float64))
        np.testing.assert_allclose(found, expected, atol=tolerance)
        assert np.all(found[expected > 1e-5] > 0)
        if dtype == np.float64:
            np.testing.assert_array_equal(found == 0, expected == 0)


@pytest.mark.parametrize("alpha", [1.02, *ALPHAS])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_it_is_what_bisection_finds(alpha: float, dtype: type, tolerance: float) -> None:
    for scale in (0.01, 1.0, 30.0):
        x = scores(200, 17, scale=scale, seed=1).astype(dtype)
        np.testing.assert_allclose(
            entmax(tf.constant(x), alpha), by_bisection(x.astype(np.float64), alpha), atol=tolerance
        )


@given(
    arrays(np.float32, st.tuples(st.just(4), st.integers(1, 40)), elements=st.floats(-8, 8, width=32)),
    st.floats(1.1, 2.0),
)
def test_newton_has_always_come_to_the_root(x: NDArray[np.float32], alpha: float) -> None:
    """Ties, rows of one score, scores that leave the support one by one."""
    found = entmax(tf.constant(x), alpha).numpy()
    np.testing.assert_allclose(found, by_bisection(x.astype(np.float64), alpha), atol=2e-5)


def test_it_tends_to_softmax() -> None:
    x = tf.constant(scores(20, 8))
    errors = [np.abs(entmax(x, alpha).numpy() - tf.nn.softmax(x).numpy()).max() for alpha in (1.1, 1.01, 1.001)]
    assert errors[0] > 5 * errors[1] > 25 * errors[2]
    assert errors[2] < 2e-3


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_gradient_is_that_of_finite_differences(alpha: float) -> None:
    x = tf.constant(scores(5, 7))
    weights = tf.constant(scores(5, 7, seed=1))
    assert alpha == 1.1 or np.any(entmax(x, alpha).numpy() == 0)
    analytic, numeric = tf.test.compute_gradient(lambda x: entmax(x, alpha) * weights, [x], delta=1e-6)
    np.testing.assert_allclose(analytic[0], numeric[0], atol=1e-8)


def test_the_gradient_by_hand() -> None:
    """The support is {1, 2}; alpha = 2: g = (1, 1, 0), and alpha = 1.5: g = (.6, .8, 0), the roots of .36 and .64."""
    for alpha, x, g in ((2.0, [1.0, 0.5, -2.0], [1.0, 1.0, 0.0]), (1.5, [1.4, 1.8, 0.2], [0.6, 0.8, 0.0])):
        point = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(point)
            p = entmax(point, alpha)
        expected = np.diag(g) - np.outer(g, g) / np.sum(g)
        np.testing.assert_allclose(tape.jacobian(p, point), expected, atol=1e-6)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_adding_a_number_to_a_row_changes_nothing_and_great_scores_do_not_overflow(alpha: float) -> None:
    x = scores(6, 5)
    np.testing.assert_allclose(entmax(tf.constant(x + 1e3), alpha), entmax(tf.constant(x), alpha), atol=1e-9)
    great = tf.constant([[1e30, -1e30, 0.0], [-3e38, 3.0e38, 0.0]])
    np.testing.assert_array_equal(entmax(great, alpha), [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def test_a_row_that_is_not_a_number_leaves_the_others_alone() -> None:
    x = scores(3, 6).astype(np.float32)
    x[1, 2] = np.nan
    found = entmax(tf.constant(x), 1.7).numpy()
    assert np.isnan(found[1]).all()
    np.testing.assert_allclose(found[[0, 2]], by_bisection(x[[0, 2]].astype(np.float64), 1.7), atol=1e-5)


def test_rows_of_unknown_number_in_a_graph() -> None:
    function = tf.function(lambda x: entmax(x, 1.7), input_signature=[tf.TensorSpec([None, 5])])
    x = tf.constant(scores(4, 5), tf.float32)
    np.testing.assert_allclose(function(x), entmax(x, 1.7), atol=1e-6)
    assert function(x[:0]).shape == (0, 5)


@pytest.mark.parametrize("alpha", [1.0, 0.5, 2.1])
def test_an_alpha_out_of_range_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match=rf"alpha is {alpha}; .* 1 < alpha <= 2"):
        entmax(tf.zeros([1, 2]), alpha)
