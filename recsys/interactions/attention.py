"""Two-stage target attention: DARE (Feng et al., "Long-Sequence Recommendation Models Need Decoupled Embeddings", ICLR
2025, arXiv:2410.02604; code: github.com/thuml/DARE) and what it came from, TWIN (Chang et al., KDD 2023).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from recsys._compat import keras, tf
from recsys.embeddings.seeds import seed_for
from recsys.interactions.config import AttentionConfig

PLACES = 2000
"""Places in a history with a vector of their own, as many as in DARE's code: 0 is the target's, 1 the newest event's.
Older events than these share the last.
"""

LONG, BLOCK = 200, 16
"""Histories with as many events for each that is kept are searched in two passes, by maxima of blocks."""


class Attended(NamedTuple):
    """What the layer gives to the dense layers that follow."""

    main: tf.Tensor
    """[B, m] of the events that the search has kept."""
    auxiliary: tf.Tensor | None
    """[B, m] of all events, for the auxiliary head; None where the config has no such loss."""


class Events(NamedTuple):
    """Histories as they are searched, whatever the candidates: a history for each of them, or one for all."""

    keys: tf.Tensor
    """[B, T, d_a] or [T, d_a]."""
    values: tf.Tensor
    """[B, T, d_r] or [T, d_r]."""
    mask: tf.Tensor
    """[B, T] or [T] bool, true for an event."""


class TargetAttention(keras.layers.Layer):
    """A search of the history by one set of vectors, and a representation of what it finds by another.

    With the attention vectors a_i and a_t of event i and of the target, and their representations r_i and r_t:

        s_i = <a_i, a_t> / √d_a                 over all T events
        S   = the top_k events by s_i           the search
        w   = softmax of s over S
        r̄   = Σ_{i in S} w_i r_i
        [r_t, r̄, r_t ⊙ r̄]                       `main`; without `target_aware`, [r_t, r̄]

    and the same with S = all events for `auxiliary`, as in DARE's code. A history of fewer than top_k events is kept
    whole, and padding never; an empty one has r̄ = 0.

    DARE (`decoupled`) looks a and r up in different tables, of any widths. TWIN has a = r; attention vectors that come
    all the same take a's place, so that the gradients of both can be told apart. With `projection` (TWIN with
    projections) a_t, a_i, r_t and r_i are four linear maps of the shared vectors.

    `time_dim` appends to each of these vectors that of the place in the history, and adds <place_i, place_t> /
    √time_dim to s_i: DARE's code, too, has places in place of times.

    Args:
        config: the search and the representation.
        seed: the experiment's seed.
        decoupled: whether attention vectors come beside the representations; places then have two tables, too.
        name: the layer's name; initial weights depend on it and on the seed.

    Raises:
        ValueError: decoupled vectors are to be projected.
    """

    def __init__(self, config: AttentionConfig, seed: int, decoupled: bool = False, name: str = "attention") -> None:
        super().__init__(name=name, autocast=False)  # computes in the weights' precision
        for key, text in config.problems(decoupled):
            raise ValueError(f"{key}: {text}")
        self._config, self._seed, self._decoupled = config, seed, decoupled

    def build(self, target_shape: tf.TensorShape) -> None:
        """Makes the linear maps and the places' vectors, as far as the config asks for them."""
        width, searched, time_dim = int(target_shape[-1]), self._config.projection, self._config.time_dim
        self._maps = dict[str, tf.Variable]()
        if searched is not None:
            for side, to in {"query": searched, "key": searched, "target": width, "event": width}.items():
                self._maps[side] = self._weight(side, (width, to), keras.initializers.GlorotUniform)
                if time_dim is not None:
                    shape = (time_dim, time_dim)
                    self._maps[f"{side}_time"] = self._weight(f"{side}_time", shape, keras.initializers.GlorotUniform)
        if time_dim is not None:
            self._places = self._weight("places", (PLACES, time_dim), _small_normal)
            self._searched_places = (
                self._weight("searched_places", (PLACES, time_dim), _small_normal) if self._decoupled else self._places
            )
        super().build(target_shape)

    def call(
        self,
        target: tf.Tensor,
        history: tf.Tensor,
        mask: tf.Tensor,
        attention_target: tf.Tensor | None = None,
        attention_history: tf.Tensor | None = None,
        training: bool = False,
    ) -> Attended:
        """Each target in the light of its own history.

        Args:
            target: [B, D] representations of the targets.
            history: [B, T, D] those of the events, oldest first, padded at the end.
            mask: [B, T] bool, true for an event.
            attention_target: [B, D_a] the targets' vectors for the search, if they are decoupled.
            attention_history: [B, T, D_a] the events', likewise.
            training: makes no difference.

        Raises:
            ValueError: the layer is decoupled and has no attention vectors.
        """
        events = self.events(history, mask, attention_history)
        query, value = self._candidates(target, attention_target)
        scores = tf.linalg.matvec(events.keys, query)
        main = self._main(value, events, scores)
        if not self._config.auxiliary:
            return Attended(main, None)
        everything = tf.einsum("bt,btd->bd", masked_softmax(scores, mask), events.values)
        return Attended(main, self._joined(value, everything))

    def events(self, history: tf.Tensor, mask: tf.Tensor, attention_history: tf.Tensor | None = None) -> Events:
        """The part that is the same for all candidates, of histories [B, T, D] or of one user's [T, D]."""
        indices = tf.range(1, tf.shape(mask)[-1] + 1)
        newest = tf.reduce_max(tf.where(mask, indices, 0), -1, keepdims=True)
        places = tf.clip_by_value(newest - indices + 1, 1, PLACES - 1)
        return Events(
            keys=tf.concat(self._searched("key", history, attention_history, places), -1),
            values=tf.concat(self._represented("event", history, places), -1),
            mask=mask,
        )

    def attend_candidates(
        self, events: Events, target: tf.Tensor, attention_target: tf.Tensor | None = None
    ) -> tf.Tensor:
        """[K, m] `main` of many candidates for one user, as `call` gives it for each: d_a T products for a candidate.

        Args:
            events: one user's, made once for all candidates from the history [T, D].
            target: [K, D] representations of the candidates.
            attention_target: [K, D_a] their vectors for the search, if they are decoupled.
        """
        query, value = self._candidates(target, attention_target)
        return self._main(value, events, tf.matmul(query, events.keys, transpose_b=True))

    def weigh(
        self,
        target: tf.Tensor,
        history: tf.Tensor,
        mask: tf.Tensor,
        attention_target: tf.Tensor | None = None,
        attention_history: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """[B, T] softmax over all events, 0 for padding: what the search goes by. Arguments as for `call`."""
        return masked_softmax(self._scores(target, history, mask, attention_target, attention_history), mask)

    def keep(
        self,
        target: tf.Tensor,
        history: tf.Tensor,
        mask: tf.Tensor,
        attention_target: tf.Tensor | None = None,
        attention_history: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """[B, T] what each event weighs in `main`: 0 for padding, and for what the search leaves out. Arguments as for
        `call`.
        """
        scores = self._scores(target, history, mask, attention_target, attention_history)
        weights, found = search(scores, mask, self._config.top_k)
        rows = tf.broadcast_to(tf.range(tf.shape(found)[0])[:, tf.newaxis], tf.shape(found))
        return tf.scatter_nd(tf.stack([rows, found], -1), weights, tf.shape(scores))

    def _scores(
        self,
        target: tf.Tensor,
        history: tf.Tensor,
        mask: tf.Tensor,
        attention_target: tf.Tensor | None,
        attention_history: tf.Tensor | None,
    ) -> tf.Tensor:
        """[B, T] s_i."""
        query, _ = self._candidates(target, attention_target)
        return tf.linalg.matvec(self.events(history, mask, attention_history).keys, query)

    def _main(self, value: tf.Tensor, events: Events, scores: tf.Tensor) -> tf.Tensor:
        """From scores [B, T]; the events are those of each row, or one user's for all rows."""
        weights, found = search(scores, events.mask, self._config.top_k)
        kept = tf.gather(events.values, found, batch_dims=events.mask.shape.rank - 1)
        return self._joined(value, tf.einsum("bk,bkd->bd", weights, kept))

    def _joined(self, target: tf.Tensor, found: tf.Tensor) -> tf.Tensor:
        parts = [target, found, target * found] if self._config.target_aware else [target, found]
        return tf.cast(tf.concat(parts, -1), self.compute_dtype)

    def _candidates(self, target: tf.Tensor, attention_target: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        """([B, d_a], [B, d_r]): what searches, with the scores' denominators, and what is represented."""
        places = tf.zeros(tf.shape(target)[:1], tf.int32)
        parts = self._searched("query", target, attention_target, places)
        query = [part / tf.sqrt(tf.cast(part.shape[-1], part.dtype)) for part in parts]
        return tf.concat(query, -1), tf.concat(self._represented("target", target, places), -1)

    def _searched(self, side: str, shared: tf.Tensor, own: tf.Tensor | None, places: tf.Tensor) -> list[tf.Tensor]:
        """Attention vectors, and those of the places if there are any."""
        if own is None and self._decoupled:
            raise ValueError(f"{self.name}: a decoupled layer needs attention vectors")
        vectors = shared if own is None else own
        tables = [] if self._config.time_dim is None else [self._searched_places]
        return self._mapped(side, vectors, places, tables)

    def _represented(self, side: str, vectors: tf.Tensor, places: tf.Tensor) -> list[tf.Tensor]:
        """Representations, and those of the places if there are any."""
        tables = [] if self._config.time_dim is None else [self._places]
        return self._mapped(side, vectors, places, tables)

    def _mapped(self, side: str, vectors: tf.Tensor, places: tf.Tensor, tables: list[tf.Variable]) -> list[tf.Tensor]:
        found = {side: tf.cast(vectors, self.variable_dtype)}
        found |= {f"{side}_time": tf.gather(table, places) for table in tables}
        if self._config.projection is None:
            return list(found.values())
        return [tf.tensordot(value, self._maps[name], 1) for name, value in found.items()]

    def _weight(self, name: str, shape: tuple[int, int], start: Callable[[int], object]) -> tf.Variable:
        initializer = start(seed_for(self._seed, self.name, name))
        return self.add_weight(name=name, shape=shape, initializer=initializer, experimental_autocast=False)


def search(scores: tf.Tensor, mask: tf.Tensor, top_k: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The events with the largest scores, and how much they weigh.

    Args:
        scores: [B, T].
        mask: [B, T], or [T] for all rows: bool, true for an event.
        top_k: events to keep.

    Returns:
        Weights [B, k] that sum to 1 (to 0 where there is no event), 0 for padding, and the events' indices [B, k], with
        k the less of top_k and T.
    """
    length = scores.shape[1]
    kept = tf.minimum(top_k, tf.shape(scores)[1]) if length is None else min(top_k, length)
    masked = tf.where(mask, scores, scores.dtype.min)
    best, found = _largest(masked, kept) if length is not None and length >= LONG * top_k else _top_k(masked, kept)
    return masked_softmax(best, best > scores.dtype.min), found


def _top_k(scores: tf.Tensor, k: int | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.math.top_k(scores, k, sorted=False)


def _largest(scores: tf.Tensor, k: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The same for long rows of a known length, in about two thirds of the time: top_k takes numbers one by one, maxima
    are taken of many at once, and a row's k largest stand in the k blocks of the largest maxima.
    """
    length = scores.shape[1]
    blocks = -(-length // BLOCK)
    padded = tf.pad(scores, [[0, 0], [0, BLOCK * blocks - length]], constant_values=scores.dtype.min)
    stacked = tf.reshape(padded, [tf.shape(scores)[0], blocks, BLOCK])
    _, best_blocks = _top_k(tf.reduce_max(stacked, 2), k)
    left = tf.reshape(tf.gather(stacked, best_blocks, batch_dims=1), [-1, k * BLOCK])
    best, found = _top_k(left, k)
    places = BLOCK * tf.gather(best_blocks, found // BLOCK, batch_dims=1) + found % BLOCK
    return best, tf.minimum(places, length - 1)  # what was padded weighs nothing, but has to be somewhere


def masked_softmax(scores: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """[B, T] softmax over the scores where `mask` is true, and 0 elsewhere: all zeros, not NaN, where nothing is."""
    weights = tf.nn.softmax(tf.where(mask, scores, scores.dtype.min))
    return tf.where(mask, weights, tf.zeros_like(weights))


def _small_normal(seed: int) -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=0.01, seed=seed)
