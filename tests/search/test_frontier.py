"""Which trial keeps a promise, which are on the front, and which search beats its control."""

from __future__ import annotations

import pytest

from recsys.errors import SearchError
from recsys.search.frontier import FULL, Promise, Trained, Trial, choose, front, verdicts


def trial(name: str, size: int, valid: list[float], test: list[float] | None = None, plan: bool = True) -> Trial:
    trained = tuple(
        Trained(seed=n, valid={"auc": v}, test={"auc": t}, seconds=1.0)
        for n, (v, t) in enumerate(zip(valid, test or valid, strict=True))
    )
    method = name.partition("-")[0]
    plans = None if method == FULL or not plan else f"plans/{name}"
    return Trial(name=name, method=method, bytes=size, plan=plans, trained=trained)


TRIALS = [
    trial("full", 1_000, [0.80]),
    trial("uniform-1", 500, [0.79], [0.81]),
    trial("uniform-2", 200, [0.75]),
    trial("dnis-1", 490, [0.795], [0.70]),
    trial("dnis-2", 210, [0.74], [0.79]),
    trial("multiplexed-1", 450, [0.799], plan=False),
]


def test_a_budget_takes_the_plan_that_validates_best_whatever_the_test_part_says() -> None:
    assert choose(TRIALS, "auc", Promise(budget=500)).name == "dnis-1"
    assert choose(TRIALS, "auc", Promise(budget=489)).name == "uniform-2", "what is no plan is not chosen"
    with pytest.raises(SearchError, match=r"--budget.*199 bytes.*200, the smallest plan"):
        choose(TRIALS, "auc", Promise(budget=199))


def test_a_loss_takes_the_smallest_plan() -> None:
    assert choose(TRIALS, "auc", Promise(max_loss=0.0501)).name == "uniform-2"
    assert choose(TRIALS, "auc", Promise(max_loss=0.0061)).name == "dnis-1"
    with pytest.raises(SearchError, match=r"--max-loss: every plan loses at least 0\.00500 of auc"):
        choose(TRIALS, "auc", Promise(max_loss=0.004))


def test_the_front_holds_what_nothing_smaller_reaches() -> None:
    assert [each.name for each in front(TRIALS, "auc")] == ["uniform-2", "multiplexed-1", "full"]


def test_a_search_is_held_against_the_best_control_that_is_no_larger() -> None:
    found = {each.search: each for each in verdicts(TRIALS, "auc")}
    assert set(found) == {"dnis-1", "dnis-2"}
    assert found["dnis-1"].control == "multiplexed-1"
    assert found["dnis-2"].control == "uniform-2"
    assert found["dnis-2"].difference == pytest.approx(0.04), "of the test part"
    assert found["dnis-2"].margin is None
    assert found["dnis-2"].beats
    assert not found["dnis-1"].beats


def test_a_control_that_is_larger_by_a_hair_is_a_rival() -> None:
    """Plans that fill a budget differ by some bytes: who is a byte smaller has not won by that."""
    trials = [trial("dnis-1", 10_000, [0.80]), trial("uniform-1", 10_100, [0.81]), trial("uniform-2", 9_000, [0.7])]
    assert [(each.control, each.beats) for each in verdicts(trials, "auc")] == [("uniform-1", False)]
    trials[1] = trial("uniform-1", 10_101, [0.81])
    assert [(each.control, each.beats) for each in verdicts(trials, "auc")] == [("uniform-2", True)]


def test_seeds_are_paired_and_their_interval_is_student_s() -> None:
    own = trial("dnis-1", 100, [0.8] * 3, [0.81, 0.83, 0.85])
    other = trial("uniform-1", 100, [0.8] * 3, [0.80, 0.81, 0.84])
    (found,) = verdicts([own, other], "auc")
    # .01, .02, .01: mean .013333, sd .0057735; t(.975, 2) = 4.302653
    assert found.difference == pytest.approx(0.0133333, abs=1e-6)
    assert found.margin == pytest.approx(4.302653 * 0.0057735 / 3**0.5, abs=1e-6)
    assert not found.beats, "three seeds do not tell"
    assert own.margin("auc") == pytest.approx(4.302653 * 0.02 / 3**0.5, abs=1e-6)
