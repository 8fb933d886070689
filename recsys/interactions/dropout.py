"""Dropout that resumes: its masks are drawn anew from (seed, step) at every step."""

from __future__ import annotations

from recsys._compat import keras, tf
from recsys.embeddings.draws import step_seed
from recsys.embeddings.seeds import seed_for


class StatelessDropout(keras.layers.Layer):
    """Dropout whose mask is a function of (seed, step, replica), so that a resumed run draws the masks it would have
    drawn.
    """

    def __init__(self, rate: float, seed: int, step: tf.Variable, name: str) -> None:
        super().__init__(name=name)
        self._rate, self._seed, self._step = rate, seed_for(seed, "dropout", name), step

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Zeroes a share `rate` of x and scales the rest by 1 / (1 - rate), in training only."""
        if not training or self._rate == 0.0:
            return x
        keep = tf.random.stateless_uniform(tf.shape(x), step_seed(self._step, self._seed)) >= self._rate
        return tf.where(keep, x / (1.0 - self._rate), tf.zeros_like(x))
