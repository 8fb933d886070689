"""Learning rates that move over a training."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import pi
from typing import Any

from recsys._compat import keras, tf
from recsys.training.config import ScheduleConfig


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate at each step: a function of the step alone, so that a training that goes on is the same.

    Args:
        learning_rate: the highest.
        config: how it moves.
        steps: of the whole training.
    """

    def __init__(self, learning_rate: float, config: ScheduleConfig, steps: int) -> None:
        self._highest, self._config, self._steps = learning_rate, config, steps

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Of the step with this number, from 0: float32 [].

        The last step of the warm-up and the first after it have the whole rate, the last of all is a step short of
        `end`.
        """
        at, config = tf.cast(step, tf.float32), self._config
        warm = config.warmup * self._steps
        passed = tf.clip_by_value((at - warm) / (self._steps - warm), 0.0, 1.0)
        left = 1.0 - passed if config.decay == "linear" else 0.5 * (1.0 + tf.cos(pi * passed))
        falling = config.end + (1.0 - config.end) * left
        return self._highest * tf.minimum(falling, (at + 1.0) / max(warm, 1.0))

    def get_config(self) -> dict[str, Any]:
        """Everything the constructor takes."""
        return {"learning_rate": self._highest, "config": self._config, "steps": self._steps}


def learning_rates(config: ScheduleConfig | None, steps: int) -> Callable[[float], float | Schedule]:
    """From a learning rate to what an optimizer takes, in a training of so many steps; constant without a config."""
    return float if config is None else partial(Schedule, config=config, steps=steps)
