"""Hard negatives for the next epoch, from the ranking that the model gives each user now."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys._compat import keras
from recsys.data.prepared import Features, Prepared, dense
from recsys.errors import ConfigError
from recsys.objectives.config import MinedConfig
from recsys.ragged import Ragged
from recsys.retrieval.build import build_index
from recsys.retrieval.index import Vectors

BLOCK = 16_384
"""Users whose rankings are in memory at once."""


class Mining(keras.callbacks.Callback):
    """Fills the model's hard negatives at the end of an epoch.

    It happens before the checkpoint of that moment, which so holds what the next epoch draws from: a resumed run mines
    nothing twice.

    Args:
        config: which ranks, how many of them, from which epoch on.
        prepared: the data set.
        seed: of the choice among the ranks, with the epoch.

    Raises:
        ConfigError: the catalogue has no such ranks.
    """

    def __init__(self, config: MinedConfig, prepared: Prepared, seed: int) -> None:
        super().__init__()
        first, items = config.ranks[0], prepared.info.counts.items
        if items < first + config.kept:
            raise ConfigError(
                "model.loss.mined.ranks",
                f"begin at {first}, and {config.kept} items are kept for each user, but the catalogue has {items}",
                "ranks that leave enough items",
                "lower ranks and kept, or leave mined negatives out: other candidates are as hard in so few items",
            )
        self._config, self._prepared, self._seed = config, prepared, seed

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Mines, if the next epoch is to have any; `epoch` counts from 0, as Keras does."""
        if epoch + 2 < self._config.from_epoch:
            return
        prepared, mined = self._prepared, self.model.objective.listing.mined
        users, query = newest_queries(prepared)
        found = hard_negatives(
            self.model.query_vectors(query),
            self.model.item_vectors(prepared.item_features),
            prepared.seen_before("valid").take(users),
            self._config,
            np.random.default_rng([self._seed, 1 + epoch]),
        )
        items = np.full(mined.items.shape, -1, np.int32)
        items[users] = found
        mined.items.assign(items)


def newest_queries(prepared: Prepared) -> tuple[NDArray[np.int32], Features]:
    """The users [Q] with positive training examples, ascending, and their features at the newest one of each."""
    time = ["time"] if prepared.info.has_time else []
    context = prepared.names("context")
    table = prepared.examples("train", ["user_index", "label", "history_stop", *time, *context])
    table = table.filter(table["label"].to_numpy() == 1.0)
    table = table.sort_by([(key, "ascending") for key in ("user_index", *time, "history_stop")])
    user = table["user_index"].to_numpy()
    last = table.take(np.flatnonzero(np.append(user[1:] != user[:-1], True)))
    users = last["user_index"].to_numpy()
    described = {name: dense(last[name], prepared.info, name) for name in context}
    moment = last["time"].to_numpy() if time else None
    return users, prepared.query_features(users, last["history_stop"].to_numpy(), described, moment)


def hard_negatives(
    queries: Vectors, items: Vectors, positives: Ragged, config: MinedConfig, random: np.random.Generator
) -> NDArray[np.int32]:
    """[Q, kept] items of each query's middle ranks, at random among them; -1 where there are too few.

    Args:
        queries: [Q, d]
        items: [N, d]
        positives: Q rows of items that stand in no ranking.
        config: the ranks, and the index that finds them.
        random: chooses.
    """
    first, last = config.ranks
    index = build_index(items, config.index)
    found = np.empty((len(queries), config.kept), np.int32)
    for start in range(0, len(queries), BLOCK):
        rows = slice(start, min(start + BLOCK, len(queries)))
        ranked = index.search(queries[rows], last, positives.slice(rows.start, rows.stop)).ids[:, first - 1 :]
        order = random.random(ranked.shape)
        order[ranked < 0] = 2.0
        chosen = np.argpartition(order, config.kept - 1, axis=1)[:, : config.kept]
        found[rows] = np.take_along_axis(ranked, chosen, 1)
    return found
