"""Vectors of items that go with others: skip-gram with negative sampling, whose two sets of vectors are both kept
(Mikolov et al., NeurIPS 2013; for complements Trofimov, "Inferring complementary products from baskets", 2018).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.data.pairs import Pairs
from recsys.embeddings.config import UniformConfig
from recsys.embeddings.optimizers import TableOptimizers
from recsys.embeddings.rows import FloatRows
from recsys.embeddings.seeds import seed_for
from recsys.models.config import ComplementsConfig


class DualVectors(NamedTuple):
    """What goes with an item i: the j with the largest <inputs_i, outputs_j>. What i goes with may be others."""

    inputs: NDArray[np.float32]
    """[N, d]; 0 for items that begin too few pairs."""
    outputs: NDArray[np.float32]
    """[N, d]"""
    indexed: NDArray[np.bool_]
    """[N] whether an item ends enough pairs to be recommended."""


class DualEmbeddings(tf.Module):
    """Input and output vectors of N items, trained to tell what came after an item from what might have come:

        loss of (i, j) = -log σ(<u_i, v_j>) - Σ_n log σ(-<u_i, v_n>)

    over negatives n, drawn by how often items end pairs to some power; one that is j counts for nothing. A step costs
    what its pairs cost, whatever N is.

    Args:
        config: width, negatives, optimizer.
        ends: [N] how many pairs each item ends.
        seed: of initial vectors and of draws.
    """

    def __init__(self, config: ComplementsConfig, ends: NDArray[np.int64], seed: int) -> None:
        super().__init__(name="dual_embeddings")
        self._config, self._seed = config, seed_for(seed, "complements", "negatives")
        weight = ends.astype(np.float64) ** config.power * (ends > 0)
        self._below = tf.constant(np.cumsum(weight) / weight.sum(), tf.float64)
        start = UniformConfig(range=0.5 / config.dim)
        self.sides = [
            FloatRows(side, len(ends), config.dim, start, "float32", seed_for(seed, "complements", side))
            for side in ("inputs", "outputs")
        ]
        for side in self.sides:
            side.build(None)
        self._trained = [trained for side in self.sides for trained in side.trained()]
        self._optimizers = TableOptimizers({each.table: config.optimizer for each in self._trained})
        self._optimizers.build(self._trained)
        self._step = tf.function(self._train, autograph=False, reduce_retracing=True)

    def fit(self, pairs: Pairs, seed: int) -> None:
        """All epochs over the pairs, in an order that each epoch mixes anew."""
        size = min(self._config.batch_size, len(pairs.first))
        step = 0
        for epoch in range(self._config.epochs):
            order = np.random.default_rng([seed, epoch]).permutation(len(pairs.first))
            for at in range(0, len(order), size):
                rows = order[at : at + size]
                self._step(tf.constant(pairs.first[rows]), tf.constant(pairs.then[rows]), tf.constant(step, tf.int64))
                step += 1
        self._optimizers.flush()

    def losses(self, first: tf.Tensor, then: tf.Tensor, negatives: tf.Tensor) -> tf.Tensor:
        """[B] of pairs [B], [B] and their negatives [B, K]."""
        inputs, outputs = self.sides
        query = inputs.lookup(first)
        others = outputs.lookup(tf.concat([then, tf.reshape(negatives, [-1])], 0))
        positive = tf.reduce_sum(query * others[: tf.shape(then)[0]], 1)
        rest = tf.reshape(others[tf.shape(then)[0] :], [-1, negatives.shape[1], query.shape[1]])
        scores = tf.where(tf.equal(negatives, then[:, tf.newaxis]), -float("inf"), tf.linalg.matvec(rest, query))
        return tf.nn.softplus(-positive) + tf.reduce_sum(tf.nn.softplus(scores), 1)

    def _train(self, first: tf.Tensor, then: tf.Tensor, step: tf.Tensor) -> None:
        places = tf.random.stateless_uniform(
            [tf.shape(first)[0], self._config.negatives], tf.stack([step, self._seed]), dtype=tf.float64
        )
        found = tf.searchsorted(self._below, tf.reshape(places, [-1]), side="right")
        negatives = tf.reshape(tf.minimum(found, tf.shape(self._below)[0] - 1), tf.shape(places))
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(self.losses(first, then, negatives))
        gradients = tape.gradient(loss, [each.source for each in self._trained])
        self._optimizers.apply(gradients, self._trained)


def dual_vectors(pairs: Pairs, items: int, config: ComplementsConfig, seed: int) -> DualVectors:
    """Trains input and output vectors of a catalogue; the same numbers from the same seed.

    Args:
        pairs: at least one.
        items: N.
        config: how.
        seed: the experiment's.
    """
    begins, ends = (np.bincount(side, minlength=items) for side in pairs)
    model = DualEmbeddings(config, ends, seed)
    model.fit(pairs, seed_for(seed, "complements", "order"))
    inputs, outputs = (side.embeddings.numpy() for side in model.sides)
    known = (begins >= config.min_count)[:, np.newaxis]
    return DualVectors(np.where(known, inputs, 0.0).astype(np.float32), outputs, ends >= config.min_count)
