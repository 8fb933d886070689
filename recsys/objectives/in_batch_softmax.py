"""In-batch softmax with logQ correction (Yi et al., "Sampling-bias-corrected neural modeling", RecSys 2019)."""

from __future__ import annotations

from recsys._compat import tf
from recsys.objectives.config import InBatchSoftmaxConfig


def in_batch_softmax(
    config: InBatchSoftmaxConfig, query: tf.Tensor, item: tf.Tensor, item_index: tf.Tensor, log_q: tf.Tensor
) -> tf.Tensor:
    """Cross-entropy of each query's own item among all items of the global batch.

        s_ij = <u_i, v_j> / temperature - log q_j;   loss_i = -s_ii + log Σ_j exp(s_ij)   (Yi et al., eqs. 3 and 5)

    The positive is corrected too, as in the paper. Duplicates stay among the candidates, so q is the expected count B
    q_j, of which B cancels. A candidate j != i that is i's own item (an accidental hit) gets probability exactly 0.
    Across replicas the candidates are gathered, so that the loss is the one that a single process computes on the
    global batch.

    Args:
        config: temperature and whether to correct.
        query: [b, d] this replica's queries.
        item: [b, d] their items.
        item_index: [b] int32.
        log_q: [b] log of each item's share of the training events.

    Returns:
        [b] the loss of each example.
    """
    candidates, candidate_index, candidate_log_q, own = _across_replicas(item, item_index, log_q)
    scores = tf.matmul(query, candidates, transpose_b=True) / config.temperature
    if config.log_q:
        scores -= candidate_log_q
    is_own = tf.equal(own[:, tf.newaxis], tf.range(tf.shape(candidates)[0]))
    accidental = tf.equal(item_index[:, tf.newaxis], candidate_index) & ~is_own
    scores = tf.where(accidental, -float("inf"), scores)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=own, logits=scores)


def _across_replicas(
    item: tf.Tensor, item_index: tf.Tensor, log_q: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """The global batch's candidates [B, d], [B], [B], and where among them this replica's own items stand [b]."""
    own = tf.range(tf.shape(item)[0])
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return item, item_index, log_q, own
    own += replica.replica_id_in_sync_group * tf.shape(item)[0]
    return _gather(replica, item), _gather(replica, item_index), _gather(replica, log_q), own


def _gather(replica: tf.distribute.ReplicaContext, x: tf.Tensor) -> tf.Tensor:
    """All replicas' [b, ...] as one [B, ...]: a sum in which each replica fills its own place.

    (`all_gather` fails between workers in a graph, where tensors name no device; `all_reduce` has the same gradient.)
    """
    place = tf.one_hot(replica.replica_id_in_sync_group, replica.num_replicas_in_sync, dtype=x.dtype)
    spread = tf.reshape(place, [-1] + [1] * x.shape.rank) * x
    return tf.reshape(replica.all_reduce("SUM", spread), tf.concat([[-1], tf.shape(x)[1:]], 0))
