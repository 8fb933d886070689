"""Hard negatives: items from the middle of the ranking that an earlier state of the model gave a user."""

from __future__ import annotations

from recsys._compat import tf
from recsys.objectives.config import MinedConfig
from recsys.objectives.draws import Draws, own_rows, replicas


class HardNegatives(tf.Module):
    """Some items for each user, from which each step draws. `training.mining` fills them in at the end of an epoch, and
    they are part of every checkpoint: what a resumed run draws is what it would have drawn.

    Args:
        config: how many.
        users: U.
        seed: of the draws.
        step: of the training.
    """

    def __init__(self, config: MinedConfig, users: int, seed: int, step: tf.Variable) -> None:
        super().__init__(name="hard_negatives")
        self._config, self._draws = config, Draws(seed, "hard_negatives", step)
        self.items = tf.Variable(
            tf.fill([users, config.kept], -1),
            trainable=False,
            name="hard_negatives",
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
        """[U, kept] int32 item indices, -1 for none."""

    def draw(self, user_index: tf.Tensor, item_index: tf.Tensor) -> tf.Tensor:
        """[b, count] int32 items for the users [b], none twice; where there is none, the example's own item [b]."""
        rows = tf.shape(user_index)[0]
        order = tf.random.stateless_uniform([rows * replicas(), self._config.kept], self._draws.seed())
        columns = tf.math.top_k(own_rows(order), self._config.count, sorted=False).indices
        found = tf.gather(tf.gather(self.items, user_index), columns, batch_dims=1)
        return tf.where(found < 0, item_index[:, tf.newaxis], found)
