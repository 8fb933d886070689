"""benchmarks/drift.py: a vocabulary that follows its ids, examples by week, contenders of equal bytes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from recsys.data.simulator_config import SimulatorConfig

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from drift import BUDGETS, LINES, Study, embeddings, sliced, vocabularies
from drift_world import Vocabulary, Week, World

STUDY = Study(
    world=SimulatorConfig(
        users=200, items=300, events=6_000, repeats=True, cold_items=0.0, item_turnover=0.2, user_turnover=0.1, days=42
    )
)


@pytest.fixture(scope="module")
def world() -> World:
    return World.of(STUDY.world)


def test_known_values_keep_their_rows_and_new_ones_get_those_of_the_gone() -> None:
    words = Vocabulary(values=6, capacity=3, oov=2)  # ids: 0 missing, 1 and 2 OOV, 3 to 5 values
    assert words.rows == 6
    assert words.rebuild(np.array([5, 0, 7, 1, 6, 0])).tolist() == [3, 4, 5]
    assert words.ids().tolist() == [3, 2, 4, 2, 5, 2]
    # Value 2 is gone and 3 is new; 5 is seen too, but less.
    assert words.rebuild(np.array([5, 0, 0, 4, 6, 1])).tolist() == [4]
    assert words.ids().tolist() == [3, 2, 1, 4, 5, 2]
    # Fewer values than rows: 0 and 3 are gone, and nobody takes their rows.
    assert words.rebuild(np.array([0, 0, 0, 0, 1, 0])).tolist() == []
    assert words.ids().tolist() == [1, 2, 1, 2, 5, 2]
    assert words.rebuild(np.array([0, 1, 0, 0, 1, 0])).tolist() == [3]
    assert words.ids().tolist() == [1, 3, 1, 2, 5, 2]


def test_weeks_hold_all_events_once_in_order(world: World) -> None:
    assert len(world.weeks) == 6
    assert sum(len(week.label) for week in world.weeks) == STUDY.world.events
    for number, week in enumerate(world.weeks):
        assert week.born.max() <= number
        assert {len(value) for value in week.values.values()} == {len(week.label)}
        assert all(value.max() < world.sizes[name] for name, value in week.values.items())
    assert any((week.born == number).any() for number, week in enumerate(world.weeks) if number)


def test_slices_part_the_week_by_the_younger_of_user_and_item() -> None:
    born = np.array([9, 9, 8, 5, 4, 0, 4, 0])
    label = np.array([1, 0, 1, 0, 1, 0, 0, 1], np.float32)
    scores = np.array([0.9, 0.1, 0.2, 0.8, 0.7, 0.6, 0.3, 0.5], np.float32)
    found = sliced(STUDY, Week({}, label, born, scores), 9, scores)
    # New: 9, 9. Young: 8, 5, of the four weeks before. Old: 4, 0, 4, 0, pairs .7 > .6, .7 > .3, .5 < .6, .5 > .3.
    assert found == {"all": 0.625, "new": 1.0, "young": 0.0, "old": 0.75}


@pytest.mark.parametrize("budget", BUDGETS)
def test_contenders_have_the_same_bytes(world: World, budget: float) -> None:
    rows = {name: words.rows for name, words in vocabularies(STUDY, world, budget).items()}
    for line in LINES:
        tables = embeddings(STUDY, line, rows).tables
        floats = sum(table.dim * getattr(table, "rows", rows.get(name, 0)) for name, table in tables.items())
        assert floats == 16 * sum(rows.values())
