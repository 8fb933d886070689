"""What an example's own item is to be told from: items of the batch, of the catalogue, of the user's own ranking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from recsys._compat import tf
from recsys.data.catalogue import Catalogue
from recsys.objectives.config import InBatchSoftmaxConfig, SampledSoftmaxConfig
from recsys.objectives.draws import Draws, of_all_replicas, own_rows, replicas
from recsys.objectives.frequency import Frequencies, log_presence, make_frequencies
from recsys.objectives.mined import HardNegatives

Features = dict[str, tf.Tensor]
Encode = Callable[[Features, bool], tf.Tensor]
"""From encoded item features and whether it is training to vectors [n, d]."""


@dataclass(frozen=True)
class Negatives:
    """Items for all queries, or some for each."""

    index: tf.Tensor
    """[C] int32, or [b, h]."""
    vectors: tf.Tensor
    """[C, d], or [b, h, d]."""
    log_presence: tf.Tensor | float = 0.0
    """Like `index`: what is taken off their scores."""


@dataclass(frozen=True)
class Listing:
    """The items of a step."""

    positive: tf.Tensor
    """[b, d] vectors of the examples' own items."""
    log_presence: tf.Tensor | float
    """[b] what is taken off their scores."""
    negatives: tuple[Negatives, ...]
    """An example's own item may be among them: it counts for nothing there."""


class OfBatch(tf.Module):
    """The global batch's items, those drawn uniformly from the catalogue, and each user's mined ones.

    Args:
        config: which of them, and how they are corrected.
        catalogue: all items.
        encode: the item tower.
        seed: of the draws.
        step: of the training.
    """

    def __init__(
        self, config: InBatchSoftmaxConfig, catalogue: Catalogue, encode: Encode, seed: int, step: tf.Variable
    ) -> None:
        super().__init__(name="of_batch")
        self._config, self._catalogue, self._encode = config, catalogue, encode
        self._uniform = Draws(seed, "uniform_negatives", step)
        counts = catalogue.train_count
        self.frequencies: Frequencies | None = None
        if config.log_q is not None:
            self.frequencies = make_frequencies(config.log_q, config.candidates, counts, seed, step)
        self.mined = HardNegatives(config.mined, catalogue.users, seed, step) if config.mined is not None else None

    def __call__(self, item: Features, item_index: tf.Tensor, user_index: tf.Tensor | None, training: bool) -> Listing:
        """The items of a step, for this replica's examples.

        Args:
            item: features of the examples' items.
            item_index: [b] int32 which they are.
            user_index: [b] int32 whose they are; only mined negatives ask.
            training: whether the frequencies take notice of the batch.
        """
        config, rows = self._config, tf.shape(item_index)[0]
        further, hard = self._drawn(), None
        if self.mined is not None:
            assert user_index is not None
            hard = self.mined.draw(user_index, item_index)
        vectors = self._vectors(item, [index for index in (further, hard) if index is not None], training)
        positive, vectors = vectors[:rows], vectors[rows:]
        index, shared = of_all_replicas(item_index), of_all_replicas(positive)
        if training and self.frequencies is not None:
            self.frequencies.observe(index)
        batch_rows = tf.cast(tf.shape(index)[0], tf.float32)
        if further is not None:
            index = tf.concat([index, further], 0)
            shared = tf.concat([shared, vectors[: config.uniform_negatives]], 0)
            vectors = vectors[config.uniform_negatives :]
        if config.candidates == "unique":
            index, shared = _unique(index, shared)
        found = [Negatives(index, shared, self._presence(index, batch_rows, others=not config.correct_positive))]
        if hard is not None:
            own = tf.reshape(vectors, [rows, -1, vectors.shape[1]])
            found.append(Negatives(hard, own, self._hard_presence(hard, batch_rows)))
        corrected: tf.Tensor | float = 0.0
        if config.correct_positive:
            corrected = self._presence(item_index, batch_rows, others=False)
        return Listing(positive, corrected, tuple(found))

    def _drawn(self) -> tf.Tensor | None:
        count = self._config.uniform_negatives
        return self._uniform.items([count], self._catalogue.size) if count else None

    def _vectors(self, item: Features, further: list[tf.Tensor], training: bool) -> tf.Tensor:
        """Of the examples' items, then of the others: one lookup and one pass through the tower."""
        if further:
            others = self._catalogue.features(tf.concat([tf.reshape(index, [-1]) for index in further], 0))
            item = {name: tf.concat([column, others[name]], 0) for name, column in item.items()}
        return self._encode(item, training)

    def _presence(self, index: tf.Tensor, rows: tf.Tensor, others: bool) -> tf.Tensor | float:
        if self.frequencies is None:
            return 0.0
        config, rate = self._config, self.frequencies.rate(index, rows)
        return log_presence(rate, rows, config.candidates, config.uniform_negatives, self._catalogue.size, others)

    def _hard_presence(self, index: tf.Tensor, rows: tf.Tensor) -> tf.Tensor | float:
        """An item in a user's ranks is drawn h / W times as a hard negative, beside its chance to be in the batch."""
        presence, mined = self._presence(index, rows, others=not self._config.correct_positive), self._config.mined
        if self.frequencies is None or mined is None:
            return presence
        first, last = mined.ranks
        return tf.math.log(tf.exp(presence) + mined.count / (last - first + 1))


