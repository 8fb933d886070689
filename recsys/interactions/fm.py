"""The factorization machine's interactions (Rendle, "Factorization Machines", ICDM 2010)."""

from __future__ import annotations

from recsys._compat import keras, tf
from recsys.interactions.config import FMConfig


class FM(keras.layers.Layer):
    """The sum of the inner products of all pairs of fields: [B, F, D] -> [B, 1].

        Σ_{i<j} <v_i, v_j> = ½ Σ_d ((Σ_i v_id)² - Σ_i v_id²)                    lemma 3.1

    In time linear in F. It has no weights, so `seed` and `step`, which all interactions take, do not matter. It is
    computed in float32 whatever the policy, for it is the small difference of large sums.
    """

    def __init__(self, config: FMConfig, seed: int, step: tf.Variable, name: str = "fm") -> None:
        super().__init__(name=name, autocast=False)

    def call(self, fields: tf.Tensor, training: bool = False) -> tf.Tensor:
        """In the policy's compute type."""
        vectors = tf.cast(fields, tf.float32)
        square_of_sum = tf.square(tf.reduce_sum(vectors, 1))
        sum_of_squares = tf.reduce_sum(tf.square(vectors), 1)
        return tf.cast(0.5 * tf.reduce_sum(square_of_sum - sum_of_squares, -1, keepdims=True), self.compute_dtype)
