"""What a user's history says of the candidate."""

from __future__ import annotations

from collections.abc import Mapping

from recsys._compat import keras, tf
from recsys.embeddings.embedded import Embedded
from recsys.interactions.attention import Attended, TargetAttention
from recsys.interactions.build import make_sequence_layer
from recsys.interactions.config import AttentionConfig, SequenceConfig
from recsys.interactions.din import DIN


class TargetHistory(keras.layers.Layer):
    """A sequence layer between the histories, side by side, and the candidate's vectors of what they repeat.

    Args:
        config: of the sequence layer.
        repeats: each history, and the item feature whose values it holds; in the schema's order.
        decoupled: whether the search has tables of its own.
        seed: the experiment's seed.
        name: the layer's name.
    """

    def __init__(
        self, config: SequenceConfig, repeats: Mapping[str, str], decoupled: bool, seed: int, name: str
    ) -> None:
        super().__init__(name=name, autocast=False)
        self._repeats = dict(repeats)
        self._layer = make_sequence_layer(config, decoupled, seed, f"{name}_layer")
        # Target attention joins target and product itself, for its auxiliary head as well.
        self._multiplies = not isinstance(config, AttentionConfig) and config.target_aware
        self.searches_shared_vectors = isinstance(self._layer, TargetAttention) and not decoupled

    def call(self, embedded: Embedded, training: bool = False) -> Attended:
        """[B, m], and what the auxiliary head reads, if there is one."""
        target, history, mask = self._read(embedded)
        if not isinstance(self._layer, TargetAttention):
            return Attended(self._joined(target, self._layer(target, history, mask, training=training)), None)
        if embedded.attention is None:
            return self._layer(target, history, mask)
        searched, keys, _ = self._read(embedded.attention)
        return self._layer(target, history, mask, searched, keys)

    def of_candidates(self, embedded: Embedded) -> tf.Tensor:
        """[K, m] of K candidates for one user, as `call` gives it for each: the history [1, T, D] stands once."""
        target, history, mask = self._read(embedded)
        if not isinstance(self._layer, TargetAttention):
            # The candidates' axis is broadcast; what does not depend on them has it not.
            found = self._joined(target, self._layer(target, history, mask))
            return tf.broadcast_to(found, [tf.shape(target)[0], found.shape[-1]])
        searched, keys = (None, None) if embedded.attention is None else self._read(embedded.attention)[:2]
        events = self._layer.events(history[0], mask[0], None if keys is None else keys[0])
        return self._layer.attend_candidates(events, target, searched)

    def _joined(self, target: tf.Tensor, found: tf.Tensor) -> tf.Tensor:
        """[B, D] what the history says, and with `target_aware` its product with the target beside it, [B, 2 D]."""
        if not self._multiplies:
            return found
        product = tf.cast(target, found.dtype) * found
        return tf.concat([tf.broadcast_to(found, tf.shape(product)), product], -1)  # one history for all targets

    def weigh(self, embedded: Embedded) -> tf.Tensor:
        """[B, T] float32 what each event weighs in the history's vector: 0 for padding, and for what a search leaves
        out.
        """
        target, history, mask = self._read(embedded)
        if isinstance(self._layer, TargetAttention):
            searched = () if embedded.attention is None else self._read(embedded.attention)[:2]
            return tf.cast(self._layer.keep(target, history, mask, *searched), tf.float32)
        if isinstance(self._layer, DIN):
            return self._layer.weigh(target, history, mask)
        events = tf.cast(mask, tf.float32)
        return tf.math.divide_no_nan(events, tf.reduce_sum(events, 1, keepdims=True))

    def _read(self, embedded: Embedded) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """[B, D] targets, [B, T, D] histories, [B, T] mask."""
        vectors, histories = embedded.vectors(), [embedded.sequences[name] for name in self._repeats]
        target = tf.concat([vectors[of] for of in self._repeats.values()], -1)
        return target, tf.concat([each.values for each in histories], -1), histories[0].mask
