"""The examples of `drift.py`, week by week, and vocabularies that may follow them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.data.ground_truth import AGES, COUNTRIES, EPOCH, TAGS_PER_CATEGORY, WEEK, GroundTruth
from recsys.data.simulator import TRUTH, simulate
from recsys.data.simulator_config import SimulatorConfig

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Week:
    """One week's examples, in the order of time."""

    values: dict[str, Integers]
    """Numbers from 0 by feature: [n], tags [n, 2]."""
    label: NDArray[np.float32]
    """[n]"""
    born: Integers
    """[n] the week in which the younger of user and item was born."""
    affinity: NDArray[np.float32]
    """[n] by the ground truth: what the labels were drawn from."""


@dataclass(frozen=True)
class World:
    """The weeks, and how many values each feature has."""

    weeks: list[Week]
    sizes: dict[str, int]

    @classmethod
    def of(cls, config: SimulatorConfig) -> World:
        """Simulates."""
        with TemporaryDirectory() as folder:
            events = pq.read_table(simulate(config, Path(folder) / "world").events[0])
            truth = GroundTruth.load(Path(folder) / "world" / TRUTH)
        user, item, times, rating = (events[name].to_numpy() for name in ("user_id", "item_id", "timestamp", "rating"))
        values = {
            "user_id": user,
            "age": truth.user_age[user],
            "country": truth.user_country[user],
            "item_id": item,
            "category": truth.item_category[item],
            "tags": truth.item_tags[item],
        }
        born = (np.maximum(truth.user_life[user, 0], truth.item_life[item, 0]) - EPOCH) // WEEK
        affinity = truth.affinity(user, item, times)
        week = (times - EPOCH) // WEEK
        order = np.argsort(times, kind="stable")
        cuts = np.split(order, np.searchsorted(week[order], np.arange(1, config.weeks)))
        weeks = [
            Week(
                {name: value[rows] for name, value in values.items()},
                (rating[rows] >= 4).astype(np.float32),
                born[rows],
                affinity[rows],
            )
            for rows in cuts
        ]
        sizes = dict(zip(values, (config.users, len(AGES), len(COUNTRIES), config.items), strict=False))
        sizes |= {"category": config.categories, "tags": config.categories * TAGS_PER_CATEGORY}
        return cls(weeks, sizes)

    def counts(self, name: str, weeks: range) -> Integers:
        """[values] how often each value of a feature occurs in these weeks."""
        seen = np.concatenate([self.weeks[week].values[name].ravel() for week in weeks])
        return np.bincount(seen, minlength=self.sizes[name])


@dataclass
class Vocabulary:
    """Rows of the ids that occur most, under a budget.

    Ids as the engine has them: 0 missing, then `oov` OOV ids, then one for each of `capacity` values.
    """

    values: int
    capacity: int
    oov: int
    held: Integers = field(init=False)
    """[capacity] the value in each row, or -1."""

    def __post_init__(self) -> None:
        self.held = np.full(self.capacity, -1)

    @property
    def rows(self) -> int:
        """All ids."""
        return 1 + self.oov + self.capacity

    def rebuild(self, counts: Integers) -> Integers:
        """Gives the rows to the values that occur most; the ids that now stand for another value."""
        chosen = np.argsort(-counts, kind="stable")[: self.capacity]
        chosen = chosen[counts[chosen] > 0]
        stays = np.isin(self.held, chosen)
        new = np.setdiff1d(chosen, self.held)
        free = np.flatnonzero(~stays)[: len(new)]
        self.held[~stays] = -1
        self.held[free] = new
        return 1 + self.oov + free

    def ids(self) -> Integers:
        """[values] the id of each value."""
        found = 1 + np.arange(self.values) % self.oov
        held = self.held >= 0
        found[self.held[held]] = 1 + self.oov + np.flatnonzero(held)
        return found
