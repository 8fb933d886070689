"""Stores of rows: what stands behind a table while it is trained.

A store is a Keras layer with `rows` of width `dim`, a `lookup`, the variables that a sparse optimizer trains, and the
form in which a bundle holds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recsys._compat import keras, tf
from recsys.embeddings.config import InitializerConfig, NormalConfig, Precision
from recsys.embeddings.packing import pack, scales, unpack
from recsys.embeddings.served import ServedRows, served_rows


@dataclass(frozen=True)
class Trained:
    """A variable of a table, which a sparse optimizer trains."""

    table: str
    variable: tf.Variable
    source: tf.Variable
    """What the tape is asked for: the variable itself, or for rows below float32, which cannot be differentiated, the
    port through which their gradient comes.
    """
    sgd: float | None = None
    """Learning rate of plain SGD, for what no table optimizer is to train: thresholds."""


class Store(Protocol):
    """Rows behind a table."""

    rows: int
    dim: int
    """Width of a looked-up row."""

    def build(self, input_shape: Any) -> None:
        """Makes the variables."""

    def lookup(self, rows: tf.Tensor) -> tf.Tensor:
        """From rows [n] to vectors [n, dim] float32."""

    def trained(self) -> list[Trained]:
        """What the sparse optimizer trains. Other trainable weights are the dense optimizer's."""

    def serve(self) -> ServedRows:
        """The form in which a bundle holds the rows, made from the present weights."""


class FloatRows(keras.layers.Layer):
    """One float32 variable [V, D].

    Args:
        table: the table's name.
        rows: V.
        dim: D.
        initializer: where rows start.
        served: the precision in a bundle.
        seed: of the initial values.
    """

    def __init__(
        self, table: str, rows: int, dim: int, initializer: InitializerConfig, served: Precision, seed: int
    ) -> None:
        super().__init__(name=f"table_{table}", dtype="float32")
        self.rows, self.dim = rows, dim
        self._table, self._served = table, served
        self._initializer = make_initializer(initializer, seed)

    def build(self, input_shape: Any) -> None:
        """Makes the variable; the strategy in scope places it."""
        self.embeddings = self.add_weight(name="embeddings", shape=(self.rows, self.dim), initializer=self._initializer)
        super().build(input_shape)

    def lookup(self, rows: tf.Tensor) -> tf.Tensor:
        """One gather; of tables that a parameter-server strategy has cut into shards, too (they take 1-D ids only)."""
        return tf.nn.embedding_lookup(self.embeddings, rows)

    def trained(self) -> list[Trained]:
        """The variable, or its shards."""
        shards: Sequence[tf.Variable] = getattr(self.embeddings, "variables", [self.embeddings])
        return [Trained(self._table, shard, shard) for shard in shards]

    def serve(self) -> ServedRows:
        """At the served precision; for float32, the rows themselves."""
        if self._served == "float32":
            return self
        return served_rows(tf.convert_to_tensor(self.embeddings).numpy(), self._served)


