"""Sparse gradients: summed once for each row, then clipped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from recsys._compat import tf

Gradient: TypeAlias = tf.Tensor | tf.IndexedSlices

WIDE = 32
"""From this width on, `scatter_nd` sums rows faster than a product with a sparse matrix."""


class UniqueSlices(tf.IndexedSlices):
    """A sparse gradient that names every row at most once."""


def deduplicate(gradient: Gradient) -> Gradient:
    """Sums the slices of each row, in float32 and in their order, so that the sums are the same in every run.

    A dense gradient, and one that has been through here, come back as they are.
    """
    if not isinstance(gradient, tf.IndexedSlices) or isinstance(gradient, UniqueSlices):
        return gradient
    rows, positions = tf.unique(_narrow(gradient))
    return UniqueSlices(_sum(gradient.values, positions, tf.size(rows)), rows, gradient.dense_shape)


def clip_by_global_norm(gradients: Sequence[Gradient | None], norm: float) -> tuple[list[Gradient | None], tf.Tensor]:
    """Scales all gradients down so that their joint Euclidean norm, repeated rows summed, is at most `norm`.

    In a replica of a strategy they are first summed over the replicas. So what comes back has to be applied with
    `skip_gradients_aggregation=True`; its sparse gradients are not deduplicated again.

    Returns:
        The gradients, sparse ones still sparse, and the norm before clipping.
    """
    whole = [None if gradient is None else deduplicate(gradient) for gradient in _over_replicas(gradients)]
    clipped, found = tf.clip_by_global_norm(whole, norm)
    return [
        UniqueSlices(after.values, after.indices, after.dense_shape) if isinstance(before, UniqueSlices) else after
        for before, after in zip(whole, clipped, strict=True)
    ], found


def _over_replicas(gradients: Sequence[Gradient | None]) -> list[Gradient | None]:
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return list(gradients)
    # Collectives of sparse and dense gradients get mixed up in `replica.all_reduce`; Keras goes this way, too.
    sums = iter(replica.merge_call(_sum_over_replicas, args=([g for g in gradients if g is not None],)))
    return [None if gradient is None else next(sums) for gradient in gradients]


def _sum_over_replicas(strategy: tf.distribute.Strategy, gradients: list[Gradient]) -> list[Gradient]:
    return list(strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, [(g, g) for g in gradients]))


def _narrow(gradient: tf.IndexedSlices) -> tf.Tensor:
    """The indices as int32 if they certainly fit: `tf.unique` is then nearly twice as fast."""
    shape = None if gradient.dense_shape is None else tf.get_static_value(gradient.dense_shape)
    fits = shape is not None and shape[0] <= tf.int32.max
    return tf.cast(gradient.indices, tf.int32) if fits else gradient.indices


def _sum(values: tf.Tensor, positions: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """[count, ...] float32: row r is the sum of the values [n, ...] whose position is r.

    Both add one row after the other. Keras' `unsorted_segment_sum` gives the same bits, but takes longer.
    """
    values = tf.cast(values, tf.float32)
    if values.shape.rank != 2 or values.shape[1] is None or values.shape[1] >= WIDE:
        shape = tf.concat([[count], tf.shape(values)[1:]], 0)
        return tf.scatter_nd(positions[:, tf.newaxis], values, shape)
    n = tf.size(positions)
    return tf.raw_ops.SparseTensorDenseMatMul(
        a_indices=tf.stack([positions, tf.range(n)], axis=1),
        a_values=tf.ones([n]),
        a_shape=tf.cast(tf.stack([count, n]), tf.int64),
        b=values,
    )
