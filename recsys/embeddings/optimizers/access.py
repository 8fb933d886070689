"""Reading and writing the rows that a step touches, whatever the type they are stored in.

Optimizers compute in float32. Float32 rows are read and written as they are; bfloat16 and float16 rows are rounded
stochastically when they are written, so that steps smaller than the distance of two numbers are not lost but taken with
their probability. int8 rows learn a scale each, by ALPT (see `PackedWeights`).
"""

from __future__ import annotations

import math
from typing import Protocol

from recsys._compat import tf
from recsys.embeddings.packing import MAX_CODE, pack, random_round, scales, unpack


class Rows(Protocol):
    """Some rows of variables [V, ...], or all."""

    def read(self, variable: tf.Variable) -> tf.Tensor:
        """[n, ...] the rows."""

    def write(self, variable: tf.Variable, values: tf.Tensor) -> None:
        """Replaces the rows by values [n, ...]."""


class SomeRows:
    """The rows that distinct indices name; no other is copied.

    It goes by the resource handle: under a distribution strategy that is this replica's copy, and reading through the
    variable itself would copy the whole of it. Writing what was read and changed is also much faster than
    `ResourceScatterSub`, which goes row by row.
    """

    def __init__(self, indices: tf.Tensor) -> None:
        self._indices = indices

    def read(self, variable: tf.Variable) -> tf.Tensor:
        """[n, ...] the rows."""
        return tf.raw_ops.ResourceGather(resource=variable.handle, indices=self._indices, dtype=variable.dtype)

    def write(self, variable: tf.Variable, values: tf.Tensor) -> None:
        """Replaces the rows by values [n, ...]."""
        tf.raw_ops.ResourceScatterUpdate(resource=variable.handle, indices=self._indices, updates=values)


class AllRows:
    """Every row, for a dense gradient."""

    def read(self, variable: tf.Variable) -> tf.Tensor:
        """[V, ...] the rows."""
        return variable.read_value()

    def write(self, variable: tf.Variable, values: tf.Tensor) -> None:
        """Replaces the rows by values [V, ...]."""
        variable.assign(values)


class Weights(Protocol):
    """Rows of one table, as float32."""

    def read(self) -> tf.Tensor:
        """[n, d] float32."""

    def write(self, values: tf.Tensor) -> None:
        """Stores values [n, d] float32."""


class FloatWeights:
    """Rows stored as float32, bfloat16 or float16.

    Args:
        seed: [2], of the rounding.
    """

    def __init__(self, variable: tf.Variable, rows: Rows, seed: tf.Tensor) -> None:
        self._variable, self._rows, self._seed = variable, rows, seed

    def read(self) -> tf.Tensor:
        """[n, d] float32."""
        return tf.cast(self._rows.read(self._variable), tf.float32)

    def write(self, values: tf.Tensor) -> None:
        """Stores values [n, d] float32."""
        kind = self._variable.dtype
        self._rows.write(self._variable, values if kind == tf.float32 else random_round(values, kind, self._seed))


class PackedWeights:
    """Rows stored as 8-bit codes with a scale for the row, both trained: ALPT (Li et al., AAAI 2023).

    The optimizer's step gives new values w in float32. The scale s then follows its gradient at w (LSQ, Esser et al.
    2020, eq. 3 and its factor 1/sqrt(127 d)):

        s <- s - scale_learning_rate / sqrt(127 d) * sum_i g_i * (round(w_i / s) - w_i / s)

    and w is rounded stochastically to codes. Two deviations: g is the upstream gradient of this step, where ALPT runs
    the model a second time on the updated rows; and where w does not fit into 127 s, the scale grows at once until it
    does. A scale that only learns cannot follow: at a gradient of 1e-3 and d = 16 a saturated value moves it by 6e-8 a
    step, while an optimizer like Adam moves values by 1e-3.

    Args:
        gradient: [n, d] float32 upstream gradient of the rows; None if they move for another reason: scales then only
            grow as they must.
        seed: [2], of the rounding.
    """

    def __init__(
        self,
        variable: tf.Variable,
        rows: Rows,
        seed: tf.Tensor,
        gradient: tf.Tensor | None,
        scale_learning_rate: float,
    ) -> None:
        self._variable, self._rows, self._seed = variable, rows, seed
        self._gradient, self._rate = gradient, scale_learning_rate
        self._codes, self._scale = unpack(rows.read(variable))

    def read(self) -> tf.Tensor:
        """[n, d] float32."""
        return self._codes * self._scale

    def write(self, values: tf.Tensor) -> None:
        """Stores values [n, d] float32, and moves their scales."""
        scale = tf.maximum(self._learned_scale(values), scales(values))
        noise = tf.random.stateless_uniform(tf.shape(values), self._seed)
        self._rows.write(self._variable, pack(values, scale, noise))

    def _learned_scale(self, values: tf.Tensor) -> tf.Tensor:
        if self._gradient is None:
            return self._scale
        steps = values / self._scale
        bounded = tf.clip_by_value(steps, -MAX_CODE, MAX_CODE)
        slope = tf.where(steps == bounded, tf.round(steps) - steps, bounded)
        gradient = tf.reduce_sum(self._gradient * slope, axis=1, keepdims=True)
        return self._scale - self._rate / math.sqrt(MAX_CODE * values.shape[1]) * gradient


def weights_of(
    variable: tf.Variable,
    rows: Rows,
    seed: tf.Tensor,
    gradient: tf.Tensor | None,
    scale_learning_rate: float,
) -> Weights:
    """Access to a table's rows by the type that they are stored in."""
    if variable.dtype == tf.int8:
        return PackedWeights(variable, rows, seed, gradient, scale_learning_rate)
    return FloatWeights(variable, rows, seed)
