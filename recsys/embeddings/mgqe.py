"""Multi-granular quantised embeddings: for each id a few bytes that say which shared centroids it is made of.

A vector of d numbers is cut into P parts; part p of an id is the nearest of K centroids of that part's codebook, for
ids of the tail the nearest of the first K' of them. While the table trains, each id has a float row e, and lookups give
its quantised value c:

    forward    c_p = argmin_k |e_p - C_pk|²
    backward   ∂L/∂e = ∂L/∂c + β ∂V/∂e,   ∂L/∂C = ∂V/∂C,   V = 1/n Σ_lookups |e - c|²

The task's gradient passes to the row as if there were no quantisation (straight through); V pulls centroids to the rows
that chose them, and with the weight β (`commitment`) rows to their centroids. A bundle holds codes and codebook alone.

References: Kang, Cheng, Chen, Yi, Lin, Hong, Chi, "Learning Multi-granular Quantized Embeddings for Large-Vocab
Categorical Features in Recommender Systems", 2020; Chen, Li, Sun, "Differentiable Product Quantization for End-to-End
Embedding Compression", ICML 2020 (DPQ-VQ); van den Oord, Vinyals, Kavukcuoglu, "Neural Discrete Representation
Learning", 2017, eq. 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys._compat import keras, tf
from recsys.embeddings.config import MGQETable
from recsys.embeddings.frequencies import uncounted
from recsys.embeddings.rows import FloatRows, Trained, make_initializer
from recsys.embeddings.seeds import seed_for
from recsys.embeddings.served import ServedRows

BLOCK = 8_192
"""Rows that are coded at a time when a table is served: their distances to all centroids are in memory."""


def head_and_tail(frequencies: Mapping[str, NDArray[np.int64]], head: float) -> NDArray[np.int64]:
    """[2 F] of each vocabulary in turn, the table's row where it begins and the row where its tail does.

    Args:
        frequencies: the count of each id, by vocabulary, in the order in which they stand in the table.
        head: share of a vocabulary's values, the most frequent ones, that are no tail; ids that are not counted
            (missing, OOV, buckets) are none either.

    Raises:
        ValueError: the values of a vocabulary do not go by falling count.
    """
    bounds, start = [], 0
    for counts in frequencies.values():
        special = uncounted(counts)
        bounds += [start, start + special + math.ceil(head * (len(counts) - special))]
        start += len(counts)
    return np.array(bounds, np.int64)


class CodedRows(keras.layers.Layer):
    """Float rows [V, D], which the sparse optimizer trains, and a codebook [P, K, D / P], which the dense one does.

    Centroids start where rows do: from the table's initializer, so at the rows' scale.

    Args:
        table: the table's name.
        rows: V.
        config: parts, codes and where rows start.
        bounds: from `head_and_tail`.
        seed: of the initial values.
    """

    def __init__(self, table: str, rows: int, config: MGQETable, bounds: NDArray[np.int64], seed: int) -> None:
        super().__init__(name=f"table_{table}", dtype="float32")
        self.rows, self.dim = rows, config.dim
        self._config, self._bounds, self._seed = config, bounds, seed
        self._floats = FloatRows(table, rows, config.dim, config.initializer, "float32", seed)

    def build(self, input_shape: Any) -> None:
        """Makes rows and codebook."""
        self._floats.build(None)
        parts, codes, dim = self._config.parts, self._config.codes, self._config.dim
        self.codebook = self.add_weight(
            name="codebook",
            shape=(parts, codes, dim // parts),
            initializer=make_initializer(self._config.initializer, seed_for(self._seed, "codebook")),
        )
        super().build(input_shape)

    def lookup(self, rows: tf.Tensor) -> tf.Tensor:
        """The quantised rows; each distinct row is compared with the centroids once."""
        distinct, index = tf.unique(rows)
        values = self._floats.lookup(distinct)
        codebook = tf.convert_to_tensor(self.codebook)
        codes = self._codes(distinct, values, codebook)
        return _straight_through(values, codebook, codes, index, self._config.commitment)

    def _codes(self, rows: tf.Tensor, values: tf.Tensor, codebook: tf.Tensor) -> tf.Tensor:
        """[n, P] int32 the nearest centroid of each part that a row may use."""
        passed = tf.searchsorted(tf.constant(self._bounds, rows.dtype), rows, side="right")
        is_tail = tf.equal(passed % 2, 0)
        distances = _distances(values, codebook)
        nearest = tf.argmin(distances, 2, tf.int32)
        nearest_of_tail = tf.argmin(distances[:, :, : self._config.tail_codes], 2, tf.int32)
        return tf.transpose(tf.where(is_tail, nearest_of_tail, nearest))

    def trained(self) -> list[Trained]:
        """The rows; the codebook is the dense optimizer's."""
        return self._floats.trained()

    def serve(self) -> ServedRows:
        """Codes and codebook."""
        codebook = tf.convert_to_tensor(self.codebook)
        blocks = []
        for start in range(0, self.rows, BLOCK):
            rows = tf.range(start, min(start + BLOCK, self.rows))
            blocks.append(self._codes(rows, self._floats.lookup(rows), codebook).numpy())
        return ServedCodes(np.concatenate(blocks).astype(np.uint8), codebook.numpy())


