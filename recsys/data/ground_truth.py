"""The simulated world as it truly is: what every user likes at every moment, and why."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys.data.simulator_config import SimulatorConfig

EPOCH = 1_704_067_200
"""The world begins on 2024-01-01, in Unix seconds."""
DAY = 86_400
WEEK = 7 * DAY
AGES = ("13-17", "18-24", "25-34", "35-49", "50-64", "65+")
COUNTRIES = ("US", "IN", "BR", "DE", "JP", "NG", "FR", "MX")
DEVICES = ("mobile", "desktop", "tv")
TAGS_PER_CATEGORY = 3
TAGS_PER_ITEM = 2
_DEMOGRAPHIC_SHARE = 0.3  # of the variance of tastes, explained by age and country
_DEVICE_EFFECT = 0.5  # standard deviation, in units of utility

Floats = NDArray[np.float32]
Integers = NDArray[np.integer]


@dataclass(frozen=True)
class GroundTruth:
    """Tastes, items and popularity; users, items, categories and tags are numbered from 0 (`user_id`, `item_id`)."""

    config: SimulatorConfig
    user_start: Floats
    """[users, d] tastes on the first day."""
    user_turn: Floats
    """[users, d] the tastes towards which drift turns them."""
    user_age: Integers
    """[users] index into AGES."""
    user_country: Integers
    """[users] index into COUNTRIES."""
    item_vectors: Floats
    """[items, d] of variance 1/d, so that affinities have variance 1."""
    item_category: Integers
    """[items]"""
    item_tags: Integers
    """[items, 2] two different tags."""
    popularity: NDArray[np.float64]
    """[items] rank^-zipf, not normalised; independent of the item's vector and number."""
    cold: NDArray[np.bool_]
    """[items] whether the item appears only at `release`."""
    user_life: Integers
    """[users, 2] the user's first second, and the first one after the last."""
    item_life: Integers
    """[items, 2] likewise; a cold item's life begins at `release`."""
    device_effect: Floats
    """[devices, categories] what the device adds to the utility of a category."""

    @classmethod
    def of(cls, config: SimulatorConfig) -> GroundTruth:
        """The world of `config`: the same in every process."""
        rng = np.random.default_rng([config.seed, 0])
        users, items, width = config.users, config.items, config.latent_dim
        category = rng.integers(0, config.categories, items)
        tags = _two_of(rng, config.categories * TAGS_PER_CATEGORY, items)
        centres = rng.standard_normal((config.categories, width))
        tag_vectors = rng.standard_normal((config.categories * TAGS_PER_CATEGORY, width))
        attributes = centres[category] + tag_vectors[tags].sum(axis=1) / np.sqrt(TAGS_PER_ITEM)
        item_vectors = _mixed(rng, attributes, config.attribute_share) / np.sqrt(width)
        rank = rng.permutation(items) + 1
        cold = rng.permutation(items) < round(config.cold_items * items)
        cold = cold if not cold.all() else np.zeros_like(cold)
        births = np.random.default_rng([config.seed, 4])
        item_life = _lives(births, config, items, config.item_births)
        item_life[cold] = _release(config), _end(config)
        age = rng.integers(0, len(AGES), users)
        weights = 1 / np.arange(1, len(COUNTRIES) + 1)
        country = rng.choice(len(COUNTRIES), users, p=weights / weights.sum())
        demographics = (
            rng.standard_normal((len(AGES), width))[age] + rng.standard_normal((len(COUNTRIES), width))[country]
        )
        return cls(
            config=config,
            user_start=_mixed(rng, demographics, _DEMOGRAPHIC_SHARE),
            user_turn=rng.standard_normal((users, width)).astype(np.float32),
            user_age=age,
            user_country=country,
            item_vectors=item_vectors.astype(np.float32),
            item_category=category,
            item_tags=tags,
            popularity=rank.astype(np.float64) ** -config.zipf,
            cold=cold,
            user_life=_lives(births, config, users, config.user_births),
            item_life=item_life,
            device_effect=(_DEVICE_EFFECT * rng.standard_normal((len(DEVICES), config.categories))).astype(np.float32),
        )

    @property
    def end(self) -> int:
        """The first second after the world's last."""
        return _end(self.config)

    @property
    def release(self) -> int:
        """The second from which cold items can be picked: the last tenth of the time begins."""
        return _release(self.config)

    def taste(self, users: ArrayLike, times: ArrayLike) -> Floats:
        """[n, d] tastes of `users` at `times` (Unix seconds)."""
        progress = (np.asarray(times, np.float64) - EPOCH) / (self.end - EPOCH)
        angle = (np.pi / 2 * self.config.drift * progress)[..., None]
        rows = np.asarray(users)
        turned = np.cos(angle) * self.user_start[rows] + np.sin(angle) * self.user_turn[rows]
        return turned.astype(np.float32)

    def affinity(self, users: ArrayLike, items: ArrayLike, times: ArrayLike) -> Floats:
        """[n] how much each user likes each item at each time, popularity and context apart; variance about 1."""
        return np.einsum("nd,nd->n", self.taste(users, times), self.item_vectors[np.asarray(items)])

    def scores(self, users: ArrayLike, times: ArrayLike) -> Floats:
        """[n, items] the logits by which the users pick at these times, on an average device; -inf outside a life.

        Ranking by them is the best that any model can do.
        """
        scores = self.config.taste * (self.taste(users, times) @ self.item_vectors.T) + np.log(self.popularity)
        now = np.asarray(times)[:, None]
        alive = (self.item_life[:, 0] <= now) & (now < self.item_life[:, 1])
        return np.where(alive, scores, -np.inf).astype(np.float32)

    def save(self, path: Path) -> None:
        """Write everything into an .npz file."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "config"}
        with path.open("wb") as file:
            np.savez(file, config=np.array(self.config.model_dump_json()), **arrays)

    @classmethod
    def load(cls, path: Path) -> GroundTruth:
        """What `save` has written."""
        with np.load(path, allow_pickle=False) as arrays:
            config = SimulatorConfig.model_validate(json.loads(str(arrays["config"])))
            return cls(config=config, **{name: arrays[name] for name in arrays.files if name != "config"})


def _end(config: SimulatorConfig) -> int:
    return EPOCH + config.days * DAY


def _release(config: SimulatorConfig) -> int:
    return _end(config) - config.days * DAY // 10


def _lives(rng: np.random.Generator, config: SimulatorConfig, count: int, births: int) -> NDArray[np.int64]:
    """[count, 2] from when, until when: each week `births` of those alive, drawn evenly, give way to the next ones."""
    weeks = config.weeks
    alive = np.arange(count - births * (weeks - 1))
    born = np.repeat(np.arange(weeks), [len(alive), *[births] * (weeks - 1)])
    gone = np.full(count, weeks)
    for week in range(1, weeks):
        retired = rng.choice(len(alive), births, replace=False)
        gone[alive[retired]] = week
        alive[retired] = np.flatnonzero(born == week)
    return np.minimum(EPOCH + WEEK * np.stack([born, gone], axis=1), _end(config))


def _two_of(rng: np.random.Generator, count: int, rows: int) -> NDArray[np.int64]:
    """[rows, 2] two different numbers below `count`."""
    first = rng.integers(0, count, rows)
    return np.stack([first, (first + 1 + rng.integers(0, count - 1, rows)) % count], axis=1)


def _mixed(rng: np.random.Generator, explained: NDArray[np.float64], share: float) -> Floats:
    """Vectors of variance 1 in every dimension, a `share` of which is the explained part and the rest noise."""
    noise = rng.standard_normal(explained.shape)
    mixed = np.sqrt(share) * _standardised(explained) + np.sqrt(1 - share) * _standardised(noise)
    return mixed.astype(np.float32)


def _standardised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    deviation = values.std(axis=0)
    return (values - values.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
