"""What losses draw at random: a function of (seed, name, step), so that a resumed run draws what it would have."""

from __future__ import annotations

from recsys._compat import tf
from recsys.embeddings.seeds import seed_for


class Draws:
    """The draws of one purpose.

    Across replicas they are those of one process: a draw for all examples of a global batch is made whole by each
    replica, which takes its own rows (`own_rows`).

    Args:
        seed: the experiment's.
        name: of the purpose; two names have nothing to do with each other.
        step: of the training.
    """

    def __init__(self, seed: int, name: str, step: tf.Variable) -> None:
        self._seed, self._name, self._step = seed, name, step

    def seed(self, part: str = "") -> tf.Tensor:
        """[2] int64 for a stateless operation; another `part`, other numbers."""
        own = tf.constant(seed_for(self._seed, "draws", self._name, part), tf.int64)
        return tf.stack([tf.cast(self._step, tf.int64), own])

    def items(self, shape: list[int | tf.Tensor], size: int) -> tf.Tensor:
        """Of that shape: item indices in [0, size), each as likely as the others, with replacement."""
        return tf.random.stateless_uniform(shape, self.seed(), maxval=size, dtype=tf.int32)


def replicas() -> int:
    """How many replicas share the global batch."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else int(context.num_replicas_in_sync)


def own_rows(x: tf.Tensor) -> tf.Tensor:
    """This replica's [b, ...] of the global batch's [B, ...]."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return x
    rows = tf.shape(x)[0] // context.num_replicas_in_sync
    first = context.replica_id_in_sync_group * rows
    return x[first : first + rows]


def of_all_replicas(x: tf.Tensor) -> tf.Tensor:
    """All replicas' [b, ...] as one [B, ...]: a sum in which each replica fills its own place.

    (`all_gather` fails between workers in a graph, where tensors name no device; `all_reduce` has the same gradient.)
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return x
    place = tf.one_hot(context.replica_id_in_sync_group, context.num_replicas_in_sync, dtype=x.dtype)
    spread = tf.reshape(place, [-1] + [1] * x.shape.rank) * x
    return tf.reshape(context.all_reduce("SUM", spread), tf.concat([[-1], tf.shape(x)[1:]], 0))
