"""Evolution over widths: its draws, its selection, and that it finds what random search does not."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.search.config import EvolutionConfig
from recsys.search.evolution import Candidate, Population, Scored, crossed, evolve, fronts, mutated, select

FIELDS, DIM = 12, 16
NEEDED = np.random.default_rng(3).integers(1, DIM + 1, FIELDS)
"""The width from which on a field of the planted task gains nothing."""


def quality(candidate: Candidate) -> float:
    """Best where every field has exactly what it needs; too wide a row costs a little, as noise does."""
    short = np.maximum(NEEDED - candidate, 0)
    return float(1.0 - 0.02 * short.sum() - 0.004 * np.maximum(np.array(candidate) - NEEDED, 0).sum())


def size(candidate: Candidate) -> int:
    return 4 * sum(candidate)


def searched(**more: object) -> Population:
    config = EvolutionConfig.model_validate({"generations": 25, **more})
    *_, found = evolve(quality, size, FIELDS, DIM, config, seed=1)
    return found


def test_the_best_so_far_never_falls_and_starts_from_the_full_widths() -> None:
    best, first = [], None
    for population in evolve(quality, size, FIELDS, DIM, EvolutionConfig(generations=10), seed=0):
        found = population.best()
        assert found is not None
        best.append(found.quality)
        first = first or population.scored[0].candidate
    assert first == (DIM,) * FIELDS
    assert population.scored[1].candidate == (1,) * FIELDS, "so that the smallest size is known"
    assert best == sorted(best)
    assert best[-1] > best[0]


def test_what_is_stored_is_what_was_measured_and_nothing_is_measured_twice() -> None:
    calls: Counter[Candidate] = Counter()

    def counted(candidate: Candidate) -> float:
        calls[candidate] += 1
        return quality(candidate)

    *_, found = evolve(counted, size, FIELDS, DIM, EvolutionConfig(generations=10), seed=0)
    assert set(calls.values()) == {1}
    assert len(found.scored) == len(calls)
    assert all((each.quality, each.size) == (quality(each.candidate), size(each.candidate)) for each in found.scored)


def test_it_beats_random_search_at_equal_evaluations() -> None:
    found = searched(by_size=False)
    rng = np.random.default_rng(0)
    at_random = [quality(tuple(row)) for row in rng.integers(1, DIM + 1, (5 * len(found.scored), FIELDS))]
    best = found.best()
    assert best is not None
    assert best.quality > max(at_random) + 0.02, "even with five times as many"


def test_the_front_beats_that_of_random_search_at_every_budget() -> None:
    found = searched()
    rng = np.random.default_rng(0)
    rows = [tuple(map(int, row)) for row in rng.integers(1, DIM + 1, (len(found.scored), FIELDS))]
    at_random = Population([Scored(row, quality(row), size(row)) for row in rows])
    for budget in (350, 400, 450, 500):
        own, other = found.best(budget), at_random.best(budget)
        assert own is not None
        assert own.size <= budget
        assert other is None or own.quality > other.quality
    assert found.best(0) is None


def test_a_killed_search_goes_on_as_if_nothing_had_happened() -> None:
    config = EvolutionConfig(generations=6)
    *_, whole = evolve(quality, size, FIELDS, DIM, config, seed=4)
    half = Population()
    for population in evolve(quality, size, FIELDS, DIM, config, seed=4, population=half):
        if population.generation == 3:
            break
    resumed = Population(list(half.scored), half.generation)
    *_, after = evolve(quality, size, FIELDS, DIM, config, seed=4, population=resumed)
    assert after.scored == whole.scored


def test_mutants_are_new_and_reach_every_width() -> None:
    parent = (8,) * FIELDS
    rng = np.random.default_rng(0)
    mutants = [mutated(parent, rng, DIM, 0.1) for _ in range(2_000)]
    assert parent == (8,) * FIELDS
    widths = {width for mutant in mutants for width in mutant}
    assert widths == set(range(1, DIM + 1)), "1 and D, too"
    changes = np.array([[a != b for a, b in zip(mutant, parent, strict=True)] for mutant in mutants]).sum(1)
    # Each of 12 widths with .1, and one for certain; one in 16 draws hits the old width.
    assert abs(changes.mean() - (1 + (FIELDS - 1) * 0.1) * 15 / 16) < 0.1


def test_crossover_mixes_parents_field_by_field() -> None:
    rng = np.random.default_rng(0)
    children = np.array([crossed((1,) * FIELDS, (2,) * FIELDS, rng) for _ in range(1_000)])
    assert set(np.unique(children)) == {1, 2}
    assert np.abs((children == 1).mean(0) - 0.5).max() < 0.06
    copies = (children == children[:, :1]).all(1).mean()
    assert copies < 0.01, "hardly a child is a copy of a parent"


POINTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=25)


@given(POINTS)
def test_fronts_are_those_of_the_definition(points: list[tuple[int, int]]) -> None:
    scored = [Scored((n,), float(quality), size) for n, (quality, size) in enumerate(points)]

    def beats(one: Scored, other: Scored) -> bool:
        at_least = one.quality >= other.quality and one.size <= other.size
        return at_least and (one.quality, one.size) != (other.quality, other.size)

    left = set(range(len(points)))
    for front in fronts(scored):
        members = {each.candidate[0] for each in front}
        expected = {n for n in left if not any(beats(scored[other], scored[n]) for other in left)}
        assert members == expected
        assert [each.size for each in front] == sorted(each.size for each in front)
        left -= members
    assert not left


def test_parents_are_the_best_of_all_generations() -> None:
    scored = [Scored((n,), quality, 10 - n) for n, quality in enumerate([0.9, 0.1, 0.5, 0.7])]
    assert [each.candidate for each in select(scored, 2, by_size=False)] == [(0,), (3,)]
    # Sizes fall: (0) and (3) are beaten by none; (2) only by (3).
    assert [each.candidate for each in select(scored, 3, by_size=True)] == [(3,), (0,), (2,)]


def test_a_crowded_front_keeps_its_ends() -> None:
    scored = [
        Scored((n,), quality, size) for n, (quality, size) in enumerate([(0.0, 0), (0.5, 50), (0.51, 51), (1, 100)])
    ]
    assert {each.candidate[0] for each in select(scored, 3, by_size=True)} >= {0, 3}
