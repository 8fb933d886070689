"""Long histories whose truth is known, in which search and representation need different geometries.

An item has a topic and a style, independent of each other. What a user's history says of a candidate is said by the
clicks in the candidate's topic, whatever their style: so the search must go by topic and must not mind style. What
these clicks say is the style that the user prefers in this topic: so the representation must tell styles apart. Vectors
that do both trade one for the other.

By construction nothing else helps. Every item is as likely in a history as any other, and as likely to be clicked when
it is shown; no candidate stands in its own history; every user reads each of their topics equally often; and what they
prefer in one topic says nothing of another. The mean of a history therefore says little: the one topic that matters is
lost among the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from recsys.config.digest import digest
from recsys.data.cache import cache_dir
from recsys.data.ground_truth import EPOCH
from recsys.data.long_histories_config import LongHistoriesConfig
from recsys.data.source import SourceFiles
from recsys.errors import DataError
from recsys.files import new_folder

VERSION = 1
"""Raised whenever the same config gives other events."""
TRUTH = "truth.npz"
"""The file of `LongHistories.load`, beside the tables."""
STEP = 3_600
"""Seconds between two events of a user: the n-th of every user falls into the n-th hour."""

_BLOCK_EVENTS = 1 << 21

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class LongHistories:
    """The truth; items are numbered by `item_id`, users by `user_id`."""

    config: LongHistoriesConfig
    item_topic: Integers
    """[items]"""
    item_style: Integers
    """[items]"""
    user_topics: Integers
    """[users, topics_per_user] in the order in which candidates of them are shown."""
    preferred: Integers
    """[users, topics_per_user] the style that the user prefers in that topic."""

    @classmethod
    def of(cls, config: LongHistoriesConfig) -> LongHistories:
        """The world of `config`: the same in every process."""
        rng = np.random.default_rng([config.seed, 0])
        # Numbered in no order, so that neighbours have nothing in common.
        cell = rng.permutation(config.items) // config.copies
        order = np.argsort(rng.random((config.users, config.topics)), axis=1)
        return cls(
            config=config,
            item_topic=cell // config.styles,
            item_style=cell % config.styles,
            user_topics=order[:, : config.topics_per_user],
            preferred=rng.integers(0, config.styles, (config.users, config.topics_per_user)),
        )

    def relevant(self, targets: ArrayLike, histories: ArrayLike) -> NDArray[np.bool_]:
        """[n, T] whether an event tells anything of the target: the ideal attention.

        Args:
            targets: [n] items.
            histories: [n, T] items; -1 for padding.
        """
        items = np.asarray(histories)
        same = self.item_topic[items] == self.item_topic[np.asarray(targets)][:, None]
        return same & (items >= 0)

    def click_probability(self, targets: ArrayLike, histories: ArrayLike) -> NDArray[np.float64]:
        """[n] of the candidates, for who knows all of this but the user: the clicks in the target's topic are counted
        by style, and Bayes' rule says which is preferred. No model can do better.

        Args:
            targets: [n] items.
            histories: [n, T] items; -1 for padding.
        """
        config, chosen = self.config, np.asarray(targets)
        style = np.where(self.relevant(chosen, histories), self.item_style[np.asarray(histories)], -1)
        counts = np.stack([(style == number).sum(axis=1) for number in range(config.styles)], axis=1)
        other = (1 - config.loyalty) / (config.styles - 1)
        odds = np.log(config.loyalty) - np.log(max(other, np.finfo(np.float64).tiny))
        preferred = np.exp(odds * (counts - counts.max(axis=1, keepdims=True)))
        preferred /= preferred.sum(axis=1, keepdims=True)
        share = np.take_along_axis(preferred, self.item_style[chosen][:, None], axis=1)[:, 0]
        # A candidate has the preferred style half of the time, and each other one equally often else.
        match = share / (share + (1 - share) / (config.styles - 1))
        return config.noise + (1 - 2 * config.noise) * match

    def save(self, path: Path) -> None:
        """Write everything into an .npz file."""
        with path.open("wb") as file:
            np.savez(
                file,
                config=np.array(self.config.model_dump_json()),
                item_topic=self.item_topic,
                item_style=self.item_style,
                user_topics=self.user_topics,
                preferred=self.preferred,
            )

    @classmethod
    def load(cls, path: Path) -> LongHistories:
        """What `save` has written."""
        with np.load(path, allow_pickle=False) as arrays:
            config = LongHistoriesConfig.model_validate(json.loads(str(arrays["config"])))
            return cls(config=config, **{name: arrays[name] for name in arrays.files if name != "config"})


def simulate(config: LongHistoriesConfig, out: Path) -> SourceFiles:
    """Write events, items and the ground truth into the new folder `out`, whole or not at all.

    Events: user_id, item_id, timestamp (Unix seconds), clicked (1, or 0 for a candidate that was shown in vain); by
    user, then time, no two of a user at once. Items: item_id, topic, style.

    Raises:
        DataError: `out` is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(str(out), "is already there", "a new or an empty folder", "name another folder, or remove it")
    truth = LongHistories.of(config)
    with new_folder(out) as folder:
        truth.save(folder / TRUTH)
        items = {"item_id": np.arange(config.items), "topic": truth.item_topic, "style": truth.item_style}
        pq.write_table(pa.table(items), folder / "items.parquet")
        with pq.ParquetWriter(folder / "events.parquet", _EVENT_SCHEMA, compression="zstd") as writer:
            for table in _events(truth):
                writer.write_table(table)
    return _files(out)


