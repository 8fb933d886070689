"""How often an item is in a batch: counted, estimated while batches go by, and what is made of it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.objectives.config import StreamingConfig
from recsys.objectives.frequency import Counted, Listed, Streaming, log_presence

ROWS = tf.constant(8.0)


def test_counts_give_what_batches_hold() -> None:
    """Of many batches of 8 drawn with these counts: how many of an item there are, and how often there is one."""
    counts = np.array([6, 3, 1, 0])
    drawn = np.random.default_rng(0).choice(4, size=(50_000, 8), p=counts / 10)
    expected, there = Counted(counts, "all"), Counted(counts, "unique")
    items = tf.range(3)
    for item in range(3):
        held = (drawn == item).sum(1)
        assert float(expected.rate(items, ROWS)[item]) == pytest.approx(held.mean(), rel=0.03)
        assert float(there.rate(items, ROWS)[item]) == pytest.approx((held > 0).mean(), rel=0.03)
    assert np.all(np.isfinite(np.log(there.rate(tf.constant([[3, 3]]), ROWS))))
    rare = Counted([1, 10**9 - 1], "unique").rate(tf.constant([0]), ROWS)
    np.testing.assert_allclose(rare, [8e-9], rtol=1e-4)


@pytest.mark.parametrize("uniform", [0, 5])
def test_presence_is_that_of_both_kinds_of_candidates(uniform: int) -> None:
    """Of batches of 8 and `uniform` draws from 4 items; for `others` one row is the query's own, and it counts not."""
    counts = np.array([6, 3, 1, 1])
    random = np.random.default_rng(1)
    batch = random.choice(4, size=(50_000, 8), p=counts / 11)
    drawn = random.integers(0, 4, size=(50_000, uniform))
    for others in (False, True):
        held = np.concatenate([batch[:, int(others) :], drawn], 1)
        for listed, truth in (
            ("all", [(held == item).sum(1).mean() for item in range(4)]),
            ("unique", [(held == item).any(1).mean() for item in range(4)]),
        ):
            rate = Counted(counts, listed).rate(tf.range(4), ROWS)  # type: ignore[arg-type]
            found = log_presence(rate, ROWS, listed, uniform, 4, others)  # type: ignore[arg-type]
            np.testing.assert_allclose(np.exp(found), truth, rtol=0.03)


def test_presence_stays_finite() -> None:
    for listed in ("all", "unique"):
        for rate in (0.0, 1e-12, 1.0):
            for others in (False, True):
                found = log_presence(tf.constant([rate]), tf.constant(1.0), listed, 0, 10, others)  # type: ignore[arg-type]
                assert np.all(np.isfinite(found))


def estimator(listed: Listed = "all", **config: object) -> tuple[Streaming, tf.Variable]:
    step = tf.Variable(0, dtype=tf.int64)
    return Streaming(StreamingConfig.model_validate({"kind": "streaming", **config}), listed, 0, step), step


def test_an_interval_by_hand() -> None:
    """Item 5 in steps 1 and 4, twice there: B = 10, then .5 * 10 + .5 * 1, then .5 * 5.5 + .5 * 3 = 4.25, then halved
    for an interval of 0.
    """
    streaming, step = estimator(hashes=1, rows=1000, learning_rate=0.5, initial_interval=10.0)
    five = tf.constant([5])
    np.testing.assert_allclose(streaming.rate(five, ROWS), [0.1])
    streaming.observe(five)
    assert 1 / float(streaming.rate(five, ROWS)[0]) == pytest.approx(5.5)
    step.assign(3)
    streaming.observe(tf.constant([5, 6, 5]))
    np.testing.assert_allclose(1 / streaming.rate(tf.constant([5, 6, 7]), ROWS), [4.25 / 2, 7.0, 10.0], rtol=1e-6)
    once, step = estimator("unique", hashes=1, rows=1000, learning_rate=0.5, initial_interval=10.0)
    once.observe(five)
    step.assign(3)
    once.observe(tf.constant([5, 6, 5]))
    np.testing.assert_allclose(1 / once.rate(five, ROWS), [4.25], rtol=1e-6)


