"""`runs/NAME`: whose run it is, whether it has trained, what its stages took."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from recsys.config.base import Config
from recsys.config.digest import digest
from recsys.errors import TrainingError
from recsys.files import write_text

CURE = "choose another `name`, or remove the folder"


class Origin(Config):
    """`origin.json`: whose run it is."""

    base_dir: str
    """The folder that relative paths in `data.source` start from."""
    training_digest: str
    """Of all in the config that the weights depend on."""
    data_digest: str
    """Of the prepared data."""
    warm_start: str | None = None
    """The identity of the run whose weights it started with, if it did."""
    teacher: str | None = None
    """The identity of the run that taught its item tower, if one did."""

    @property
    def identity(self) -> str:
        """Of the weights: what they depend on. Where the run stands, and its data, does not matter."""
        return digest(self.model_copy(update={"base_dir": ""}))


class RunDirectory:
    """A run directory, which may not exist yet. It belongs to the first config that trains in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def is_trained(self) -> bool:
        """Whether it holds a checkpoint, of a finished training or not."""
        return (self.path / "checkpoints" / "checkpoint").exists()

    def origin(self) -> Origin | None:
        """Whose run it is; None if nobody's.

        Raises:
            TrainingError: that cannot be read.
        """
        path = self.path / "origin.json"
        try:
            return Origin.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise TrainingError(str(path), "cannot be read", "what recsys wrote there", CURE) from error

    def check(self, training_digest: str, data_digest: str | None = None) -> None:
        """Refuses what another config has trained, or this one on other data (where a digest of them is given).

        Raises:
            TrainingError: it is such a run.
        """
        origin = self.origin()
        if origin is None or not self.is_trained:
            return
        if origin.training_digest != training_digest:
            found = f"the run of another configuration (training digest {origin.training_digest[:12]})"
            raise TrainingError(str(self.path), found, training_digest[:12], CURE)
        if data_digest is not None and origin.data_digest != data_digest:
            found = f"trained on other data (digest {origin.data_digest[:12]}): the files have changed since"
            raise TrainingError(str(self.path), found, data_digest[:12], f"put the old files back, {CURE}")

    def claim(self, origin: Origin, config: str) -> None:
        """Makes it this experiment's; what another config left there that never trained goes.

        Raises:
            TrainingError: another config, or other data, have trained in it.
        """
        self.check(origin.training_digest, origin.data_digest)
        found = self.origin()
        if found is not None and found.training_digest != origin.training_digest:
            shutil.rmtree(self.path / "logs", ignore_errors=True)
            (self.path / "cost.json").unlink(missing_ok=True)
        write_text(self.path / "config.yaml", config)
        write_text(self.path / "origin.json", origin.model_dump_json())

    def link(self, name: str, target: Path) -> None:
        """Points the link `name` to `target`."""
        temporary = self.path / f".{name}-{os.getpid()}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target.resolve())
        os.replace(temporary, self.path / name)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the wall-clock seconds of a stage that ends well to `cost.json`, where they outlast the process."""
        started = time.perf_counter()
        yield
        seconds = self.seconds()
        seconds[stage] = round(seconds.get(stage, 0.0) + time.perf_counter() - started, 3)
        write_text(self.path / "cost.json", json.dumps(seconds))

    def seconds(self) -> dict[str, float]:
        """Wall-clock seconds of each stage so far."""
        path = self.path / "cost.json"
        return json.loads(path.read_text()) if path.exists() else {}
