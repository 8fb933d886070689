"""OptEmbed's supernet: rows that learn whether they are worth keeping, at all widths at once.

Of field f with the threshold t_f, row e, width k:

    forward    ê = S(|e|₁ - t_f) · (e_1, ..., e_k, 0, ..., 0),   S(z) = 1 if z > 0 else 0
    backward   S'(z) = 2 - 4 |z| for |z| <= 0.4,  0.4 for 0.4 < |z| <= 1,  0 beyond     (the long-tail estimator)
    loss       task + α Σ_f exp(-t_f)

A field is a vocabulary: features that share one share its threshold, for they share its rows. In training k is uniform
on 1 .. D, anew for each example and feature; elsewhere it is the field's entry in `widths`, D until a search says
otherwise. Norms are those of whole rows. Pruned rows still have a gradient through S', and can come back. Thresholds
descend by plain SGD; the penalty only ever raises them, so what prunes is the decay of rows that the task does not hold
up: give the table's optimizer a `coupled` decay, as the paper's Adam has it.

Thresholds reach only rows whose |e|₁ lies within 1 of them. Rows that start far out (uniform in [-0.05, 0.05] at D = 64
has |e|₁ = 1.6) give them no gradient: start rows near zero.

Reference: Lyu, Tang, Guo, Tang, He, Zhang, Liu, "OptEmbed: Learning Optimal Embedding Table for Click-through Rate
Prediction", CIKM 2022, section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recsys._compat import keras, tf
from recsys.embeddings.config import OptEmbedTable
from recsys.embeddings.draws import step_seed
from recsys.embeddings.rows import FloatRows, Trained
from recsys.embeddings.seeds import seed_for
from recsys.embeddings.served import ServedRows, served_rows


@tf.custom_gradient
def step_function(z: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """1 where z > 0, else 0; its gradient is the long-tail estimator's."""

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        far = tf.abs(z)
        tail = tf.where(far <= 1.0, 0.4, 0.0)
        return upstream * tf.where(far <= 0.4, 2.0 - 4.0 * far, tail)

    return tf.cast(z > 0.0, z.dtype), gradient


class Supernet(keras.layers.Layer):
    """Float rows [V, D], which start where a full table's do, a threshold and a width for each field.

    Args:
        table: the table's name.
        config: where rows and thresholds start, the penalty.
        sizes: rows of each vocabulary, in their order.
        seed: of the initial rows and the sampled widths.
        step: that the sampled widths depend on, beside the seed.
    """

    def __init__(
        self, table: str, config: OptEmbedTable, sizes: Mapping[str, int], seed: int, step: tf.Variable
    ) -> None:
        super().__init__(name=f"table_{table}", dtype="float32")
        self.rows, self.dim, self.fields = sum(sizes.values()), config.dim, tuple(sizes)
        self._table, self._config, self._seed, self._step = table, config, seed, step
        self._starts = np.cumsum([0, *list(sizes.values())[:-1]]).tolist()
        self._floats = FloatRows(table, self.rows, config.dim, config.initializer, "float32", seed)

    def build(self, input_shape: Any) -> None:
        """Makes rows, thresholds and widths."""
        self._floats.build(None)
        count, start = len(self.fields), self._config.threshold
        self.thresholds = self.add_weight(
            name="thresholds", shape=(count,), initializer=keras.initializers.Constant(start)
        )
        self.widths = self.add_weight(
            name="widths",
            shape=(count,),
            dtype=tf.int32,
            initializer=lambda shape, dtype: tf.fill(shape, tf.constant(self.dim, dtype)),
            trainable=False,
        )
        super().build(input_shape)

    @property
    def embeddings(self) -> tf.Variable:
        """[V, D] the rows without any mask."""
        return self._floats.embeddings

    def lookup(self, rows: tf.Tensor) -> tf.Tensor:
        """One gather; rows below their threshold and numbers beyond their width are zero."""
        return self._masked(self._floats.lookup(rows), self._field(rows))

    def sampled(self, found: tf.Tensor, columns: Mapping[str, int]) -> tf.Tensor:
        """Looked-up rows, cut to the widths of a step of training.

        Args:
            found: [B, L, D]
            columns: of each feature, in their order, how many of the L it has; they share one width.
        """
        seed = step_seed(self._step, seed_for(self._seed, "widths", *columns))
        shape = [tf.shape(found)[0], len(columns)]
        widths = tf.random.stateless_uniform(shape, seed, 1, self.dim + 1, tf.int32)
        of_column = np.repeat(np.arange(len(columns)), list(columns.values()))
        return found * self._prefix(tf.gather(widths, of_column, axis=1))

    def penalty(self) -> tf.Tensor:
        """α Σ_f exp(-t_f)."""
        return self._config.alpha * tf.reduce_sum(tf.exp(-self.thresholds))

    def trained(self) -> list[Trained]:
        """The rows."""
        return self._floats.trained()

    def descending(self) -> Trained:
        """The thresholds, for plain SGD."""
        return Trained(self._table, self.thresholds, self.thresholds, sgd=self._config.threshold_learning_rate)

    def kept(self) -> dict[str, np.ndarray]:
        """[rows of the field] whether each row is above its threshold, by field."""
        norms = np.abs(self.embeddings.numpy()).sum(1, dtype=np.float32)
        parts = np.split(norms, self._starts[1:])
        limits = self.thresholds.numpy()
        return {field: part > limit for field, part, limit in zip(self.fields, parts, limits, strict=True)}

    def set_widths(self, widths: Sequence[int]) -> None:
        """The width of each field outside of training."""
        self.widths.assign(list(widths))

    def serve(self) -> ServedRows:
        """The masked rows, as many and as wide as before: the smaller table is that of a plan."""
        rows = tf.range(self.rows)
        values = self._masked(tf.convert_to_tensor(self.embeddings), self._field(rows))
        return served_rows(values.numpy(), self._config.served_precision or "float32")

    def _field(self, rows: tf.Tensor) -> tf.Tensor:
        return tf.searchsorted(tf.constant(self._starts, rows.dtype), rows, side="right") - 1

    def _masked(self, values: tf.Tensor, field: tf.Tensor) -> tf.Tensor:
        gap = tf.reduce_sum(tf.abs(values), 1) - tf.gather(self.thresholds, field)
        return values * step_function(gap)[:, tf.newaxis] * self._prefix(tf.gather(self.widths, field))

    def _prefix(self, widths: tf.Tensor) -> tf.Tensor:
        """[..., D] 1 in the first numbers, as many as the width [...] says."""
        return tf.cast(tf.range(self.dim) < widths[..., tf.newaxis], tf.float32)
