"""How often an item is among the candidates of a batch: from counts, or estimated while batches go by.

A correction has to say what is listed. Where an item that stands in a batch of B rows twice is a candidate twice, that
is its expected number B q; where each item is listed once, the probability 1 - (1 - q)^B that it is there at all. The
other one of the two leaves popularity in the scores.
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike

from recsys._compat import tf
from recsys.embeddings.hashing import hash_rows, salt
from recsys.embeddings.optimizers.access import SomeRows
from recsys.objectives.config import CountsConfig, LogQConfig, StreamingConfig

Listed = Literal["all", "unique"]
TINIEST = 1e-30
"""Keeps the logarithm of what never happens finite."""
SUREST = 1.0 - 2.0**-24
"""The largest float32 probability whose complement is not 0."""


class Frequencies(Protocol):
    """How often each item is in a batch."""

    def observe(self, item_index: tf.Tensor) -> None:
        """Takes notice of a global batch's items [B]: once in each step of training."""

    def rate(self, item_index: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        """Of items of any shape in a batch of `rows` (float32): their expected number where duplicates are listed, the
        probability that they are there where they are not.
        """


def make_frequencies(
    config: LogQConfig, listed: Listed, train_count: ArrayLike, seed: int, step: tf.Variable
) -> Frequencies:
    """What a config describes."""
    match config:
        case CountsConfig():
            return Counted(train_count, listed)
        case StreamingConfig():
            return Streaming(config, listed, seed, step)


class Counted:
    """From each item's share q of the training events: B q, or 1 - (1 - q)^B.

    Args:
        train_count: [N] positive training events.
        listed: whether duplicates are.
    """

    def __init__(self, train_count: ArrayLike, listed: Listed) -> None:
        counts = np.asarray(train_count, np.float64)
        # An item without training events is in no batch; the floor only keeps its logarithm finite.
        self._share = tf.constant(np.maximum(counts, 0.5) / max(counts.sum(), 1.0), tf.float32)
        self._listed = listed

    def observe(self, item_index: tf.Tensor) -> None:
        """Counts are known."""
        return  # AutoGraph cannot read a body that is nothing but a docstring, and says so to the user

    def rate(self, item_index: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        """As `Frequencies.rate`."""
        share = tf.gather(self._share, item_index)
        if self._listed == "all":
            return rows * share
        return -tf.math.expm1(rows * tf.math.log1p(-tf.minimum(share, SUREST)))


class Streaming(tf.Module):
    """From the steps between appearances (Yi et al., algorithm 2). With each of m hashes h, an item y in step t:

        B[h(y)] <- (1 - a) B[h(y)] + a (t - A[h(y)]);   A[h(y)] <- t;   p(y) = 1 / max_h B[h(y)]

    An item that stands in a batch several times moves B by as many intervals, all but one of them 0. So 1 / B tends to
    its expected number in a batch, which may exceed 1; with duplicates taken out first, to the probability that it is
    there at all. Batches are taken in at once: c appearances are B <- (1 - a)^(c-1) ((1 - a) B + a (t - A)).

    A and B are part of every checkpoint. An item that nobody has seen has the frequency that `initial_interval` says.

    Args:
        config: hashes, their rows and a.
        listed: whether duplicates are.
        seed: of the hashes.
        step: of the training.
    """

    def __init__(self, config: StreamingConfig, listed: Listed, seed: int, step: tf.Variable) -> None:
        super().__init__(name="streaming_frequency")
        self._config, self._listed, self._step = config, listed, step
        self._salts = tf.constant([salt(seed, "streaming_frequency", h) for h in range(config.hashes)], tf.int64)
        total = config.hashes * config.rows

        def state(name: str, value: tf.Tensor) -> tf.Variable:
            aggregation = tf.VariableAggregation.ONLY_FIRST_REPLICA
            return tf.Variable(value, trainable=False, name=name, aggregation=aggregation)

        self.last_seen = state("last_seen", tf.zeros(total, tf.int64))
        self.interval = state("interval", tf.fill([total], tf.constant(config.initial_interval, tf.float32)))

    def observe(self, item_index: tf.Tensor) -> None:
        """As `Frequencies.observe`."""
        ids = tf.unique(item_index).y if self._listed == "unique" else item_index
        places, _, times = tf.unique_with_counts(tf.reshape(self._places(ids), [-1]))
        rows, rate, now = SomeRows(places), self._config.learning_rate, tf.cast(self._step, tf.int64) + 1
        since = tf.cast(now - rows.read(self.last_seen), tf.float32)
        first = (1.0 - rate) * rows.read(self.interval) + rate * since
        rows.write(self.interval, first * (1.0 - rate) ** tf.cast(times - 1, tf.float32))
        rows.write(self.last_seen, tf.fill(tf.shape(places), now))

    def rate(self, item_index: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        """As `Frequencies.rate`; the batches seen tell how many rows they have."""
        return 1.0 / tf.reduce_max(tf.gather(self.interval, self._places(item_index)), axis=-1)

    def _places(self, item_index: tf.Tensor) -> tf.Tensor:
        """[..., m] int64: each hash has its own stretch of the rows."""
        ids = tf.cast(item_index, tf.int64)[..., tf.newaxis]
        first = tf.range(self._config.hashes, dtype=tf.int64) * self._config.rows
        return hash_rows(ids, self._salts, tf.constant(self._config.rows, tf.int64)) + first


def log_presence(
    rate: tf.Tensor, rows: tf.Tensor, listed: Listed, uniform: int, catalogue: int, others: bool
) -> tf.Tensor:
    """The log of how often an item is expected among the candidates: the batch's, and `uniform` ones drawn with
    replacement from `catalogue` items.

        all       log(rate + uniform / catalogue)
        unique    log(1 - (1 - rate) (1 - 1 / catalogue)^uniform)

    The first is, but for the constant log(B + uniform), the log of the mixture that mixed negative sampling corrects
    by.

    Args:
        rate: of the batch's `rows` rows, by `Frequencies.rate`.
        rows: B, float32.
        listed: whether duplicates are.
        uniform: further candidates.
        catalogue: N.
        others: in the other B - 1 rows alone: for a query's negatives, if its own item, which is there with certainty,
            is not corrected.
    """
    share = (rows - 1.0) / rows if others else tf.ones([])
    if listed == "all":
        return tf.math.log(tf.maximum(rate * share + uniform / catalogue, TINIEST))
    missing = share * tf.math.log1p(-tf.minimum(rate, SUREST)) + uniform * np.log1p(-min(1.0 / catalogue, SUREST))
    return tf.math.log(tf.maximum(-tf.math.expm1(missing), TINIEST))
