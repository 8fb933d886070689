"""Layers that models share."""

from __future__ import annotations

from recsys._compat import keras, tf
from recsys.embeddings.seeds import seed_for
from recsys.models.config import MLPConfig


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
        replica = tf.distribute.get_replica_context()
        number = replica.replica_id_in_sync_group if replica is not None else 0
        seed = tf.stack([tf.cast(self._step, tf.int64), tf.cast(number, tf.int64) * 2**31 + self._seed])
        keep = tf.random.stateless_uniform(tf.shape(x), seed) >= self._rate
        return tf.where(keep, x / (1.0 - self._rate), tf.zeros_like(x))


class MLP(keras.layers.Layer):
    """Dense layers with ReLU and dropout, and optionally a linear output layer: [B, n] -> [B, width]."""

    def __init__(self, config: MLPConfig, output_dim: int | None, seed: int, step: tf.Variable, name: str) -> None:
        super().__init__(name=name)
        self._layers: list[keras.layers.Layer] = []
        for number, width in enumerate(config.hidden):
            layer = f"{name}_{number}"
            initializer = keras.initializers.GlorotUniform(seed=seed_for(seed, "dense", layer))
            self._layers.append(keras.layers.Dense(width, "relu", kernel_initializer=initializer, name=layer))
            self._layers.append(StatelessDropout(config.dropout, seed, step, f"{layer}_dropout"))
        if output_dim is not None:
            initializer = keras.initializers.GlorotUniform(seed=seed_for(seed, "dense", f"{name}_output"))
            self._layers.append(keras.layers.Dense(output_dim, kernel_initializer=initializer, name=f"{name}_output"))

    def input_weights(self) -> list[tuple[tf.Variable, tuple[int, ...]]]:
        """The weights with axes along the input, and which those are: the first layer's kernel, if there is a layer."""
        return [(self._layers[0].kernel, (0,))] if self._layers else []

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Through all layers."""
        for layer in self._layers:
            x = layer(x, training=training) if isinstance(layer, StatelessDropout) else layer(x)
        return x
