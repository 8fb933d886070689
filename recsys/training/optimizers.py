"""Optimizers of the dense weights."""

from __future__ import annotations

from collections.abc import Callable

from recsys._compat import keras
from recsys.embeddings.optimizers.sparse import LearningRate
from recsys.training.config import AdamConfig, DenseOptimizerConfig


def make_dense_optimizer(
    config: DenseOptimizerConfig, rates: Callable[[float], LearningRate] = float
) -> keras.optimizers.Optimizer:
    """The Keras optimizer that a config describes, without XLA.

    `adaptive_epsilon` makes Adam add epsilon to the square root of the *corrected* second moment, as the paper and
    torch do. `rates` makes of the learning rate what the optimizer takes.
    """
    rate = rates(config.learning_rate)
    if isinstance(config, AdamConfig):
        return keras.optimizers.Adam(rate, epsilon=config.epsilon, adaptive_epsilon=True, jit_compile=False)
    return keras.optimizers.Adagrad(rate, jit_compile=False)
