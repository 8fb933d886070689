"""Event logs of any size from a world whose truth is known.

A user's events come in sessions over the days. For each event, candidates are offered in proportion to the items'
popularity, and the user picks one by softmax over taste (which drifts) and device: as the candidates grow in number,
this tends to softmax(taste * affinity + log popularity + device effect) over the whole catalogue. The rating that
follows tells the affinity, with noise. With turnover, users and items are born and retire at the weeks' beginnings:
users come, and items are offered, in their lives only.

Events are made for a block of users at a time, each block from a seed of its own, so memory is bounded at any size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.config.digest import digest
from recsys.data.cache import cache_dir
from recsys.data.ground_truth import AGES, COUNTRIES, DAY, DEVICES, EPOCH, TAGS_PER_ITEM, GroundTruth
from recsys.data.simulator_config import SimulatorConfig
from recsys.data.source import SourceFiles
from recsys.errors import DataError
from recsys.files import new_folder

VERSION = 2
"""Raised whenever the same config gives other events."""
TRUTH = "truth.npz"
"""The file of `GroundTruth.load`, beside the tables."""

_CANDIDATES = 24
_BLOCK_FLOATS = 1 << 25  # candidates' vectors of one block: 128 MiB
_REDRAWS = 12
_NEW_SESSION = 0.25
_SAME_SECOND = 0.3
_MEAN_GAP = 40  # seconds between two events of a session
_SESSION_ROOM = 3_600  # sessions begin at least an hour before the end

Integers = NDArray[np.int64]


def simulate(config: SimulatorConfig, out: Path) -> SourceFiles:
    """Write events, items, users and the ground truth into the new folder `out`, whole or not at all.

    Events: user_id, item_id, timestamp (Unix seconds), rating (1 to 5), device, hour; by user, then time. Items:
    item_id, title, category, tags, price (which does not matter). Users: user_id, age, country.

    Raises:
        DataError: `out` is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(str(out), "is already there", "a new or an empty folder", "name another folder, or remove it")
    truth = GroundTruth.of(config)
    with new_folder(out) as folder:
        truth.save(folder / TRUTH)
        pq.write_table(_items(truth), folder / "items.parquet")
        pq.write_table(_users(truth), folder / "users.parquet")
        with pq.ParquetWriter(folder / "events.parquet", _EVENT_SCHEMA, compression="zstd") as writer:
            for table in _events(truth):
                writer.write_table(table)
    return _files(out)


def simulated(config: SimulatorConfig) -> SourceFiles:
    """The data of `simulate`, made once and kept in the cache."""
    plain = SimulatorConfig.model_validate(config.model_dump(include=set(SimulatorConfig.model_fields)))
    folder = cache_dir() / "simulated" / f"v{VERSION}-{digest(plain)[:16]}"
    return _files(folder) if folder.is_dir() else simulate(plain, folder)


def _files(folder: Path) -> SourceFiles:
    return SourceFiles(
        (folder / "events.parquet",), items=(folder / "items.parquet",), users=(folder / "users.parquet",)
    )


_EVENT_SCHEMA = pa.schema(
    {
        "user_id": pa.int64(),
        "item_id": pa.int64(),
        "timestamp": pa.int64(),
        "rating": pa.int32(),
        "device": pa.string(),
        "hour": pa.int32(),
    }
)


def _items(truth: GroundTruth) -> pa.Table:
    count = truth.config.items
    ids = pa.array(np.arange(count))
    category = pc.binary_join_element_wise("category", pa.array(truth.item_category).cast(pa.string()), " ")
    tags = pc.binary_join_element_wise("tag", pa.array(truth.item_tags.ravel()).cast(pa.string()), " ")
    offsets = pa.array(np.arange(count + 1, dtype=np.int32) * TAGS_PER_ITEM)
    price = np.random.default_rng([truth.config.seed, 1]).lognormal(2.5, 0.6, count).round(2)
    return pa.table(
        {
            "item_id": ids,
            # With the category, so that whoever reads recommendations sees tastes in them.
            "title": pc.binary_join_element_wise("Item", ids.cast(pa.string()), "of", category, " "),
            "category": category,
            "tags": pa.ListArray.from_arrays(offsets, tags),
            "price": price,
        }
    )


