"""Learning rates that move over a training."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import pi
from typing import Any, Literal

from recsys._compat import keras, tf
from recsys.training.config import ScheduleConfig


@keras.saving.register_keras_serializable("recsys")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate at each step: a function of the step alone, so that a training that goes on is the same.

    Args:
        learning_rate: the highest.
        steps: of the whole training.
        decay, warmup, end: how it moves, as in `ScheduleConfig`.
    """

    def __init__(
        self, learning_rate: float, steps: int, decay: Literal["cosine", "linear"], warmup: float, end: float
    ) -> None:
        self._highest, self._steps, self._decay, self._warmup, self._end = learning_rate, steps, decay, warmup, end

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Of the step with this number, from 0: float32 [].

        The first step after a warm-up has the whole rate, the last of all is a step short of `end`.
        """
        at, warm = tf.cast(step, tf.float32), self._warmup * self._steps
        passed = tf.clip_by_value((at - warm) / (self._steps - warm), 0.0, 1.0)
        left = 1.0 - passed if self._decay == "linear" else 0.5 * (1.0 + tf.cos(pi * passed))
        falling = self._end + (1.0 - self._end) * left
        return self._highest * tf.minimum(falling, (at + 1.0) / max(warm, 1.0))

    def get_config(self) -> dict[str, Any]:
        """Everything the constructor takes."""
        return {
            "learning_rate": self._highest,
            "steps": self._steps,
            "decay": self._decay,
            "warmup": self._warmup,
            "end": self._end,
        }


def learning_rates(config: ScheduleConfig | None, steps: int) -> Callable[[float], float | Schedule]:
    """From a learning rate to what an optimizer takes, in a training of so many steps; constant without a config."""
    if config is None:
        return float
    return partial(Schedule, steps=steps, decay=config.decay, warmup=config.warmup, end=config.end)
