"""What a user's history says, whatever the candidate, and at which of its moments."""

from __future__ import annotations

from typing import NamedTuple

from recsys._compat import keras, tf
from recsys.embeddings.seeds import seed_for
from recsys.interactions.build import make_encoder
from recsys.interactions.config import EncoderConfig


class Moments(NamedTuple):
    """Points in histories at which somebody is to be recommended something."""

    row: tf.Tensor
    """[n] int32 whose history."""
    place: tf.Tensor
    """[n] int32 how many of its events are known by then."""


class HistoryEncoder(keras.layers.Layer):
    """An encoder over histories, and its state at some of their moments.

    Where no event is known yet, the state is a vector of its own, which is learned.

    Args:
        config: of the encoder.
        length: of the longest history.
        seed: the experiment's seed.
        step: of the training, which dropout masks depend on.
        name: the layer's name.
    """

    def __init__(self, config: EncoderConfig, length: int, seed: int, step: tf.Variable, name: str) -> None:
        super().__init__(name=name, autocast=False)
        self._config, self._seed = config, seed
        self._encoder = make_encoder(config, length, seed, step, f"{name}_layer")

    def build(self, events_shape: tf.TensorShape) -> None:
        """Makes the state of those without a history."""
        initializer = keras.initializers.RandomNormal(stddev=0.02, seed=seed_for(self._seed, self.name, "unknown"))
        shape = (self._config.width(int(events_shape[-1])),)
        self.unknown = self.add_weight(
            name="unknown", shape=shape, initializer=initializer, experimental_autocast=False
        )
        super().build(events_shape)

    def call(
        self, events: tf.Tensor, mask: tf.Tensor, moments: Moments | None = None, training: bool = False
    ) -> tf.Tensor:
        """[n, m] the states at these moments; [B, m] those at the end of each history, if there are none.

        Args:
            events: [B, T, D], oldest first, padded at the end.
            mask: [B, T] bool, true for an event.
            moments: whose, and when.
            training: drops numbers.
        """
        states = (
            self._encoder(events, mask, training=training) if moments is None else self._in_two(events, mask, training)
        )
        unknown = tf.broadcast_to(tf.cast(self.unknown, states.dtype), [tf.shape(states)[0], 1, states.shape[-1]])
        states = tf.concat([unknown, states], 1)
        # After an event whose value is missing stands what stood before it, as at the end of a served history, where
        # such an event cannot be told from padding.
        steps = tf.range(1, tf.shape(mask)[1] + 1)
        known = tf.pad(_running_max(tf.where(mask, steps, 0)), [[0, 0], [1, 0]])
        if moments is None:
            return tf.gather(states, known[:, -1], batch_dims=1)
        where = tf.gather_nd(known, tf.stack([moments.row, moments.place], 1))
        return tf.gather_nd(states, tf.stack([moments.row, where], 1))

    def _in_two(self, events: tf.Tensor, mask: tf.Tensor, training: bool) -> tf.Tensor:
        """The same states, the longest eighth of the histories by itself: most are far shorter than the longest, and
        padding costs as much as events.
        """
        steps = tf.range(1, tf.shape(mask)[1] + 1)
        lengths = tf.reduce_max(tf.where(mask, steps, 0), 1)
        order, rows = tf.argsort(lengths, stable=True), tf.shape(lengths)[0]
        few = rows - rows // 8
        parts = [self._cut(events, mask, lengths, each, training) for each in (order[:few], order[few:])]
        return tf.gather(tf.concat(parts, 0), tf.argsort(order))

    def _cut(
        self, events: tf.Tensor, mask: tf.Tensor, lengths: tf.Tensor, rows: tf.Tensor, training: bool
    ) -> tf.Tensor:
        """States of those rows, computed up to the end of the longest, and 0 after it."""
        longest = tf.maximum(tf.reduce_max(tf.gather(lengths, rows)), 1)
        found = self._encoder(
            tf.gather(events, rows)[:, :longest], tf.gather(mask, rows)[:, :longest], training=training
        )
        return tf.pad(found, [[0, 0], [0, tf.shape(mask)[1] - longest], [0, 0]])


def _running_max(x: tf.Tensor) -> tf.Tensor:
    """[B, T] the greatest number of each row up to each place; rows are short."""
    steps = tf.range(tf.shape(x)[1])
    return tf.reduce_max(tf.where(steps[:, tf.newaxis] >= steps, x[:, tf.newaxis], 0), -1)
