"""Off-policy estimates: by hand, and unbiased in a simulation with known truth."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.metrics import off_policy


def test_by_hand() -> None:
    found = off_policy([1.0, 0.0, 1.0], [0.5, 0.5, 0.25], [1.0, 0.5, 0.5])  # weights 2, 1, 2
    assert found.ips == pytest.approx(4 / 3)
    assert found.snips == pytest.approx(4 / 5)
    assert found.effective_samples == pytest.approx(25 / 9)
    assert (found.clipped, found.events) == (0.0, 3)


def test_clipping_by_hand() -> None:
    found = off_policy([1.0, 0.0, 1.0], [0.5, 0.5, 0.25], [1.0, 0.5, 0.5], clip=1.5)  # weights 1.5, 1, 1.5
    assert found.ips == pytest.approx(1.0)
    assert found.snips == pytest.approx(3 / 4)
    assert found.clipped == pytest.approx(2 / 3)


def test_estimates_find_the_value_of_another_policy() -> None:
    """Three actions with rewards .1, .5, .9; logged mostly the worst, valued for mostly the best."""
    rng = np.random.default_rng(0)
    logging, target, reward = np.array([0.7, 0.2, 0.1]), np.array([0.1, 0.2, 0.7]), np.array([0.1, 0.5, 0.9])
    estimates = []
    for _ in range(200):
        action = rng.choice(3, 1_000, p=logging)
        got = rng.random(1_000) < reward[action]
        estimates.append(off_policy(got, logging[action], target[action]))
    truth = target @ reward
    assert np.mean([e.ips for e in estimates]) == pytest.approx(truth, abs=0.02)
    assert np.mean([e.snips for e in estimates]) == pytest.approx(truth, abs=0.02)
    assert np.std([e.snips for e in estimates]) < np.std([e.ips for e in estimates])
    assert np.mean([e.effective_samples for e in estimates]) < 300  # of 1,000


def test_the_logging_policy_itself_has_all_its_samples() -> None:
    p = np.random.default_rng(1).uniform(0.1, 1, 50)
    found = off_policy(np.ones(50), p, p)
    assert (found.ips, found.snips, found.effective_samples) == (1.0, 1.0, pytest.approx(50))


def test_a_target_that_never_does_what_was_logged() -> None:
    found = off_policy([1.0, 1.0], [0.5, 0.5], [0.0, 0.0])
    assert (found.ips, found.effective_samples) == (0.0, 0.0)
    assert np.isnan(found.snips)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (([1.0], [0.0], [0.5]), "propensities"),
        (([1.0], [0.5], [1.5]), "target"),
        (([np.nan], [0.5], [0.5]), "finite"),
        (([1.0, 1.0], [0.5], [0.5]), "alike"),
        (([], [], []), "alike"),
    ],
)
def test_unsound_arguments(arguments: tuple[list[float], ...], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        off_policy(*arguments)
    with pytest.raises(ValueError, match="clip"):
        off_policy([1.0], [0.5], [0.5], clip=0.0)
