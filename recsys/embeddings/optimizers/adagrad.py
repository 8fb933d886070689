"""Adagrad with an accumulator for each weight, or for each row."""

from __future__ import annotations

from typing import Any

from recsys._compat import tf
from recsys.embeddings.optimizers.sparse import LearningRate, Slots, SlotSpec, SparseOptimizer

_ACCUMULATOR = "accumulator"


class Adagrad(SparseOptimizer):
    """Adagrad (Duchi et al. 2011): a += g²; w -= α g / (sqrt(a) + ε).

    The numbers are those of TensorFlow's fused kernel `ResourceSparseApplyAdagradV2`. It is not used, because on a
    CPU it takes several times as long as to gather, compute and scatter.

    Args:
        learning_rate: α, a number or a Keras schedule.
        initial_accumulator: a at the start.
        epsilon: ε.
        decoupled_decay: λ of AdamW's decay (see `SparseOptimizer`).
        mini_batch_aware_decay: λ of DIN's decay (see `SparseOptimizer`).
        scale_learning_rate: of the scales of int8 rows.
        clipnorm: largest norm of each gradient, repeated ids summed.
        global_clipnorm: largest joint norm of all gradients of this optimizer.
        name: of the optimizer.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.05,
        initial_accumulator: float = 0.1,
        epsilon: float = 1e-8,
        decoupled_decay: float = 0.0,
        mini_batch_aware_decay: float = 0.0,
        scale_learning_rate: float = 2e-5,
        clipnorm: float | None = None,
        global_clipnorm: float | None = None,
        name: str = "Adagrad",
    ) -> None:
        super().__init__(
            learning_rate,
            decoupled_decay,
            mini_batch_aware_decay,
            scale_learning_rate,
            clipnorm,
            global_clipnorm,
            name,
        )
        self.initial_accumulator, self.epsilon = initial_accumulator, epsilon

    def slot_specs(self) -> dict[str, SlotSpec]:
        """The accumulator."""
        return {_ACCUMULATOR: SlotSpec(initial=self.initial_accumulator)}

    def step(self, weights: tf.Tensor, gradient: tf.Tensor, slots: Slots) -> tuple[tf.Tensor, Slots]:
        """The touched rows [n, d] and their slots after a step; all float32."""
        total = slots[_ACCUMULATOR] + self.squares(gradient)
        rate = tf.cast(self.learning_rate, tf.float32) / (tf.sqrt(total) + self.epsilon)
        return weights - rate * gradient, {**slots, _ACCUMULATOR: total}

    def squares(self, gradient: tf.Tensor) -> tf.Tensor:
        """What the gradient [n, d] adds to the accumulator."""
        return tf.square(gradient)

    def get_config(self) -> dict[str, Any]:
        """Everything the constructor takes."""
        return {
            **super().get_config(),
            "initial_accumulator": self.initial_accumulator,
            "epsilon": self.epsilon,
        }


class RowwiseAdagrad(Adagrad):
    """Adagrad with one accumulator a row: a_r += mean_k g_rk²; w_r -= α g_r / (sqrt(a_r) + ε).

    1/d of the memory of Adagrad; the form that TorchRec and FBGEMM call EXACT_ROWWISE_ADAGRAD. Arguments are those of
    `Adagrad`.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.05,
        initial_accumulator: float = 0.0,
        epsilon: float = 1e-8,
        decoupled_decay: float = 0.0,
        mini_batch_aware_decay: float = 0.0,
        scale_learning_rate: float = 2e-5,
        clipnorm: float | None = None,
        global_clipnorm: float | None = None,
        name: str = "RowwiseAdagrad",
    ) -> None:
        super().__init__(
            learning_rate,
            initial_accumulator,
            epsilon,
            decoupled_decay,
            mini_batch_aware_decay,
            scale_learning_rate,
            clipnorm,
            global_clipnorm,
            name,
        )

    def slot_specs(self) -> dict[str, SlotSpec]:
        """The accumulator."""
        return {_ACCUMULATOR: SlotSpec(per_weight=False, initial=self.initial_accumulator)}

    def squares(self, gradient: tf.Tensor) -> tf.Tensor:
        """What the gradient [n, d] adds to the accumulator: the mean over the row, [n, 1]."""
        return tf.reduce_mean(tf.square(gradient), axis=1, keepdims=True)