def test_what_shares_a_row_looks_too_frequent_and_more_hashes_mend_it() -> None:
    shared, step = estimator(hashes=1, rows=1, learning_rate=0.1, initial_interval=10.0)
    apart, other = estimator(hashes=8, rows=64, learning_rate=0.1, initial_interval=10.0)
    for at in range(100):
        ids = tf.constant([0] if at % 10 else [1])
        for streaming, now in ((shared, step), (apart, other)):
            now.assign(at)
            streaming.observe(ids)
    assert float(shared.rate(tf.constant([1]), ROWS)[0]) > 0.9
    assert float(apart.rate(tf.constant([1]), ROWS)[0]) == pytest.approx(0.1, rel=0.1)


def simulated(errors: dict[int, float], until: int, hashes: int, rows: int, learning_rate: float) -> dict[int, float]:
    """Yi et al.'s simulation: 1,000 items, batches of 128 without replacement in proportion to i^2, and from step
    10,000 on to (999 - i)^2. By step, sum of |estimate - 128 q| over 256.
    """
    streaming, step = estimator(hashes=hashes, rows=rows, learning_rate=learning_rate)
    weights = np.stack([np.arange(1000.0) ** 2, np.arange(999.0, -1, -1) ** 2])
    q = weights / weights.sum(1, keepdims=True)
    log_q = tf.constant(np.log(np.maximum(q, 1e-12)), tf.float32)

    @tf.function
    def run(start: tf.Tensor, stop: tf.Tensor) -> None:
        for at in tf.range(start, stop):
            step.assign(at)
            phase = tf.cast(at >= 10_000, tf.int32)
            uniform = tf.random.stateless_uniform([1000], tf.stack([at, 7]), minval=1e-7)
            streaming.observe(tf.math.top_k(log_q[phase] - tf.math.log(-tf.math.log(uniform)), 128).indices)

    start, found = 0, {}
    for stop in sorted(errors):
        run(tf.constant(start, tf.int64), tf.constant(stop, tf.int64))
        estimate = streaming.rate(tf.range(1000), tf.constant(128.0)).numpy().astype(float)
        found[stop] = float(np.abs(estimate - 128 * q[int(stop > 10_000)]).sum() / 256)
        start = stop
    assert start == until
    return found


@pytest.mark.parametrize(
    ("hashes", "rows", "rate", "errors"),
    [
        (1, 5000, 0.01, {2_000: 0.175, 10_000: 0.113, 11_000: 0.41}),
        (4, 1250, 0.01, {10_000: 0.052}),
        (1, 5000, 0.1, {11_000: 0.23}),
    ],
)
def test_the_simulation_of_the_paper(hashes: int, rows: int, rate: float, errors: dict[int, float]) -> None:
    """Several hashes of the same memory together err less; a high rate follows a change faster."""
    found = simulated(errors, max(errors), hashes, rows, rate)
    for step, error in errors.items():
        assert found[step] == pytest.approx(error, rel=0.15), found


@pytest.mark.parametrize("listed", ["all", "unique"])
def test_repeats_in_a_batch_estimate_what_is_listed(listed: Listed) -> None:
    """Batches of 64 with a head item of 30%: with duplicates kept 19 of it are expected in each, without it is there
    always; a rare one is there as often as it is expected.
    """
    shares = np.array([0.3, 0.02, 0.68])
    streaming, step = estimator(listed, hashes=2, rows=4096, learning_rate=0.01)
    batches: NDArray[np.int32] = np.random.default_rng(0).choice(3, size=(3_000, 64), p=shares).astype(np.int32)

    @tf.function
    def run(batches: tf.Tensor) -> None:
        for at in tf.range(tf.shape(batches)[0]):
            step.assign(tf.cast(at, tf.int64))
            streaming.observe(batches[at])

    run(tf.constant(batches))
    found = streaming.rate(tf.constant([0, 1]), tf.constant(64.0)).numpy()
    truth = Counted(shares * 1e6, listed).rate(tf.constant([0, 1]), tf.constant(64.0)).numpy()
    np.testing.assert_allclose(found, truth, rtol=0.15)
    assert (truth[0] > 15) == (listed == "all")