class OfCatalogue:
    """Items drawn from the whole catalogue for all queries of the step; the expected number of each is known.

    Args:
        config: how many, and by what.
        catalogue: all items.
        encode: the item tower.
        seed: of the draws.
        step: of the training.
    """

    def __init__(
        self, config: SampledSoftmaxConfig, catalogue: Catalogue, encode: Encode, seed: int, step: tf.Variable
    ) -> None:
        self._config, self._catalogue, self._encode = config, catalogue, encode
        self._draws = Draws(seed, "sampled_softmax", step)
        weight = catalogue.train_count.astype(np.float64) ** config.power if config.power else np.ones(catalogue.size)
        share = weight / max(weight.sum(), 1.0)
        self._below = tf.constant(np.cumsum(share), tf.float64)
        # An item that is never drawn may be an example's own one, if that is corrected.
        self._log_presence = tf.constant(
            np.log(config.negatives * np.maximum(share, share[share > 0].min())), tf.float32
        )

    def __call__(self, item: Features, item_index: tf.Tensor, user_index: tf.Tensor | None, training: bool) -> Listing:
        """As `OfBatch`'s."""
        rows, index = tf.shape(item_index)[0], self._drawn()
        others = self._catalogue.features(index)
        vectors = self._encode({name: tf.concat([c, others[name]], 0) for name, c in item.items()}, training)
        corrected = tf.gather(self._log_presence, item_index) if self._config.correct_positive else 0.0
        found = Negatives(index, vectors[rows:], tf.gather(self._log_presence, index))
        return Listing(vectors[:rows], corrected, (found,))

    def _drawn(self) -> tf.Tensor:
        """[C] int32 with replacement."""
        if not self._config.power:
            return self._draws.items([self._config.negatives], self._catalogue.size)
        places = tf.random.stateless_uniform([self._config.negatives], self._draws.seed(), dtype=tf.float64)
        found = tf.searchsorted(self._below, places * self._below[-1], side="right")
        return tf.minimum(found, self._catalogue.size - 1)


class WholeCatalogue:
    """All items, each once.

    Args:
        catalogue: all items.
        encode: the item tower.
    """

    def __init__(self, catalogue: Catalogue, encode: Encode) -> None:
        self._catalogue, self._encode = catalogue, encode

    def __call__(self, item: Features, item_index: tf.Tensor, user_index: tf.Tensor | None, training: bool) -> Listing:
        """As `OfBatch`'s."""
        index = tf.range(self._catalogue.size)
        vectors = self._encode(self._catalogue.features(index), training)
        return Listing(tf.gather(vectors, item_index), 0.0, (Negatives(index, vectors),))


class ForEach:
    """Items drawn uniformly from the catalogue for each example by itself.

    Args:
        count: of each example.
        catalogue: all items.
        encode: the item tower.
        seed: of the draws.
        step: of the training.
    """

    def __init__(self, count: int, catalogue: Catalogue, encode: Encode, seed: int, step: tf.Variable) -> None:
        self._count, self._catalogue, self._encode = count, catalogue, encode
        self._draws = Draws(seed, "bpr", step)

    def __call__(self, item: Features, item_index: tf.Tensor, user_index: tf.Tensor | None, training: bool) -> Listing:
        """As `OfBatch`'s."""
        rows = tf.shape(item_index)[0]
        index = own_rows(self._draws.items([rows * replicas(), self._count], self._catalogue.size))
        others = self._catalogue.features(tf.reshape(index, [-1]))
        vectors = self._encode({name: tf.concat([c, others[name]], 0) for name, c in item.items()}, training)
        own = tf.reshape(vectors[rows:], [rows, self._count, vectors.shape[1]])
        return Listing(vectors[:rows], 0.0, (Negatives(index, own),))


def _unique(index: tf.Tensor, vectors: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Each item once, where it first stands."""
    distinct, group = tf.unique(index)
    first = tf.math.unsorted_segment_min(tf.range(tf.shape(index)[0]), group, tf.shape(distinct)[0])
    return distinct, tf.gather(vectors, first)
