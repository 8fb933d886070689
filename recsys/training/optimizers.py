"""Optimizers of the dense weights."""

from __future__ import annotations

from recsys._compat import keras
from recsys.training.config import AdamConfig, DenseOptimizerConfig


def make_dense_optimizer(config: DenseOptimizerConfig) -> keras.optimizers.Optimizer:
    """The Keras optimizer that a config describes, without XLA.

    `adaptive_epsilon` makes Adam add epsilon to the square root of the *corrected* second moment, as the paper and
    torch do.
    """
    if isinstance(config, AdamConfig):
        return keras.optimizers.Adam(
            config.learning_rate, epsilon=config.epsilon, adaptive_epsilon=True, jit_compile=False
        )
    return keras.optimizers.Adagrad(config.learning_rate, jit_compile=False)
