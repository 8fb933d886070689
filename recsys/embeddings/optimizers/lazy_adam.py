"""Adam for rows that are looked up now and then."""

from __future__ import annotations

from typing import Any

from recsys._compat import tf
from recsys.embeddings.optimizers.sparse import LearningRate, Slots, SlotSpec, SparseOptimizer


class LazyAdam(SparseOptimizer):
    """Adam (Kingma & Ba 2015, Algorithm 1) that leaves rows without a gradient, and their moments, as they are.

    The bias correction counts the optimizer's steps. `epsilon` is added to sqrt(v̂), as in the paper and torch
    (tf_keras' own Adam adds it before the correction).

    Args:
        learning_rate: α, a number or a Keras schedule.
        beta_1: decay of the first moment m.
        beta_2: decay of the second moment v.
        epsilon: ε.
        decoupled_decay: λ of AdamW's decay (see `SparseOptimizer`).
        coupled_decay: λ of torch's `Adam(weight_decay=)`: λ w is part of each step's gradient. What a row misses while
            it sleeps is made up for by `catch_up`, an approximation.
        mini_batch_aware_decay: λ of DIN's decay (see `SparseOptimizer`).
        scale_learning_rate: of the scales of int8 rows.
        clipnorm: largest norm of each gradient, repeated ids summed.
        global_clipnorm: largest joint norm of all gradients of this optimizer.
        name: of the optimizer.

    Raises:
        ValueError: more than one kind of decay.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        decoupled_decay: float = 0.0,
        coupled_decay: float = 0.0,
        mini_batch_aware_decay: float = 0.0,
        scale_learning_rate: float = 2e-5,
        clipnorm: float | None = None,
        global_clipnorm: float | None = None,
        name: str = "LazyAdam",
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
        if sum(map(bool, (decoupled_decay, coupled_decay, mini_batch_aware_decay))) > 1:
            raise ValueError("a row decays in one way: decoupled, coupled or mini-batch aware")
        self.beta_1, self.beta_2, self.epsilon, self.coupled_decay = beta_1, beta_2, epsilon, coupled_decay

    @property
    def decays(self) -> bool:
        """Whether rows change without a gradient, too."""
        return self.coupled_decay > 0 or super().decays

    def slot_specs(self) -> dict[str, SlotSpec]:
        """Both moments of every weight."""
        return {"m": SlotSpec(), "v": SlotSpec()}

    def step(self, weights: tf.Tensor, gradient: tf.Tensor, slots: Slots) -> tuple[tf.Tensor, Slots]:
        """w - α m̂ / (sqrt(v̂) + ε), with the corrections of m̂ and v̂ drawn into α and ε: two passes less."""
        if self.coupled_decay:
            gradient += self.coupled_decay * weights
        step = tf.cast(self.iterations + 1, tf.float32)
        root = tf.sqrt(1.0 - tf.pow(self.beta_2, step))
        rate = tf.cast(self.learning_rate, tf.float32) * root / (1.0 - tf.pow(self.beta_1, step))
        m = self.beta_1 * slots["m"] + (1.0 - self.beta_1) * gradient
        v = self.beta_2 * slots["v"] + (1.0 - self.beta_2) * tf.square(gradient)
        return weights - rate * m / (tf.sqrt(v) + self.epsilon * root), {**slots, "m": m, "v": v}

    def catch_up(self, weights: tf.Tensor, slots: Slots, last: tf.Tensor, steps: tf.Tensor) -> tuple[tf.Tensor, Slots]:
        """Decoupled: exact. Coupled: what dense Adam would have done to rows that slept, in one step instead of many.

        Replaying each step would be exact, and as dear as dense Adam; there is no closed form. Here the bias correction
        of v is that of the middle of the sleep; momentum runs out by its geometric series; then decay, whose gradient
        λ w is divided by a denominator that shrinks as v does, is integrated, at most α a step.
        """
        if not self.coupled_decay:
            return super().catch_up(weights, slots, last, steps)
        rate, decay = tf.cast(self.learning_rate, tf.float32), self.coupled_decay
        m, v = slots["m"], slots["v"]
        v_hat = v / (1.0 - tf.pow(self.beta_2, last + steps / 2.0 + 1.0))
        denominator = tf.sqrt(v_hat) + self.epsilon
        m_hat = m / (1.0 - tf.pow(self.beta_1, last + 1.0))
        kept_1, kept_2 = tf.pow(self.beta_1, steps), tf.pow(self.beta_2, steps)
        coasted = weights - rate * m_hat * self.beta_1 * (1.0 - kept_1) / (1.0 - self.beta_1) / denominator
        growth = (tf.pow(self.beta_2, -steps / 2.0) - 1.0) / (1.0 - self.beta_2**0.5)
        size = tf.abs(coasted)
        shrunk = tf.maximum(size * tf.exp(-rate * decay * growth / denominator), size - rate * steps)
        weights = tf.sign(coasted) * tf.maximum(shrunk, 0.0)
        pull = decay * weights
        m, v = kept_1 * m + (1.0 - kept_1) * pull, kept_2 * v + (1.0 - kept_2) * tf.square(pull)
        return weights, {**slots, "m": m, "v": v}

    def get_config(self) -> dict[str, Any]:
        """Everything the constructor takes."""
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "coupled_decay": self.coupled_decay,
        }
