"""Layers that models share."""

from __future__ import annotations

from recsys._compat import keras, tf
from recsys.embeddings.seeds import seed_for
from recsys.interactions.dice import Dice
from recsys.interactions.dropout import StatelessDropout
from recsys.models.config import MLPConfig


class MLP(keras.layers.Layer):
    """Dense layers with activation and dropout, and optionally a linear output layer: [B, n] -> [B, width]."""

    def __init__(self, config: MLPConfig, output_dim: int | None, seed: int, step: tf.Variable, name: str) -> None:
        super().__init__(name=name)
        self._layers: list[keras.layers.Layer] = []
        for number, width in enumerate(config.hidden):
            layer = f"{name}_{number}"
            initializer = keras.initializers.GlorotUniform(seed=seed_for(seed, "dense", layer))
            activation = "relu" if config.activation == "relu" else None
            self._layers.append(keras.layers.Dense(width, activation, kernel_initializer=initializer, name=layer))
            if config.activation == "dice":
                self._layers.append(Dice(f"{layer}_dice"))
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
            x = layer(x, training=training) if isinstance(layer, StatelessDropout | Dice) else layer(x)
        return x