def simulated(config: LongHistoriesConfig) -> SourceFiles:
    """The data of `simulate`, made once and kept in the cache."""
    plain = LongHistoriesConfig.model_validate(config.model_dump(include=set(LongHistoriesConfig.model_fields)))
    folder = cache_dir() / "simulated-histories" / f"v{VERSION}-{digest(plain)[:16]}"
    return _files(folder) if folder.is_dir() else simulate(plain, folder)


def _files(folder: Path) -> SourceFiles:
    return SourceFiles((folder / "events.parquet",), items=(folder / "items.parquet",))


_EVENT_SCHEMA = pa.schema(
    {"user_id": pa.int64(), "item_id": pa.int64(), "timestamp": pa.int64(), "clicked": pa.int32()}
)


def _events(truth: LongHistories) -> Iterator[pa.Table]:
    """The event log, a block of users at a time, each block from a seed of its own: memory is bounded."""
    config = truth.config
    step = max(1, _BLOCK_EVENTS // (config.length + config.topics_per_user))
    # [topics * styles, copies] the items of each topic and style.
    cells = np.lexsort((truth.item_style, truth.item_topic)).reshape(-1, config.copies)
    for first in range(0, config.users, step):
        rng = np.random.default_rng([config.seed, 1, first])
        users = np.arange(first, min(first + step, config.users))
        turn = rng.integers(0, config.copies, (len(users), 1))  # which half of the copies is whose
        history = _clicks(rng, truth, users)
        candidates, clicked = _candidates(rng, truth, users)
        half = config.copies // 2
        copy = np.concatenate([rng.integers(0, half, history.shape), rng.integers(half, 2 * half, clicked.shape)], 1)
        items = cells[np.concatenate([history, candidates], 1), (copy + turn) % config.copies]
        hour = np.arange(items.shape[1])
        times = EPOCH + STEP * hour + rng.integers(0, STEP, items.shape)
        labels = np.concatenate([np.ones_like(history), clicked], 1)
        columns = [np.repeat(users, len(hour)), items.ravel(), times.ravel(), labels.ravel().astype(np.int32)]
        yield pa.table(columns, schema=_EVENT_SCHEMA)


def _clicks(rng: np.random.Generator, truth: LongHistories, users: Integers) -> Integers:
    """[n, length] topic and style of each click of the history, as one number."""
    config = truth.config
    place = rng.permuted(np.tile(np.arange(config.length) % config.topics_per_user, (len(users), 1)), axis=1)
    topic = np.take_along_axis(truth.user_topics[users], place, axis=1)
    loyal = rng.random(place.shape) < config.loyalty
    return _cell(rng, truth, topic, np.take_along_axis(truth.preferred[users], place, axis=1), loyal)


def _candidates(rng: np.random.Generator, truth: LongHistories, users: Integers) -> tuple[Integers, Integers]:
    """[n, topics_per_user] topic and style of each candidate, and whether it is clicked."""
    shape = (len(users), truth.config.topics_per_user)
    match = rng.random(shape) < 0.5
    clicked = match ^ (rng.random(shape) < truth.config.noise)
    return _cell(rng, truth, truth.user_topics[users], truth.preferred[users], match), clicked.astype(np.int64)


def _cell(
    rng: np.random.Generator, truth: LongHistories, topic: Integers, preferred: Integers, same: NDArray[np.bool_]
) -> Integers:
    """Topics with the preferred style where it is the `same`, and else with any other one."""
    styles = truth.config.styles
    other = (preferred + rng.integers(1, styles, topic.shape)) % styles
    return topic * styles + np.where(same, preferred, other)
