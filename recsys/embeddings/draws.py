"""Random numbers inside a step: a function of (seed, step, replica), so that a resumed run draws what it would have."""

from __future__ import annotations

from recsys._compat import tf


def step_seed(step: tf.Variable, salt: int) -> tf.Tensor:
    """[2] int64 for a stateless operation; replicas draw different numbers.

    Args:
        step: of the training.
        salt: 31 bits that tell the purpose from others (`seeds.seed_for`).
    """
    replica = tf.distribute.get_replica_context()
    number = replica.replica_id_in_sync_group if replica is not None else 0
    return tf.stack([tf.cast(step, tf.int64), tf.cast(number, tf.int64) * 2**31 + salt])
