"""A history through gated recurrent units (GRU4Rec: Hidasi et al., "Session-based Recommendations with Recurrent Neural
Networks", ICLR 2016).
"""

from __future__ import annotations

from recsys._compat import keras, tf
from recsys.embeddings.seeds import seed_for
from recsys.interactions.config import GRUConfig
from recsys.interactions.dropout import StatelessDropout


class GRU(keras.layers.Layer):
    """Keras' GRU, one layer or several; an event whose value is missing is a vector of zeros.

    Args:
        config: width, layers, dropout.
        seed: the experiment's seed.
        step: of the training, which dropout masks depend on.
        name: the layer's name; initial weights depend on it and on the seed.
    """

    def __init__(self, config: GRUConfig, seed: int, step: tf.Variable, name: str) -> None:
        super().__init__(name=name)
        self._config, self._seed = config, seed
        self._dropouts = [
            StatelessDropout(config.dropout, seed, step, f"{name}_dropout_{number}") for number in range(config.layers)
        ]

    def build(self, history_shape: tf.TensorShape) -> None:
        """Makes the recurrent layers."""
        self._layers = [self._recurrent(number, int(history_shape[-1])) for number in range(self._config.layers)]
        super().build(history_shape)

    def call(self, history: tf.Tensor, mask: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, T, m] the state after each event.

        Args:
            history: [B, T, D] events, oldest first.
            mask: [B, T] bool, true for an event.
            training: drops numbers.
        """
        x = tf.where(mask[..., tf.newaxis], history, tf.zeros_like(history))
        for layer, dropout in zip(self._layers, self._dropouts, strict=True):
            x = layer(dropout(x, training=training))
        return x

    def _recurrent(self, number: int, width: int) -> keras.layers.Layer:
        name = f"layer_{number}"
        return keras.layers.GRU(
            self._config.width(width),
            return_sequences=True,
            kernel_initializer=keras.initializers.GlorotUniform(seed_for(self._seed, self.name, name, "kernel")),
            recurrent_initializer=keras.initializers.Orthogonal(seed=seed_for(self._seed, self.name, name, "state")),
            name=name,
        )