class LowPrecisionRows(keras.layers.Layer):
    """Rows that are stored below float32 while they are trained; there is no float32 copy of them.

    float16 and bfloat16 rows are [V, D] of that type; int8 rows are packed with their learned float32 scale (see
    `packing.py`). The optimizer computes in float32 and rounds stochastically.

    Args:
        table: the table's name.
        rows: V.
        dim: D.
        initializer: where rows start.
        precision: of the stored rows.
        served: the precision in a bundle.
        seed: of the initial values.
    """

    def __init__(
        self,
        table: str,
        rows: int,
        dim: int,
        initializer: InitializerConfig,
        precision: Precision,
        served: Precision,
        seed: int,
    ) -> None:
        super().__init__(name=f"table_{table}", dtype="float32")
        self.rows, self.dim = rows, dim
        self._table, self._type, self._served = table, tf.dtypes.as_dtype(precision), served
        self._initializer = make_initializer(initializer, seed)

    def build(self, input_shape: Any) -> None:
        """Makes the rows and the gradient's port."""
        initial = self._initializer((self.rows, self.dim), tf.float32)
        stored = pack(initial, scales(initial)) if self._type == tf.int8 else tf.cast(initial, self._type)
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=stored.shape,
            dtype=self._type,
            initializer=lambda shape, dtype: stored,
            trainable=False,
        )
        self.port = self.add_weight(name="gradient_port", shape=(), initializer="zeros")
        super().build(input_shape)

    def lookup(self, rows: tf.Tensor) -> tf.Tensor:
        """One gather, and the way back for the gradient: the port's gradient is that of the rows."""
        shape = tf.constant([self.rows, self.dim], tf.int64)

        @tf.custom_gradient
        def decode(stored: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, Any]:
            return self._decode(stored), lambda upstream: (None, tf.IndexedSlices(upstream, rows, shape))

        return decode(tf.nn.embedding_lookup(self.embeddings, rows), self.port.read_value())

    def _decode(self, stored: tf.Tensor) -> tf.Tensor:
        if self._type != tf.int8:
            return tf.cast(stored, tf.float32)
        codes, scale = unpack(stored)
        return codes * scale

    def trained(self) -> list[Trained]:
        """The rows, by way of the port."""
        return [Trained(self._table, self.embeddings, self.port)]

    def serve(self) -> ServedRows:
        """At the served precision."""
        return served_rows(self._decode(self.embeddings.read_value()).numpy(), self._served)


class GivenRows(keras.layers.Layer):
    """Rows that start from given vectors, frozen or trained on, and perhaps projected.

    Args:
        table: the table's name.
        vectors: [V, D] where rows start.
        trained: whether the sparse optimizer moves them.
        projection: width of a learned linear projection, or None.
        served: the precision in a bundle.
        seed: of the projection's initial values.
    """

    def __init__(
        self,
        table: str,
        vectors: NDArray[np.float32],
        trained: bool,
        projection: int | None,
        served: Precision,
        seed: int,
    ) -> None:
        super().__init__(name=f"table_{table}", dtype="float32")
        self.rows = len(vectors)
        self.dim = projection or vectors.shape[1]
        self._table, self._vectors, self._is_trained, self._served = table, vectors, trained, served
        self._projection = (
            keras.layers.Dense(
                projection,
                use_bias=False,
                kernel_initializer=keras.initializers.GlorotUniform(seed=seed),
                name=f"table_{table}_projection",
                dtype="float32",
            )
            if projection
            else None
        )

    def build(self, input_shape: Any) -> None:
        """Makes the variable and the projection."""
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=self._vectors.shape,
            initializer=lambda shape, dtype: tf.constant(self._vectors, dtype),
            trainable=self._is_trained,
        )
        if self._projection is not None:
            self._projection.build((None, self._vectors.shape[1]))
        super().build(input_shape)

    def lookup(self, rows: tf.Tensor) -> tf.Tensor:
        """One gather, then the projection."""
        found = tf.nn.embedding_lookup(self.embeddings, rows)
        return found if self._projection is None else self._projection(found)

    def trained(self) -> list[Trained]:
        """The vectors if they are fine-tuned; a projection is the dense optimizer's."""
        return [Trained(self._table, self.embeddings, self.embeddings)] if self._is_trained else []

    def serve(self) -> ServedRows:
        """Already projected, at the served precision."""
        values = self.embeddings.read_value()
        return served_rows((values if self._projection is None else self._projection(values)).numpy(), self._served)


def make_initializer(config: InitializerConfig, seed: int) -> keras.initializers.Initializer:
    """The Keras initializer that a config describes."""
    if isinstance(config, NormalConfig):
        return keras.initializers.TruncatedNormal(stddev=config.stddev, seed=seed)
    return keras.initializers.RandomUniform(-config.range, config.range, seed=seed)