def _users(truth: GroundTruth) -> pa.Table:
    return pa.table(
        {
            "user_id": np.arange(truth.config.users),
            "age": pa.array(AGES).take(pa.array(truth.user_age)),
            "country": pa.array(COUNTRIES).take(pa.array(truth.user_country)),
        }
    )


def _events(truth: GroundTruth) -> Iterator[pa.Table]:
    """The event log, a block of users at a time."""
    config = truth.config
    counts = _events_per_user(truth)
    ends = np.cumsum(counts)
    block_events = max(1, _BLOCK_FLOATS // (_CANDIDATES * max(config.latent_dim, 8)))
    block_of_user = (ends - counts) // block_events
    offers = _Offers.of(truth)
    for block in np.unique(block_of_user):
        rng = np.random.default_rng([config.seed, 3, int(block)])
        users = np.flatnonzero(block_of_user == block)
        yield _block(rng, truth, offers, np.repeat(users, counts[users]))


def _events_per_user(truth: GroundTruth) -> Integers:
    """[users] a few users make many of the events; without repeats, none picks more than half of the items."""
    config = truth.config
    rng = np.random.default_rng([config.seed, 2])
    lifetime = np.ptp(truth.user_life, axis=1) / (truth.end - EPOCH)
    activity = rng.lognormal(0.0, 1.0, config.users) * lifetime
    counts = rng.multinomial(config.events, activity / activity.sum())
    if config.repeats:
        return counts
    most = max(1, config.active_items // 2)
    spare = int(np.maximum(counts - most, 0).sum())
    counts = np.minimum(counts, most)
    room = most - counts
    # Spread what was cut off over the users who have room, in proportion to it.
    return counts + (rng.multivariate_hypergeometric(room, min(spare, int(room.sum()))) if spare else 0)


def _block(rng: np.random.Generator, truth: GroundTruth, offers: _Offers, users: Integers) -> pa.Table:
    times, devices = _visits(rng, truth, users)
    order = np.lexsort((times, users))
    times, devices = times[order], devices[order]
    items = _choose(rng, truth, offers, users, times, devices)
    if not truth.config.repeats:
        keep = _redraw_repeats(rng, truth, offers, users, times, devices, items)
        users, items, times, devices = users[keep], items[keep], times[keep], devices[keep]
    affinity = truth.affinity(users, items, times)
    rating = np.clip(np.rint(2.8 + 0.8 * (affinity + 0.6 * rng.standard_normal(len(items)))), 1, 5)
    columns = [
        users,
        items,
        times,
        rating.astype(np.int32),
        pa.array(DEVICES).take(pa.array(devices)),
        ((times // 3_600) % 24).astype(np.int32),
    ]
    return pa.table(columns, schema=_EVENT_SCHEMA)


def _visits(rng: np.random.Generator, truth: GroundTruth, users: Integers) -> tuple[Integers, Integers]:
    """[n] times and devices: sessions when people have time, their events seconds apart, or in one second."""
    count = len(users)
    starts = rng.random(count) < _NEW_SESSION
    starts[0] = True
    starts[1:] |= users[1:] != users[:-1]
    session = np.cumsum(starts) - 1
    sessions = int(session[-1]) + 1
    hours = np.arange(24)
    habit = 1 + 0.9 * np.cos(2 * np.pi * (hours - 20) / 24)
    hour = rng.choice(24, sessions, p=habit / habit.sum())
    born, gone = truth.user_life[users[starts]].T
    # A day of the world, scaled to the user's life.
    day = rng.integers(0, truth.config.days, sessions) * ((gone - born) // DAY) // truth.config.days
    begin = born + day * DAY + hour * 3_600 + rng.integers(0, 3_600, sessions)
    begin = np.minimum(begin, gone - _SESSION_ROOM)
    # Working hours belong to the desktop, evenings to the television.
    weights = np.stack([np.full(24, 2.0), 0.3 + 2.0 * ((hours >= 9) & (hours < 18)), 0.2 + 1.5 * (hours >= 18)], axis=1)
    upper = np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)[:, :-1]
    device = (rng.random(sessions)[:, None] > upper[hour]).sum(axis=1)
    gap = np.where(rng.random(count) < _SAME_SECOND, 0, rng.geometric(1 / _MEAN_GAP, count))
    passed = np.cumsum(gap)
    since_start = passed - passed[np.flatnonzero(starts)][session]
    return np.minimum(begin[session] + since_start, gone[session] - 1), device[session]


@dataclass(frozen=True)
class _Offers:
    """The items alive between two moments at which any is born or retires, and their cumulative popularity."""

    since: Integers
    """[periods] the first second of each."""
    alive: list[Integers]
    cumulative: list[NDArray[np.float64]]

    @classmethod
    def of(cls, truth: GroundTruth) -> _Offers:
        born, gone = truth.item_life.T
        since = np.unique(np.append(truth.item_life, EPOCH))[:-1]  # the last one is the end
        alive = [np.flatnonzero((born <= moment) & (moment < gone)) for moment in since]
        sums = [np.cumsum(truth.popularity[items]) for items in alive]
        return cls(since, alive, [values / values[-1] for values in sums])

    def draw(self, rng: np.random.Generator, times: Integers) -> Integers:
        """[n, candidates] items offered at `times`, in proportion to their popularity."""
        period = np.searchsorted(self.since, times, side="right") - 1
        uniform = rng.random((len(times), _CANDIDATES))
        offered = np.empty(uniform.shape, np.int64)
        for number in np.unique(period):
            rows = period == number
            offered[rows] = self.alive[number][np.searchsorted(self.cumulative[number], uniform[rows], side="right")]
        return offered


def _choose(
    rng: np.random.Generator,
    truth: GroundTruth,
    offers: _Offers,
    users: Integers,
    times: Integers,
    devices: Integers,
    taken: Integers | None = None,
) -> Integers:
    """[n] the picked items: the largest of utility plus Gumbel noise among the candidates, which is softmax sampling.

    `taken` (sorted keys of users and items) are passed over unless nothing else is offered.
    """
    offered = offers.draw(rng, times)
    utility = truth.config.taste * np.einsum("nd,nmd->nm", truth.taste(users, times), truth.item_vectors[offered])
    utility += truth.device_effect[devices[:, None], truth.item_category[offered]]
    noise = rng.standard_exponential(utility.shape, dtype=np.float32)
    utility -= np.log(np.maximum(noise, np.finfo(np.float32).tiny))
    if taken is not None:
        keys = _key(truth, users[:, None], offered)
        nearest = np.minimum(np.searchsorted(taken, keys), len(taken) - 1)
        utility[taken[nearest] == keys] = -np.inf
    return np.take_along_axis(offered, utility.argmax(axis=1)[:, None], axis=1)[:, 0]


def _redraw_repeats(
    rng: np.random.Generator,
    truth: GroundTruth,
    offers: _Offers,
    users: Integers,
    times: Integers,
    devices: Integers,
    items: Integers,
) -> NDArray[np.bool_]:
    """Let users who have picked an item twice pick anew (in place); which events are no repeats in the end."""
    for _ in range(_REDRAWS):
        keys = _key(truth, users, items)
        again = _is_repeat(keys)
        if not again.any():
            break
        items[again] = _choose(rng, truth, offers, users[again], times[again], devices[again], taken=np.unique(keys))
    return ~_is_repeat(_key(truth, users, items))


def _key(truth: GroundTruth, users: Integers, items: Integers) -> Integers:
    """One number for each pair of a user and an item."""
    return users * truth.config.items + items


def _is_repeat(keys: Integers) -> NDArray[np.bool_]:
    """[n] whether the same key stands earlier in the array."""
    _, first = np.unique(keys, return_index=True)
    repeat = np.ones(len(keys), bool)
    repeat[first] = False
    return repeat
