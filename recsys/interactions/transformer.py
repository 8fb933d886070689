"""A history through causal self-attention (SASRec: Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM
2018; code: github.com/kang205/SASRec).
"""

from __future__ import annotations

from recsys._compat import keras, tf
from recsys.embeddings.seeds import seed_for
from recsys.interactions.attention import masked_softmax
from recsys.interactions.config import TransformerConfig
from recsys.interactions.dropout import StatelessDropout

EPSILON = 1e-8
"""Of layer normalisation, as in SASRec's code."""


class CausalTransformer(keras.layers.Layer):
    """Blocks of self-attention, in which an event sees itself and those before it, and of feed-forward networks:

        x = √d e_t + p_t                                    p: learned, by place; 0 is the newest event's
        x = x + dropout(attention(LN(x)))
        x = x + dropout(W2 act(W1 LN(x) + b1) + b2)         and LN(x) after the last block

    with `norm: post` LN(x + ...) in place of x + ...(LN(x)), and none after the last. Places are counted from the
    newest event of the history, as in SASRec, which pads in front: the state that serves a request has the place that
    the last state of a window had in training. Events whose value is missing are seen by none. Unlike SASRec's, heads
    are joined by a linear map, as in the first transformer.

    Args:
        config: layers, heads, widths, dropout, norm.
        length: the longest history: so many places have a vector.
        seed: the experiment's seed.
        step: of the training, which dropout masks depend on.
        name: the layer's name; initial weights depend on it and on the seed.
    """

    def __init__(self, config: TransformerConfig, length: int, seed: int, step: tf.Variable, name: str) -> None:
        super().__init__(name=name)
        self._config, self._length, self._seed = config, length, seed
        self._dropout = StatelessDropout(config.dropout, seed, step, f"{name}_dropout")
        self._blocks = [_Block(config, seed, step, f"{name}_block_{number}") for number in range(config.layers)]
        self._last = (
            keras.layers.LayerNormalization(epsilon=EPSILON, name="last_norm") if config.norm == "pre" else None
        )

    def build(self, history_shape: tf.TensorShape) -> None:
        """Makes the places' vectors, and the projection of events of another width."""
        event = int(history_shape[-1])
        width = self._config.width(event)
        self._project = None if width == event else _dense(width, None, self._seed, self.name, "project")
        initializer = keras.initializers.RandomNormal(stddev=0.02, seed=seed_for(self._seed, self.name, "places"))
        self.places = self.add_weight(name="places", shape=(self._length, width), initializer=initializer)
        super().build(history_shape)

    def call(self, history: tf.Tensor, mask: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, T, d] the state after each event.

        Args:
            history: [B, T, D] events, oldest first.
            mask: [B, T] bool, true for an event.
            training: drops numbers.
        """
        x = history if self._project is None else self._project(history)
        steps = tf.range(tf.shape(mask)[1])
        newest = tf.reduce_max(tf.where(mask, steps, -1), 1, keepdims=True)
        places = tf.gather(self.places, tf.clip_by_value(newest - steps, 0, self._length - 1))
        x = x * tf.cast(x.shape[-1], x.dtype) ** 0.5 + tf.cast(places, x.dtype)
        x = self._dropout(x, training=training)
        seen = mask[:, tf.newaxis] & (steps[:, tf.newaxis] >= steps)
        for block in self._blocks:
            x = block(x, seen, training=training)
        return x if self._last is None else self._last(x)


class _Block(keras.layers.Layer):
    """Self-attention, then a feed-forward network."""

    def __init__(self, config: TransformerConfig, seed: int, step: tf.Variable, name: str) -> None:
        super().__init__(name=name)
        self._config, self._seed = config, seed
        self._norms = [
            keras.layers.LayerNormalization(epsilon=EPSILON, name=f"norm_{sublayer}")
            for sublayer in ("attention", "ffn")
        ]
        self._dropouts = [
            StatelessDropout(config.dropout, seed, step, f"{name}_dropout_{what}")
            for what in ("weights", "added", "ffn")
        ]

    def build(self, x_shape: tf.TensorShape) -> None:
        """Makes the projections."""
        width, config, own = int(x_shape[-1]), self._config, (self._seed, self.name)
        # A bias of the keys would add the same to all scores of a row, which no softmax sees.
        self._qkv = [_dense(width, None, *own, what, bias=what != "key") for what in ("query", "key", "value")]
        self._output = _dense(width, None, *own, "output")
        self._up = _dense(config.hidden or width, config.activation, *own, "up")
        self._down = _dense(width, None, *own, "down")
        super().build(x_shape)

    def call(self, x: tf.Tensor, seen: tf.Tensor, training: bool = False) -> tf.Tensor:
        """From x [B, T, d] and seen [B, T, T], bool: whether the event of the row sees that of the column."""
        weights, added, fed = self._dropouts

        def attend(y: tf.Tensor) -> tf.Tensor:
            return added(self._attend(y, seen, weights, training), training=training)

        def feed(y: tf.Tensor) -> tf.Tensor:
            return fed(self._down(self._up(y)), training=training)

        for norm, sublayer in zip(self._norms, (attend, feed), strict=True):
            x = x + sublayer(norm(x)) if self._config.norm == "pre" else norm(x + sublayer(x))
        return x

    def _attend(self, x: tf.Tensor, seen: tf.Tensor, dropout: StatelessDropout, training: bool) -> tf.Tensor:
        query, key, value = (self._heads(project(x)) for project in self._qkv)
        scores = tf.matmul(query, key, transpose_b=True) / tf.cast(query.shape[-1], query.dtype) ** 0.5
        weights = masked_softmax(tf.cast(scores, tf.float32), seen[:, tf.newaxis])
        found = tf.matmul(tf.cast(dropout(weights, training=training), value.dtype), value)
        return self._output(tf.reshape(tf.transpose(found, [0, 2, 1, 3]), tf.shape(x)))

    def _heads(self, x: tf.Tensor) -> tf.Tensor:
        """[B, heads, T, d / heads]."""
        width, shape = x.shape[-1] // self._config.heads, tf.shape(x)
        return tf.transpose(tf.reshape(x, [shape[0], shape[1], self._config.heads, width]), [0, 2, 1, 3])


def _dense(width: int, activation: str | None, seed: int, *names: str, bias: bool = True) -> keras.layers.Layer:
    initializer = keras.initializers.GlorotUniform(seed=seed_for(seed, *names))
    return keras.layers.Dense(width, activation, use_bias=bias, kernel_initializer=initializer, name=names[-1])
