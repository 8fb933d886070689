"""ARM-Net (Cai et al., "ARM-Net: Adaptive Relation Modeling Network for Structured Data", SIGMOD 2021)."""

from __future__ import annotations

import math

from recsys._compat import keras, tf
from recsys.embeddings.seeds import seed_for
from recsys.interactions.config import ARMNetConfig
from recsys.interactions.entmax import entmax
from recsys.interactions.moving import moving_moment

MAX_EXPONENT = 20.0
"""Neurons stay within exp(±20), so that neither they nor the squares in their variance overflow in float32."""


class ARMNet(keras.layers.Layer):
    """Neurons that multiply powers of few fields: [B, F, D] -> [B, heads * neurons * D].

    For head k, neuron o and field f with vector e_f, elementwise in D:

        g_kof = entmax_alpha over f of (q_koᵀ W_kᵀ e_f / √D)      the sparse gates
        w_kof = g_kof v_kof                                       interaction weights, v a weight of each field
        x_ko  = exp(Σ_f w_kof e_f) = Π_f exp(e_f)^w_kof           the exponential neuron, a product of powers
        y_ko  = gamma_ko (x_ko - mean) / √(variance + 1e-5) + beta_ko

    Mean and variance are each neuron's, over batch and D, in training; at inference their moving averages. A field
    whose gate is 0 has no part in a neuron (in training it still has one in the batch's statistics).

    Overflow: the authors' code bounds what goes in, raw values to [0.001, 1], and gradients, to ±1. Here fields come as
    vectors, so the exponent is bounded, to ±20 (`MAX_EXPONENT`), far beyond what trained neurons need. Initial weights
    are Glorot-uniform in each head with the authors' gain of √2. All is computed in float32 whatever the policy.

    Args:
        config: heads, neurons, and the gates' alpha.
        seed: the experiment's seed.
        step: the model's step counter, which other interactions need for dropout; there is none here.
        name: the layer's name; initial weights depend on it and on the seed.
    """

    def __init__(self, config: ARMNetConfig, seed: int, step: tf.Variable, name: str = "arm_net") -> None:
        super().__init__(name=name, dtype="float32", autocast=False)
        self._config, self._seed = config, seed
        self._normalisation = NeuronNormalisation(f"{name}_normalisation")

    def build(self, shape: tf.TensorShape) -> None:
        """Makes W, q and v for the fields' number and width."""
        _, fields, dim = shape
        self._bilinear = self._weight("bilinear", dim, dim)
        self._query = self._weight("query", self._config.neurons, dim)
        self._values = self._weight("values", self._config.neurons, fields)
        super().build(shape)

    def _weight(self, name: str, rows: int, columns: int) -> tf.Variable:
        """[heads, rows, columns]"""
        limit = math.sqrt(2.0) * math.sqrt(6.0 / (rows + columns))
        initializer = keras.initializers.RandomUniform(-limit, limit, seed_for(self._seed, "arm_net", self.name, name))
        return self.add_weight(name=name, shape=(self._config.heads, rows, columns), initializer=initializer)

    def field_weights(self) -> list[tuple[tf.Variable, tuple[int, ...]]]:
        """The weights with axes along the fields, and which those are: v."""
        return [(self._values, (2,))]

    def gates(self, fields: tf.Tensor) -> tf.Tensor:
        """[B, heads, neurons, F] float32: g, how much each neuron heeds each field, 1 in all, and 0 for many."""
        queries = tf.matmul(self._query, self._bilinear, transpose_b=True)  # W_k q_ko
        scores = tf.einsum("kod,bfd->bkof", queries, tf.cast(fields, tf.float32))
        return entmax(scores / math.sqrt(fields.shape[-1]), self._config.alpha)

    def call(self, fields: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The neurons side by side, head by head, in the fields' type."""
        weights = self.gates(fields) * self._values
        exponents = tf.einsum("bkof,bfd->bkod", weights, tf.cast(fields, tf.float32))
        neurons = tf.exp(tf.clip_by_value(exponents, -MAX_EXPONENT, MAX_EXPONENT))
        normalised = self._normalisation(neurons, training=training)
        return tf.cast(tf.reshape(normalised, [-1, math.prod(normalised.shape[1:])]), fields.dtype)


class NeuronNormalisation(keras.layers.Layer):
    """Batch normalisation of each neuron over batch and width: [B, heads, neurons, D] -> the same, in float32.

        y = gamma (x - mean) / √(variance + 1e-5) + beta

    Statistics are those of the global batch, over all replicas. Keras' own layer takes a synchronised variance as
    E[x²] - E[x]², whose float32 rounding is a tenth and more of it where neurons are near 1, as exponentials of small
    numbers are; here squares are those of differences from the mean.
    """

    epsilon = 1e-5
    momentum = 0.9
    """What the moving averages keep of themselves at each step, as in the authors' code (PyTorch calls that 0.1)."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, dtype="float32", autocast=False)

    def build(self, shape: tf.TensorShape) -> None:
        """Makes each neuron's gamma and beta, and the moving averages."""
        neurons = (*shape[1:-1], 1)
        self.gamma = self.add_weight(name="gamma", shape=neurons, initializer="ones")
        self.beta = self.add_weight(name="beta", shape=neurons, initializer="zeros")
        self.moving_mean = moving_moment(self, "moving_mean", neurons, "zeros")
        self.moving_variance = moving_moment(self, "moving_variance", neurons, "ones")
        super().build(shape)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Normalises by the batch's statistics in training, by the moving averages otherwise."""
        mean, variance = self._batch_statistics(x) if training else (self.moving_mean, self.moving_variance)
        return self.gamma * (x - mean) * tf.math.rsqrt(variance + self.epsilon) + self.beta

    def _batch_statistics(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """[heads, neurons, 1] mean and (biased) variance; the averages move towards them."""
        count = _over_replicas(tf.cast(tf.shape(x)[0] * tf.shape(x)[-1], x.dtype))
        mean = _over_replicas(tf.reduce_sum(x, (0, -1))[..., None]) / count
        variance = _over_replicas(tf.reduce_sum(tf.square(x - mean), (0, -1))[..., None]) / count
        for average, found in ((self.moving_mean, mean), (self.moving_variance, variance)):
            average.assign(self.momentum * average + (1.0 - self.momentum) * found)
        return mean, variance


def _over_replicas(x: tf.Tensor) -> tf.Tensor:
    """The sum of all replicas' x."""
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return x
    return replica.all_reduce("SUM", x)
