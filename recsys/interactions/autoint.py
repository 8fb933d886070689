"""AutoInt (Song et al., "AutoInt: Automatic Feature Interaction Learning via Self-Attentive Neural Networks", CIKM
2019): fields attend to fields.
"""

from __future__ import annotations

from typing import NamedTuple

from recsys._compat import keras, tf
from recsys.embeddings.seeds import seed_for
from recsys.interactions.config import AutoIntConfig
from recsys.interactions.dropout import StatelessDropout

LAYER_NORM_EPSILON = 1e-8


class AutoInt(keras.layers.Layer):
    """Interacting layers, one upon the other: [B, M, d] -> [B, M H d'], the fields' last vectors side by side.

    The paper's e_1 ⊕ ... ⊕ e_M of eq. 9; the logit w·x + b, which is the rest of that equation, is the model's.

    Args:
        config: how many layers and heads, how wide, and of which variant.
        seed: the experiment's seed.
        step: the model's count of steps; dropout masks are a function of seed and step.
        name: the layer's name; initial weights and masks depend on it and on the seed.
    """

    def __init__(self, config: AutoIntConfig, seed: int, step: tf.Variable, name: str = "autoint") -> None:
        super().__init__(name=name)
        self._dropout = StatelessDropout(config.embedding_dropout, seed, step, f"{name}_embedding_dropout")
        self._layers = [InteractingLayer(config, seed, step, f"{name}_{number}") for number in range(config.layers)]

    def call(self, fields: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Through all layers."""
        fields = self._dropout(fields, training=training)
        for layer in self._layers:
            fields, _ = layer(fields, training=training)
        return tf.reshape(fields, [-1, fields.shape[1] * fields.shape[2]])

    def attention_maps(self, fields: tf.Tensor) -> tf.Tensor:
        """[B, layers, H, M, M] float32: how much each field (row) heeds each field (column); rows sum to 1."""
        maps = []
        for layer in self._layers:
            fields, attention = layer(fields)
            maps.append(tf.stack(attention, 1))
        return tf.stack(maps, 1)


class InteractingLayer(keras.layers.Layer):
    """One layer: [B, M, d] -> [B, M, H d'], and of each head the attention [B, M, M] float32.

    `variant: paper`, for field m and head h (section 4.4):

        ψ(m, k) = <W_Query e_m, W_Key e_k>                        eq. 5: no scale, no bias
        α_mk    = exp ψ(m, k) / Σ_l exp ψ(m, l)                   eq. 5
        ẽ_m     = Σ_k α_mk (W_Value e_k)                          eq. 6
        ẽ_m     = the heads' ẽ_m side by side                     eq. 7
        e_m'    = ReLU(ẽ_m + W_Res e_m)                           eq. 8

    W_Res stands in every layer, also where the widths are equal: only so are there as many weights as in the paper's
    table 3. `variant: reference` is the authors' code, which differs from the paper:

        each W e becomes ReLU(W e + b), W_Res too;  ψ is divided by √d';  e_m' = LayerNorm(ReLU(ẽ_m + ...)), ε = 1e-8

    Both drop a share `dropout` of the α in training. Without `residual` there is no W_Res.
    """

    def __init__(self, config: AutoIntConfig, seed: int, step: tf.Variable, name: str) -> None:
        super().__init__(name=name)
        self._config, self._seed = config, seed
        self._dropouts = [
            StatelessDropout(config.dropout, seed, step, f"{name}_dropout_{head}") for head in range(config.heads)
        ]
        self._norm = (
            keras.layers.LayerNormalization(epsilon=LAYER_NORM_EPSILON, name=f"{name}_norm")
            if config.variant == "reference"
            else None
        )

    def build(self, shape: tf.TensorShape) -> None:
        """Makes W_Query, W_Key, W_Value and W_Res, [d, H d'] each, and for the reference their biases."""
        width, names = self._config.field_width, ["query", "key", "value"]
        if self._config.residual:
            names.append("residual")
        self._kernels = {
            name: self.add_weight(
                name=name,
                shape=(shape[-1], width),
                initializer=keras.initializers.GlorotUniform(seed_for(self._seed, self.name, name)),
            )
            for name in names
        }
        self._biases = {
            name: self.add_weight(name=f"{name}_bias", shape=(width,), initializer="zeros")
            for name in names
            if self._config.variant == "reference"
        }
        super().build(shape)

    def call(self, fields: tf.Tensor, training: bool = False) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """The fields' next vectors, and the attention before dropout."""
        attention, mixed = list[tf.Tensor](), list[tf.Tensor]()
        for head, dropout in zip(self._heads(fields), self._dropouts, strict=True):
            alpha = self._attend(head.query, head.key)
            sums = tf.matmul(dropout(tf.cast(alpha, head.value.dtype), training=training), head.value)
            mixed.append(sums if head.kernel is None else _times(sums, head.kernel))
            attention.append(alpha)
        found = tf.concat(mixed, -1)
        if self._config.residual:
            (residual,) = self._project(fields, "residual", 1)
            found += residual
        found = tf.nn.relu(found)
        return (found if self._norm is None else self._norm(found)), attention

    def _heads(self, fields: tf.Tensor) -> list[_Head]:
        """What each head attends by, and what it mixes.

        Where fields are no wider than a head, the paper's products are less in another order, which is two thirds of
        the layer's time: ψ = (e_m W_Query W_Keyᵀ) e_kᵀ, and ẽ_m = (Σ_k α_mk e_k) W_Value, with W by columns.
        """
        names, heads = ("query", "key", "value"), self._config.heads
        if self._config.variant == "reference" or fields.shape[-1] > self._config.head_dim:
            projected = zip(*(self._project(fields, name, heads) for name in names), strict=True)
            return [_Head(query, key, value, None) for query, key, value in projected]
        kernels = zip(*(tf.split(self._kernels[name], heads, 1) for name in names), strict=True)
        return [
            _Head(_times(fields, tf.matmul(query, key, transpose_b=True)), fields, fields, value)
            for query, key, value in kernels
        ]

    def _project(self, fields: tf.Tensor, name: str, parts: int) -> list[tf.Tensor]:
        """[B, M, H d'] in `parts` pieces of equal width.

        The kernel is cut, not the product: each piece comes out of its matrix product as the next one needs it, and
        nothing of the size of the batch is moved.
        """
        pieces = [_times(fields, kernel) for kernel in tf.split(self._kernels[name], parts, 1)]
        if self._config.variant == "reference":
            biases = tf.split(self._biases[name], parts)
            pieces = [tf.nn.relu(tf.nn.bias_add(piece, bias)) for piece, bias in zip(pieces, biases, strict=True)]
        return pieces

    def _attend(self, query: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
        """[B, M, M] float32 attention of one head."""
        scores = tf.cast(tf.matmul(query, key, transpose_b=True), tf.float32)
        if self._config.variant == "reference":
            scores /= self._config.head_dim**0.5
        return tf.nn.softmax(scores)


class _Head(NamedTuple):
    """What a head attends by, and what it mixes."""

    query: tf.Tensor
    """[B, M, n]"""
    key: tf.Tensor
    """[B, M, n]"""
    value: tf.Tensor
    """[B, M, m]"""
    kernel: tf.Tensor | None
    """[m, d'], by which the mixture is multiplied; None where the values have been."""


def _times(fields: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """[B, M, n] by [n, m] as one matrix product."""
    product = tf.matmul(tf.reshape(fields, [-1, fields.shape[-1]]), kernel)
    return tf.reshape(product, [-1, fields.shape[1], kernel.shape[1]])
