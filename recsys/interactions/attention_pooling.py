"""A history as a weighted mean of its events."""

from __future__ import annotations

from recsys._compat import keras, tf
from recsys.embeddings.seeds import seed_for
from recsys.interactions.attention import masked_softmax
from recsys.interactions.config import AttentionPoolingConfig


class AttentionPooling(keras.layers.Layer):
    """Attention without a candidate, over the events so far:

        score_ts = u · tanh(W e_s + b) + r_{t-s}
        state_t  = Σ_{s <= t} softmax_s(score_ts) e_s

    What an event is counts as in Yang et al. ("Hierarchical Attention Networks", NAACL 2016, eqs. 5 to 7); r, which
    starts at 0, says how much it counts so many events later. An event whose value is missing has no weight; before the
    first that has one, the state is 0.

    Args:
        config: the width of the scoring layer.
        length: the longest history.
        seed: the experiment's seed.
        name: the layer's name; initial weights depend on it and on the seed.
    """

    def __init__(self, config: AttentionPoolingConfig, length: int, seed: int, name: str) -> None:
        super().__init__(name=name)
        self._config, self._length, self._seed = config, length, seed

    def build(self, history_shape: tf.TensorShape) -> None:
        """Makes the scoring layer and the weights by distance."""
        hidden = self._config.hidden or int(history_shape[-1])
        self._hidden = keras.layers.Dense(
            hidden, "tanh", kernel_initializer=_glorot(self._seed, self.name, "hidden"), name="hidden"
        )
        self._score = keras.layers.Dense(
            1, use_bias=False, kernel_initializer=_glorot(self._seed, self.name, "score"), name="score"
        )
        self.recency = self.add_weight(name="recency", shape=(self._length,), initializer="zeros")
        super().build(history_shape)

    def call(self, history: tf.Tensor, mask: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, T, D] the state after each event.

        Args:
            history: [B, T, D] events, oldest first.
            mask: [B, T] bool, true for an event.
            training: makes no difference.
        """
        steps = tf.range(tf.shape(history)[1])
        distance = steps[:, tf.newaxis] - steps
        ago = tf.gather(tf.cast(self.recency, tf.float32), tf.clip_by_value(distance, 0, self._length - 1))
        score = tf.cast(self._score(self._hidden(history))[..., 0], tf.float32)
        weights = masked_softmax(score[:, tf.newaxis] + ago, mask[:, tf.newaxis] & (distance >= 0))
        return tf.matmul(tf.cast(weights, history.dtype), history)


def _glorot(seed: int, *names: str) -> keras.initializers.Initializer:
    return keras.initializers.GlorotUniform(seed=seed_for(seed, "attention_pooling", *names))
