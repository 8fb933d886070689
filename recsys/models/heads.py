"""Several logits from one input: layers that the heads share, and each head's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from recsys._compat import keras, tf
from recsys.embeddings.seeds import seed_for
from recsys.models.config import HeadConfig, MLPConfig, MMoEConfig
from recsys.models.layers import MLP
from recsys.objectives.pointwise import Loss, pointwise_loss


class Heads(keras.layers.Layer):
    """A logit for each head: [B, n] -> [B, H], in the order of `heads`.

    Without experts all heads read one shared bottom (Caruana 1997). With them head h reads a mixture of its own (Ma et
    al., KDD 2018, section 4.2; as there, gates have no bias):

        f_h(x) = Σ_e softmax(x G_h)_e expert_e(x);    logit_h = tower_h(f_h(x))

    Args:
        heads: by name, each one's own layers.
        shared: the layers of the bottom, or of each expert.
        experts: how many of them; None for a shared bottom.
        seed: of initial weights and dropout.
        step: on which dropout masks depend.
        name: of the layer.
    """

    def __init__(
        self,
        heads: Mapping[str, HeadConfig],
        shared: MLPConfig,
        experts: MMoEConfig | None,
        seed: int,
        step: tf.Variable,
        name: str,
    ) -> None:
        super().__init__(name=name)
        bottoms = [f"{name}_shared"] if experts is None else [f"{name}_expert_{n}" for n in range(experts.count)]
        self._bottoms = [MLP(shared, None, seed, step, bottom) for bottom in bottoms]
        self._gates = (
            [] if experts is None else [unbiased(experts.count, seed, f"{name}_gate_{head}") for head in heads]
        )
        self._towers = [MLP(config, 1, seed, step, f"{name}_tower_{head}") for head, config in heads.items()]

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Through what is shared, then through each head's own layers."""
        read = self._read(x, training)
        return tf.concat([tower(each, training=training) for tower, each in zip(self._towers, read, strict=True)], -1)

    def _read(self, x: tf.Tensor, training: bool) -> list[tf.Tensor]:
        """What each head's tower reads."""
        found = [bottom(x, training=training) for bottom in self._bottoms]
        if not self._gates:
            return found * len(self._towers)
        experts = tf.stack(found, 1)
        mixed = tf.einsum("bhe,bed->bhd", tf.cast(self.shares(x), experts.dtype), experts)
        return tf.unstack(mixed, axis=1)

    def shares(self, x: tf.Tensor) -> tf.Tensor:
        """With experts: [B, H, E] each one's part in each head's mixture (in float32 at least: parts add up to 1)."""
        return tf.stack([tf.nn.softmax(tf.cast(gate(x), gate.variable_dtype)) for gate in self._gates], 1)

    def input_weights(self) -> list[tuple[tf.Variable, tuple[int, ...]]]:
        """The weights with axes along the input, and which those are: those of gates and of each first dense layer."""
        gates = [(gate.kernel, (0,)) for gate in self._gates]
        shared = [pair for bottom in self._bottoms for pair in bottom.input_weights()]
        return gates + (shared or [pair for tower in self._towers for pair in tower.input_weights()])


class LinearHeads(keras.layers.Layer):
    """A linear logit for each head, without bias: [B, n] -> [B, H]."""

    def __init__(self, heads: Iterable[str], seed: int, name: str) -> None:
        super().__init__(name=name)
        self._heads = [unbiased(1, seed, f"{name}_{head}") for head in heads]

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """All of them."""
        return tf.concat([head(x) for head in self._heads], -1)


def unbiased(width: int, seed: int, name: str) -> keras.layers.Layer:
    """A linear layer without bias: [B, n] -> [B, width]."""
    initializer = keras.initializers.GlorotUniform(seed=seed_for(seed, "dense", name))
    return keras.layers.Dense(width, use_bias=False, kernel_initializer=initializer, name=name)


def known_losses(loss: Loss, labels: tf.Tensor, logits: tf.Tensor, share: float) -> tf.Tensor:
    """[b] losses of a label that is not known of every example: 0 where it is NaN, and divided by the `share` of the
    known among all training examples elsewhere.

    So the mean over all examples is that over the known ones, and every known example weighs alike, however many of its
    batch are known.
    """
    known = ~tf.math.is_nan(labels)
    losses = pointwise_loss(loss, tf.where(known, labels, tf.zeros_like(labels)), logits)
    return tf.where(known, losses / share, tf.zeros_like(losses))