class ServedCodes(tf.Module):
    """[V, P] uint8 codes, and the codebook [P, K, D / P] float32."""

    def __init__(self, codes: NDArray[np.uint8], codebook: NDArray[np.float32]) -> None:
        super().__init__()
        self.codes = tf.Variable(codes, trainable=False, name="codes")
        self.codebook = tf.Variable(codebook, trainable=False, name="codebook")

    def lookup(self, rows: tf.Tensor) -> tf.Tensor:
        """Two gathers: codes, then centroids."""
        return _decoded(tf.cast(tf.gather(self.codes, rows), tf.int32), self.codebook.read_value())


def _distances(values: tf.Tensor, codebook: tf.Tensor) -> tf.Tensor:
    """[P, n, K] |e - C|² without |e|², which is the same for all centroids: the product of (e, 1) and (-2 C, |C|²)."""
    parts, _, width = codebook.shape
    cut = tf.transpose(tf.reshape(values, [-1, parts, width]), [1, 0, 2])
    left = tf.pad(cut, [[0, 0], [0, 0], [0, 1]], constant_values=1.0)
    right = tf.concat([-2.0 * codebook, tf.reduce_sum(tf.square(codebook), 2, keepdims=True)], 2)
    return tf.matmul(left, right, transpose_b=True)


def _flat(codes: tf.Tensor, codebook: tf.Tensor) -> tf.Tensor:
    """[n, P] rows of the codebook seen as [P K, D / P]."""
    parts, size, _ = codebook.shape
    return codes + tf.range(parts) * size


def _decoded(codes: tf.Tensor, codebook: tf.Tensor) -> tf.Tensor:
    """[n, D] from codes [n, P]."""
    parts, _, width = codebook.shape
    centroids = tf.gather(tf.reshape(codebook, [-1, width]), _flat(codes, codebook))
    return tf.reshape(centroids, [-1, parts * width])


def _straight_through(
    values: tf.Tensor, codebook: tf.Tensor, codes: tf.Tensor, index: tf.Tensor, commitment: float
) -> tf.Tensor:
    """[n, D] quantised values of n lookups, with the gradients of the module's docstring.

    They are made here because two towers call one table: a loss added to a layer would stay with one of the calls.
    A lookup from which the task's loss takes nothing (padding) has no part in V, and n counts all lookups of all
    replicas.

    Args:
        values: [u, D] of the distinct rows.
        codebook: [P, K, D / P].
        codes: [u, P] of the distinct rows.
        index: [n] which distinct row a lookup reads.
        commitment: β.
    """

    @tf.custom_gradient
    def quantise(values: tf.Tensor, codebook: tf.Tensor) -> tuple[tf.Tensor, Any]:
        quantised = _decoded(codes, codebook)

        def gradients(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            distinct = tf.shape(values)[0]
            task = tf.math.unsorted_segment_sum(upstream, index, distinct)
            used = tf.cast(tf.reduce_any(tf.not_equal(upstream, 0.0), 1), tf.float32)
            lookups = tf.math.unsorted_segment_sum(used, index, distinct)
            total = tf.size(index) * tf.distribute.get_strategy().num_replicas_in_sync
            pull = 2.0 * (lookups / tf.cast(total, tf.float32))[:, tf.newaxis] * (values - quantised)
            parts, size, width = codebook.shape
            of_codes = tf.math.unsorted_segment_sum(
                tf.reshape(-pull, [-1, width]), tf.reshape(_flat(codes, codebook), [-1]), parts * size
            )
            return task + commitment * pull, tf.reshape(of_codes, codebook.shape)

        return tf.gather(quantised, index), gradients

    return quantise(values, codebook)
