"""Losses of retrieval: an example's own item against others, at one width of the vectors or several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recsys._compat import tf
from recsys.data.catalogue import Catalogue
from recsys.objectives.config import (
    BPRConfig,
    FullSoftmaxConfig,
    InBatchSoftmaxConfig,
    RetrievalLossConfig,
    SampledSoftmaxConfig,
)
from recsys.objectives.listing import (
    Encode,
    Features,
    ForEach,
    Listing,
    OfBatch,
    OfCatalogue,
    WholeCatalogue,
)


class RetrievalLoss(tf.Module):
    """How far each query's own item stands above others, for whatever has queries and an item tower:

        s_ij = <u_i, v_j> / t_i - log(how often j is expected among the candidates of i)
        softmax   -s_ii + log(exp(s_ii) + sum over the others of exp(s_ij))      (Yi et al., RecSys 2019, eqs. 3 and 5)
        bpr       mean over the others of log(1 + exp(s_ij - s_ii))              (Rendle et al., UAI 2009)

    An other that is i's own item (an accidental hit) has probability exactly 0. Which others there are is a listing's
    business (`listing.py`). Across replicas the loss is the one that a single process computes on the global batch.

    Matryoshka (Kusupati et al., NeurIPS 2022): the sum of the losses of the vectors' prefixes, each of them scaled to
    length 1 again, and of the whole vectors.

    Args:
        config: which loss.
        catalogue: all items.
        encode: from item features to vectors, and whether it is training.
        seed: of what is drawn.
        step: of the training.
        prefixes: widths that must serve by themselves.
        normalize: whether vectors have length 1.
    """

    def __init__(
        self,
        config: RetrievalLossConfig,
        catalogue: Catalogue,
        encode: Encode,
        seed: int,
        step: tf.Variable,
        prefixes: Sequence[int] = (),
        normalize: bool = True,
    ) -> None:
        super().__init__(name="retrieval_loss")
        self.config, self._normalize = config, normalize
        self._widths = (*prefixes, None)
        self.listing = _listing(config, catalogue, encode, seed, step)
        self._temperature = _temperatures(config, catalogue)

    def __call__(
        self,
        query: tf.Tensor,
        item: Features,
        item_index: tf.Tensor,
        user_index: tf.Tensor | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """[b] the loss of each example.

        Args:
            query: [b, d] this replica's queries.
            item: encoded features of their items, each [b, ...].
            item_index: [b] int32 which items they are.
            user_index: [b] int32 whose queries they are; only mined negatives ask.
            training: the item tower drops out, and estimated frequencies take notice of the batch.
        """
        listing = self.listing(item, item_index, user_index, training)
        temperature = self._temperature
        if temperature.shape.rank:
            temperature = tf.gather(temperature, item_index)[:, tf.newaxis]
        return tf.add_n([self._loss(width, query, temperature, item_index, listing) for width in self._widths])

    def _loss(
        self, width: int | None, query: tf.Tensor, temperature: tf.Tensor, item_index: tf.Tensor, listing: Listing
    ) -> tf.Tensor:
        query = self._prefix(query, width) / temperature
        positive = tf.reduce_sum(query * self._prefix(listing.positive, width), -1) - listing.log_presence
        scores = []
        for negatives in listing.negatives:
            products = _products(query, self._prefix(negatives.vectors, width)) - negatives.log_presence
            scores.append(tf.where(tf.equal(item_index[:, tf.newaxis], negatives.index), -float("inf"), products))
        others = scores[0] if len(scores) == 1 else tf.concat(scores, 1)
        if isinstance(self.config, BPRConfig):
            return bpr(positive, others)
        if isinstance(self.config, InBatchSoftmaxConfig) and self.config.hardest is not None:
            others = tf.math.top_k(others, tf.minimum(self.config.hardest, tf.shape(others)[1]), sorted=False).values
        return softmax(positive, others)

    def _prefix(self, x: tf.Tensor, width: int | None) -> tf.Tensor:
        if width is None:
            return x
        return tf.math.l2_normalize(x[..., :width], -1) if self._normalize else x[..., :width]


def _listing(
    config: RetrievalLossConfig, catalogue: Catalogue, encode: Encode, seed: int, step: tf.Variable
) -> OfBatch | OfCatalogue | WholeCatalogue | ForEach:
    match config:
        case InBatchSoftmaxConfig():
            return OfBatch(config, catalogue, encode, seed, step)
        case SampledSoftmaxConfig():
            return OfCatalogue(config, catalogue, encode, seed, step)
        case FullSoftmaxConfig():
            return WholeCatalogue(catalogue, encode)
        case BPRConfig():
            return ForEach(config.negatives, catalogue, encode, seed, step)


def softmax(positive: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """[b] cross-entropy of positives [b] among them and others [b, C]; others of -inf are not there."""
    logits = tf.concat([positive[:, tf.newaxis], others], 1)
    first = tf.zeros_like(positive, tf.int32)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=first, logits=logits)


def bpr(positive: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """[b] mean over the others [b, h] of -log sigmoid(positive - other); others of -inf are not there."""
    there = tf.math.is_finite(others)
    margin = positive[:, tf.newaxis] - tf.where(there, others, 0.0)
    losses = tf.where(there, tf.nn.softplus(-margin), 0.0)
    return tf.math.divide_no_nan(tf.reduce_sum(losses, 1), tf.reduce_sum(tf.cast(there, tf.float32), 1))


def _products(query: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
    """[b, C] inner products with vectors [C, d], or with each query's own [b, C, d]."""
    if vectors.shape.rank == 2:
        return tf.matmul(query, vectors, transpose_b=True)
    return tf.linalg.matvec(vectors, query)


def _temperatures(config: RetrievalLossConfig, catalogue: Catalogue) -> tf.Tensor:
    """One for all, or [N] for the examples of each item."""
    if isinstance(config, BPRConfig) or not config.popularity_temperature:
        return tf.constant(config.temperature, tf.float32)
    counts = np.maximum(catalogue.train_count, 1).astype(np.float64)
    events = catalogue.train_count / max(catalogue.train_count.sum(), 1)
    relative = np.log(counts) - (events * np.log(counts)).sum()
    return tf.constant(config.temperature * np.exp(config.popularity_temperature * relative), tf.float32)
