"""DIN: Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018 (arXiv:1706.06978)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from recsys._compat import keras, tf
from recsys.embeddings.seeds import seed_for
from recsys.interactions.config import DINConfig
from recsys.interactions.dice import Dice

Activation = Literal["dice", "sigmoid", "prelu"]

_NEVER = -1e9
"""Score of padding before the softmax: infinity would make an empty history NaN."""


class DIN(keras.layers.Layer):
    """The user as the target sees them: every event of the history weighs as the activation unit says.

        a_j = MLP([v; e_j; v - e_j; v ⊙ e_j])      the activation unit, figure 2
        v_U = Σ_j a_j e_j                           eq. 3

    The paper leaves the a_j as they are, so that their sum tells how intense the interest is. Its authors' code divides
    them by √D and takes their softmax over the events. `softmax` says which.

    Args:
        config: the activation unit, and whether its weights are normalised.
        seed: the experiment's seed.
        name: the layer's name; initial weights depend on it and on the seed.
    """

    def __init__(self, config: DINConfig, seed: int, name: str = "din") -> None:
        super().__init__(name=name)
        self._softmax = config.softmax
        self._unit = ActivationUnit(config.hidden, config.activation, seed, f"{name}_unit")

    def call(self, target: tf.Tensor, history: tf.Tensor, mask: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, D] the weighted sum of the events; zeros for an empty history.

        Args:
            target: [B, D] the candidate's vector v.
            history: [B, T, D] the events' vectors e_j, padded.
            mask: [B, T] bool, true for an event.
            training: for Dice.
        """
        weights = tf.cast(self.weigh(target, history, mask, training), self.compute_dtype)
        return tf.squeeze(weights[:, tf.newaxis] @ tf.cast(history, self.compute_dtype), 1)

    def weigh(self, target: tf.Tensor, history: tf.Tensor, mask: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, T] float32 how much each event counts, 0 for padding; arguments as for `call`."""
        scores = tf.cast(self._unit(target, history, mask, training=training), tf.float32)
        events = tf.cast(mask, tf.float32)
        if not self._softmax:
            return scores * events
        scores *= history.shape[-1] ** -0.5
        return tf.nn.softmax(tf.where(mask, scores, _NEVER)) * events


class ActivationUnit(keras.layers.Layer):
    """a_j = MLP([v; e_j; v - e_j; v ⊙ e_j]): [B, D] and [B, T, D] -> [B, T].

    Args:
        hidden: widths of the MLP's layers before the linear one of width 1.
        activation: between them.
        seed: the experiment's seed.
        name: the layer's name.
    """

    def __init__(self, hidden: Sequence[int], activation: Activation, seed: int, name: str) -> None:
        super().__init__(name=name)
        first, *others = (*hidden, 1)
        self._first = _PairDense(first, seed, f"{name}_0")
        self._activations = [_activation(activation, f"{name}_{activation}_{n}") for n in range(len(hidden))]
        self._others = [_dense(width, seed, f"{name}_{n}") for n, width in enumerate(others, 1)]

    def call(self, target: tf.Tensor, history: tf.Tensor, mask: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, T] a score for each event; those of padding mean nothing. Arguments as for `DIN.call`."""
        x = self._first(target, history)
        for activation, dense in zip(self._activations, self._others, strict=True):
            x = activation(x, mask=mask, training=training) if isinstance(activation, Dice) else activation(x)
            x = dense(x)
        return tf.squeeze(x, -1)


class _PairDense(keras.layers.Layer):
    """A dense layer over [v; e_j; v - e_j; v ⊙ e_j], which never stand side by side in memory: [B, T, width].

    With its kernel cut into four, that is v (W_1 + W_3) + e_j (W_2 - W_3 + diag(v) W_4) + b: a target's own matrix for
    all its events, a quarter of the products.
    """

    def __init__(self, width: int, seed: int, name: str) -> None:
        super().__init__(name=name)
        self._width, self._initializer = width, _glorot(seed, name)

    def build(self, shape: tf.TensorShape) -> None:
        """Makes the kernel [4D, width] and the bias."""
        self.kernel = self.add_weight(name="kernel", shape=(4 * shape[-1], self._width), initializer=self._initializer)
        self.bias = self.add_weight(name="bias", shape=(self._width,), initializer="zeros")
        super().build(shape)

    def call(self, target: tf.Tensor, history: tf.Tensor) -> tf.Tensor:
        """From v [B, D] and e [B, T, D]."""
        v, e = tf.cast(target, self.compute_dtype), tf.cast(history, self.compute_dtype)
        of_target, of_event, of_difference, of_product = tf.split(self.kernel, 4)
        matrices = of_event - of_difference + v[:, :, tf.newaxis] * of_product
        return e @ matrices + (v @ (of_target + of_difference) + self.bias)[:, tf.newaxis]


def _activation(kind: Activation, name: str) -> keras.layers.Layer:
    match kind:
        case "dice":
            return Dice(name)
        case "prelu":
            # One slope a unit, whatever the event, from where He et al. (2015) start it.
            return keras.layers.PReLU(keras.initializers.Constant(0.25), shared_axes=[1], name=name)
        case "sigmoid":
            return keras.layers.Activation("sigmoid", name=name)


def _dense(width: int, seed: int, name: str) -> keras.layers.Layer:
    return keras.layers.Dense(width, kernel_initializer=_glorot(seed, name), name=name)


def _glorot(seed: int, name: str) -> keras.initializers.Initializer:
    return keras.initializers.GlorotUniform(seed_for(seed, "din", name))
