"""Features that are statistics of the whole log are found; honest ones pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from recsys.data.dataset import STAGES
from tests.evaluation.spoiling import DAYS, ITEMS, World


@dataclass
class Log:
    """All that a prepared folder knows of its events: the whole log, or a part."""

    index: np.ndarray
    partner: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    time: np.ndarray
    size: int

    @classmethod
    def of(cls, world: World, entity: str, parts: tuple[str, ...]) -> Log:
        other = {"user": "item", "item": "user"}[entity]
        columns = (f"{entity}_index", f"{other}_index", "label", "weight", "time")
        rows = [tuple(world.rows(part)[column] for column in columns) for part in parts]
        events = world.rows("events")
        known = events["stage"] == STAGES["context"]
        ones = np.ones(known.sum())
        rows.append((events[columns[0]][known], events[columns[1]][known], ones, ones, events["time"][known]))
        return cls(
            *(np.concatenate(column) for column in zip(*rows, strict=True)), len(world.rows(f"{entity}s")[entity])
        )

    def events(self) -> np.ndarray:
        return np.bincount(self.index, minlength=self.size).astype(float)

    def liked(self) -> np.ndarray:
        return np.bincount(self.index, self.label, self.size)

    def share_liked(self) -> np.ndarray:
        return self.liked() / np.where(self.events(), self.events(), np.nan)

    def rating(self) -> np.ndarray:
        return np.bincount(self.index, self.weight, self.size) / np.where(self.events(), self.events(), np.nan)

    def partners(self) -> np.ndarray:
        pairs = np.unique(np.stack([self.index, self.partner])[:, self.label > 0], axis=1)
        return np.bincount(pairs[0], minlength=self.size).astype(float)

    def last(self) -> np.ndarray:
        last = np.full(self.size, np.nan)
        np.fmax.at(last, self.index, self.time)
        return last


WHOLE = ("train", "valid", "test")
LEAKS: dict[str, Callable[[Log, Log], np.ndarray]] = {
    "number of events": lambda whole, known: whole.events(),
    "number of positive events": lambda whole, known: 3 * whole.liked() - 1,
    "share of positive events": lambda whole, known: whole.share_liked(),
    "mean weight": lambda whole, known: whole.rating(),
    "time of the last event": lambda whole, known: DAYS - whole.last(),
    "number of held-out events": lambda whole, known: whole.events() - known.events(),
}


@pytest.mark.parametrize("leak", LEAKS)
@pytest.mark.parametrize("name", ["temporal", "random"])
def test_a_feature_that_is_a_statistic_of_the_whole_log(world, name, leak):
    spoiled = world(name)
    spoiled.feature("item", "price", LEAKS[leak](Log.of(spoiled, "item", WHOLE), Log.of(spoiled, "item", ("train",))))
    found = spoiled.only()
    assert f"{name}: item feature 'price': it is, or nearly is, the {leak} of each item in the whole log" in found


def test_distinct_partners(world):
    spoiled = world("temporal")
    spoiled.feature("user", "joined", np.log(1 + Log.of(spoiled, "user", WHOLE).partners()))
    assert "user feature 'joined': it is, or nearly is, the number of" in spoiled.only()


@pytest.mark.parametrize("name", ["temporal", "window", "by_user", "leave_last_out"])
def test_the_age_of_a_users_newest_event(world, name):
    spoiled = world(name)
    spoiled.feature("user", "joined", DAYS - Log.of(spoiled, "user", WHOLE).last())
    assert "user feature 'joined': it is, or nearly is, the time of the last event" in spoiled.only()


def test_what_the_model_does_not_read_is_no_leak(world):
    spoiled = world("temporal")
    spoiled.feature("item", "price", Log.of(spoiled, "item", WHOLE).events())
    spoiled.info(lambda info: info["features"]["price"].update(input=False))
    assert spoiled.found() == []


@pytest.mark.parametrize("statistic", ["events", "liked", "share_liked", "rating", "partners", "last"])
@pytest.mark.parametrize("name", ["temporal", "window", "leave_last_out", "random", "by_user"])
def test_statistics_of_what_was_known_are_no_leak(world, name, statistic):
    spoiled = world(name)
    for entity, feature in (("item", "price"), ("user", "joined")):
        spoiled.feature(entity, feature, getattr(Log.of(spoiled, entity, ("train",)), statistic)())
    assert spoiled.found() == []


@pytest.mark.parametrize("name", ["temporal", "random", "cold_items"])
def test_honest_numbers_are_no_leak(world, name):
    spoiled = world(name)
    rng = np.random.default_rng(0)
    whole, train = (Log.of(spoiled, "item", parts) for parts in (WHOLE, ("train",)))
    first = np.full(ITEMS, float(DAYS))
    np.minimum.at(first, whole.index, whole.time)
    newest = train.time > np.quantile(train.time, 0.75)
    honest = {
        "noise": rng.random(ITEMS),
        "constant": np.ones(ITEMS),
        "sold elsewhere": whole.events() * rng.lognormal(0, 0.3, ITEMS),
        "foretold": (whole.events() - train.events()) * rng.lognormal(0, 0.03, ITEMS),
        "published": first - rng.integers(0, 3, ITEMS),
        "recent": np.bincount(train.index[newest], minlength=ITEMS),
        "mostly missing": np.where(np.arange(ITEMS) < 8, whole.events(), np.nan),
    }
    if name == "cold_items":  # zero for all but the cold items: nobody foretells that honestly
        del honest["foretold"]
    for what, values in honest.items():
        spoiled.feature("item", "price", values)
        assert spoiled.found() == [], what
