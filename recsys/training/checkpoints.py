"""Checkpoints that hold everything a resumed run needs: weights, optimizers, metric sums, position, callbacks' state.

TensorFlow writes a checkpoint under temporary names and updates the file `checkpoint` last, so a process killed at any
moment leaves the old one or the new one as the latest. What such a kill leaves lying about is removed at the next
start.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recsys._compat import tf
from recsys.embeddings.health import stored_bytes
from recsys.errors import TrainingError
from recsys.models.base import EmbeddingModel


@dataclass
class Position:
    """Where training stands, and what it has seen: the part of a checkpoint that is no tensor."""

    epoch: int = 0
    step: int = 0
    """Steps done in this epoch."""
    finished: bool = False
    history: list[dict[str, float]] = field(default_factory=list)
    """The logs of each finished epoch."""
    callbacks: dict[str, Any] = field(default_factory=dict)


class _PositionState(tf.train.experimental.PythonState):
    """Stores a `Position` inside a TensorFlow checkpoint, so that both change in one stroke."""

    def __init__(self, position: Position) -> None:
        super().__init__()
        self.position = position

    def serialize(self) -> str:
        return json.dumps(vars(self.position))

    def deserialize(self, value: bytes) -> None:
        vars(self.position).update(json.loads(value))


class Checkpoints:
    """The checkpoints of one run.

    Args:
        directory: the run's `checkpoints/`.
        model: compiled, built, with built optimizers.
        chief: whether this process's checkpoints are the ones kept; in a cluster every worker must take part in saving.
    """

    def __init__(self, directory: Path, model: EmbeddingModel, chief: bool = True) -> None:
        self.position = Position()
        self._scratch = None if chief else tempfile.TemporaryDirectory(prefix="recsys-worker-")
        self._directory = directory if self._scratch is None else Path(self._scratch.name)
        self._source = directory
        self._model = model
        self._checkpoint = tf.train.Checkpoint(
            model=model,
            dense_optimizer=model.optimizer,
            table_optimizers=model.table_optimizers,
            position=_PositionState(self.position),
        )
        self._manager = tf.train.CheckpointManager(self._checkpoint, str(self._directory), max_to_keep=1)

    def restore(self) -> bool:
        """Goes back to the latest checkpoint; False if there is none.

        Raises:
            TrainingError: a checkpoint that this model does not fit, or that cannot be read.
        """
        latest = tf.train.latest_checkpoint(str(self._source))
        if latest is None:
            return False
        with _readable(latest):
            self._checkpoint.restore(latest).assert_existing_objects_matched()
        return True

    def save(self) -> None:
        """Writes everything; all workers must call it together."""
        self._manager.save()

    def save_best(self, name: str) -> None:
        """Writes the weights alone as `name`; the position, saved later, says which name holds the best."""
        self._weights().write(str(self._directory / name))

    def restore_best(self, name: str) -> None:
        """Loads the weights that `save_best` wrote.

        Raises:
            TrainingError: they cannot be read.
        """
        path = str(self._source / name)
        with _readable(path):
            self._weights().read(path).assert_existing_objects_matched()

    def table_bytes(self) -> dict[str, int]:
        """What each table takes on disk, in the latest checkpoint; without its optimizer's slots."""
        return stored_bytes(self._source, "model/embeddings/tables", self._model.embeddings.tables)

    def _weights(self) -> tf.train.Checkpoint:
        """By layer: a checkpoint of the model itself would hold its optimizers, too."""
        return tf.train.Checkpoint(**{layer.name: layer for layer in self._model.layers})

    def sweep(self, *keep: str) -> None:
        """Removes what is neither the latest checkpoint nor one of the names to keep."""
        if self._scratch is not None or not self._directory.exists():
            return
        latest = tf.train.latest_checkpoint(str(self._directory))
        kept = {"checkpoint", *keep, *([Path(latest).name] if latest else [])}
        for path in self._directory.iterdir():
            if path.name.split(".")[0] not in kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def _readable(path: str) -> Iterator[None]:
    """TensorFlow's many ways of saying that a checkpoint is damaged, or is another model's, become one."""
    try:
        yield
    except (AssertionError, ValueError, IndexError, RuntimeError, tf.errors.OpError) as error:
        raise TrainingError(
            path,
            f"cannot be restored ({str(error).splitlines()[0]})",
            "a checkpoint of this very configuration",
            "delete the run directory, or choose another `name`",
        ) from error
