"""Keras callbacks: validation, early stopping, a look at the loss, a progress bar."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from recsys._compat import keras, tf
from recsys.errors import TrainingError
from recsys.training.config import EarlyStoppingConfig, TrainingConfig

Logs = dict[str, float] | None


@runtime_checkable
class Resumable(Protocol):
    """A callback with something to remember across a kill: `state` goes into every checkpoint as JSON.

    It is found again by its class, so a run has at most one of each.
    """

    state: dict[str, Any]


def standard_callbacks(
    config: TrainingConfig,
    monitor: str,
    validate: Callable[[], dict[str, float]],
    save_best: Callable[[str], None],
    logs: Path | None,
    measures: Sequence[keras.callbacks.Callback] = (),
) -> list[keras.callbacks.Callback]:
    """What the config asks for.

    Args:
        config: of the training.
        monitor: the metric that decides about early stopping.
        validate: computes the metrics with the model's present weights.
        save_best: saves the weights under a name.
        logs: TensorBoard's folder; None for members of a cluster that do not write it.
        measures: what else adds to the logs, before anybody reads them.
    """
    found: list[keras.callbacks.Callback] = [FiniteLoss(), *measures]
    if config.early_stopping is not None:
        found.append(Validation(validate, config.early_stopping.every_epochs))
        found.append(EarlyStopping(config.early_stopping, monitor, save_best))
    if config.tensorboard and logs is not None:
        found.append(keras.callbacks.TensorBoard(str(logs), write_graph=False, profile_batch=0))
    return found


class Validation(keras.callbacks.Callback):
    """Adds `val_*` metrics to the logs of every n-th epoch.

    Args:
        evaluate: computes the metrics with the model's present weights.
        every_epochs: n.
    """

    def __init__(self, evaluate: Callable[[], dict[str, float]], every_epochs: int = 1) -> None:
        super().__init__()
        self._evaluate, self._every = evaluate, every_epochs

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Evaluates and logs."""
        if logs is not None and (epoch + 1) % self._every == 0:
            logs.update({f"val_{name}": value for name, value in self._evaluate().items()})


class EarlyStopping(keras.callbacks.Callback):
    """Stops when `val_MONITOR` has not risen for `patience` validations, and has the best weights saved.

    Args:
        config: patience.
        monitor: the metric's name.
        save_best: saves the weights under a name.
    """

    def __init__(self, config: EarlyStoppingConfig, monitor: str, save_best: Callable[[str], None]) -> None:
        super().__init__()
        self._patience, self._monitor, self._save_best = config.patience, f"val_{monitor}", save_best
        self.state: dict[str, Any] = {"best": None, "name": None, "waited": 0}

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Compares with the best so far."""
        value = (logs or {}).get(self._monitor)
        if value is None:
            return
        if self.state["best"] is None or value > self.state["best"]:
            name = f"best-{epoch + 1}"
            self._save_best(name)
            self.state = {"best": value, "name": name, "waited": 0}
        else:
            self.state = {**self.state, "waited": self.state["waited"] + 1}
            if self.state["waited"] >= self._patience:  # and never False: another callback may have stopped
                self.model.stop_training = True


class FiniteLoss(keras.callbacks.Callback):
    """Stops training with an explanation as soon as the loss is not finite."""

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Looks at the loss.

        Raises:
            TrainingError: it is NaN or infinite.
        """
        loss = (logs or {}).get("loss", 0.0)
        if math.isfinite(loss):
            return
        broken = [v.name for v in self.model.trainable_variables if not np.all(tf.math.is_finite(v).numpy())]
        raise TrainingError(
            f"training step {int(self.model.global_step.numpy())}",
            f"the loss is {loss}" + (f" and {', '.join(broken[:3])} hold NaN or infinite values" if broken else ""),
            "a finite loss",
            "lower the learning rates (embeddings.optimizer, training.dense_optimizer), raise the loss's temperature, "
            "or look for extreme values in numeric and vector features; the last checkpoint is intact",
        )


class ProgressBar(keras.callbacks.Callback):
    """One line per epoch on the terminal: steps, loss, time left, then the metrics of training and validation."""

    def __init__(self, console: Console, monitor: str) -> None:
        super().__init__()
        self._monitor = monitor
        self._console = console
        self._progress: Progress | None = None
        self._task = TaskID(0)

    def on_train_begin(self, logs: Logs = None) -> None:
        """Says so if an earlier command has finished the training."""
        if self.model.stop_training:
            self._console.print("training was finished before; nothing to do")

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Starts the epoch's bar, where somebody watches."""
        if not self._console.is_terminal:
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
        )
        self._progress = Progress(*columns, TimeRemainingColumn(), console=self._console, transient=True)
        self._task = self._progress.add_task(f"epoch {epoch + 1}", total=self.params["steps"], loss="")
        self._progress.start()

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Moves the bar."""
        if self._progress is not None:
            self._progress.update(self._task, completed=batch + 1, loss=f"loss {(logs or {}).get('loss', 0.0):.4f}")

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Replaces the bar by the epoch's result."""
        self._stop()
        found = {"loss": 0.0} | (logs or {})
        parts = [f"{name} {found[name]:.4f}" for name in ("loss", "auc", "logloss") if name in found]
        value = found.get(f"val_{self._monitor}")
        if value is not None:
            parts.append(f"validation {self._monitor} {value:.4f}")
        self._console.print(f"epoch {epoch + 1:>3}  {'  '.join(parts)}", highlight=False)

    def on_train_end(self, logs: Logs = None) -> None:
        """Removes a bar that an error left."""
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
