"""Training by sequences: each row is a window of a user's history, with all training examples that fall into it.

A causal encoder gives a state after each event of a window, so one pass over it serves all its examples; an example's
query is the state after the events that came strictly before it, `place` of them. Nothing else of the window is seen
by it, so windows and examples by themselves (`reader.Examples`) obey one law of what is known when.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.data.dataset import SequenceInfo
from recsys.data.prepared import Prepared, dense
from recsys.data.reader import CHUNK, Shard
from recsys.errors import DataError

NO_TARGET = -1
"""The place of what only fills up a row."""


class Sequences:
    """The positive training examples as batches of windows.

    A user's events are cut into windows of the histories' length from the newest example's history backwards, and each
    example belongs to the one that its history ends in; so each is in exactly one window, and sees an event at least
    unless there is none. More examples than events fit into a window only where many share one time: they get another
    row with the same events. Positions are a function of (seed, epoch), as in `reader.Examples`; all examples'
    indices are held in memory, 16 bytes for each and its context features.

    Args:
        prepared: the data set; all histories that the model reads have one length.
        batch_size: windows in a global batch; the epoch's last incomplete batch is left out.
        seed: shuffles; None keeps the order of users.

    Raises:
        DataError: there are fewer windows than one batch.
    """

    def __init__(self, prepared: Prepared, batch_size: int, seed: int | None) -> None:
        self._prepared, self._seed, self.batch_size = prepared, seed, batch_size
        infos = prepared.info.inputs.values()
        self.length = max(info.max_length for info in infos if isinstance(info, SequenceInfo))
        context = prepared.names("context")
        own = ["user_index", "item_index", "label", "weight", "history_stop"]
        table = prepared.examples("train", [*own, *context])
        table = table.filter(pa.compute.equal(table["label"], 1.0))
        order = np.lexsort((table["history_stop"].to_numpy(), table["user_index"].to_numpy()))
        table = table.take(pa.array(order))
        self._item, self._weight = table["item_index"].to_numpy(), table["weight"].to_numpy()
        self._context = {name: dense(table[name], prepared.info, name) for name in context}
        stop = table["history_stop"].to_numpy()
        self._cut(table["user_index"].to_numpy(), stop)
        window = np.repeat(np.arange(len(self._user)), self._count)
        self._place = np.minimum(stop - self._start[window], self.length).astype(np.int32)
        self.steps_per_epoch = len(self._user) // batch_size
        if self.steps_per_epoch == 0:
            raise DataError(
                f"{prepared.info.name}: train",
                f"{len(self._user)} windows of {self.length} events",
                f"at least one batch of {batch_size}",
                "lower training.batch_size: with `examples: sequences` it counts windows",
            )

    @property
    def examples_per_step(self) -> float:
        """Examples in a batch, in the mean over all windows: what the sum of their losses is divided by."""
        return self.batch_size * len(self._item) / len(self._user)

    def batches(
        self, epoch: int, step: int = 0, shard: Shard = Shard(), local_batch: int | None = None
    ) -> tf.data.Dataset:
        """The epoch's batches from global step `step` on, as `docs/architecture.md` describes a batch of windows.

        Arguments and errors are those of `reader.Examples.batches`.
        """
        size = local_batch or self.batch_size // shard.count
        if self.batch_size % (shard.count * size):
            raise ValueError(f"{self.batch_size} rows in {shard.count} slices cannot be cut into batches of {size}")
        signature = tf.nest.map_structure(
            lambda a: tf.TensorSpec((None, *a.shape[1:]), a.dtype), self._batch(np.empty(0, np.int64))
        )
        dataset = tf.data.Dataset.from_generator(lambda: self._chunks(epoch, step, shard), output_signature=signature)
        return dataset.rebatch(size, drop_remainder=True).prefetch(2)

    def once(self) -> Iterator[dict[str, Any]]:
        """Every window once, in the order of users: for counting."""
        return self._pieces(np.arange(len(self._user)))

    def sample(self, rows: int = 2) -> dict[str, Any]:
        """The first windows, as a batch: what a model is built with."""
        return self._batch(np.arange(min(rows, len(self._user))))

    def _cut(self, user: NDArray[np.int32], stop: NDArray[np.int64]) -> None:
        """Makes the windows of examples that are sorted by user and by where their histories end."""
        count = len(user)
        last = np.flatnonzero(np.append(user[1:] != user[:-1], True))
        newest = stop[last[np.searchsorted(last, np.arange(count))]]
        piece = (newest - stop) // self.length
        begins = np.append(True, (user[1:] != user[:-1]) | (piece[1:] != piece[:-1]))[:count]
        run = np.flatnonzero(begins)
        rank = np.arange(count) - np.repeat(run, np.diff(np.append(run, count)))
        self._first = np.flatnonzero(rank % self.length == 0)
        self._count = np.diff(np.append(self._first, count))
        self._user = user[self._first]
        self._stop = stop[self._first + self._count - 1]
        self._start = np.maximum(self._prepared.event_start[self._user], self._stop - self.length)
        self._most = int(self._count.max(initial=1))

    def _chunks(self, epoch: int, step: int, shard: Shard) -> Iterator[dict[str, Any]]:
        windows = np.arange(len(self._user))
        if self._seed is not None:
            windows = np.random.default_rng((self._seed, epoch)).permutation(windows)
        places = np.arange(step * self.batch_size, self.steps_per_epoch * self.batch_size)
        own = places % self.batch_size * shard.count // self.batch_size == shard.index
        return self._pieces(windows[places[own]])

    def _pieces(self, windows: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
        rows = max(1, CHUNK // self.length)
        for at in range(0, len(windows), rows):
            yield self._batch(windows[at : at + rows])

    def _batch(self, windows: NDArray[np.int64]) -> dict[str, Any]:
        """Of those windows."""
        prepared, user = self._prepared, self._user[windows]
        inside = np.arange(self._most) < self._count[windows][:, None]
        target = np.where(inside, self._first[windows][:, None] + np.arange(self._most), 0)
        item = self._item[target]
        context = {name: _kept(column[target], inside) for name, column in self._context.items()}
        return {
            "query": prepared.query_features(user, self._stop[windows], context, None),
            "item": {name: _kept(column[item], inside) for name, column in prepared.item_features.items()},
            "user_index": user,
            "item_index": item,
            "place": np.where(inside, self._place[target], NO_TARGET).astype(np.int32),
            "weight": self._weight[target] * inside,
        }


def _kept(values: NDArray, inside: NDArray[np.bool_]) -> NDArray:
    """[B, L, ...] with 0, which is MISSING, outside."""
    return np.where(inside.reshape(inside.shape + (1,) * (values.ndim - 2)), values, np.zeros((), values.dtype))
