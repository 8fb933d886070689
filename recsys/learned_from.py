"""Runs that an experiment learns from: the one whose weights it starts with, the one that teaches its item tower."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from recsys.errors import ConfigError
from recsys.experiment_config import ExperimentConfig
from recsys.models.config import DistillConfig, TwoTowerConfig
from recsys.run_directory import RunDirectory

if TYPE_CHECKING:
    from recsys.data.prepared import Prepared
    from recsys.models.base import EmbeddingModel

WARM_START, TEACHER = "training.warm_start", "model.item.distill.teacher"
"""Where the config names them."""


class TrainedRun(Protocol):
    """What is asked of another run."""

    @property
    def folder(self) -> Path:
        """Its run directory."""

    @property
    def prepared(self) -> Prepared:
        """The data that it was trained on."""

    def trained_model(self) -> EmbeddingModel:
        """The model with the weights that its training ended with."""


class Identities(NamedTuple):
    """What the weights of an experiment depend on beside its own config."""

    warm_start: str | None
    teacher: str | None


class LearnedFrom:
    """The runs that a config names.

    Args:
        config: of the experiment that learns.
        base_dir: the folder that their paths start from.
        directory: of the experiment: once it has trained, what it has learned from is settled.
        open_run: opens a run directory, with the data that it was trained on.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        base_dir: Path,
        directory: RunDirectory,
        open_run: Callable[[Path], TrainedRun],
    ) -> None:
        self._config, self._base_dir, self._directory, self._open = config, base_dir, directory, open_run

    def earlier(self) -> TrainedRun | None:
        """The run to start from, with the data that it was trained on; None where there is nothing to start.

        Raises:
            ConfigError: there is no such run, or its data are gone.
        """
        path = self._config.training.warm_start
        if path is None or self._directory.is_trained:
            return None
        return self._run(path, WARM_START)

    def teach(self, model: EmbeddingModel, prepared: Prepared) -> None:
        """Gives the item tower of `model`, which learns from `prepared`, its teacher, if the config names one.

        Raises:
            ConfigError: it is no two_tower, or another one than has taught so far.
            TrainingError: it is not trained.
        """
        from recsys.models.two_tower import TwoTower
        from recsys.training.teacher import teacher_of

        asked = self._distilled
        if asked is None:
            return
        assert isinstance(model, TwoTower)
        other = self._run(asked.teacher, TEACHER)
        origin = self._directory.origin()
        if self._directory.is_trained and origin is not None and origin.teacher != self._identity(other):
            found, cure = "is another run than the one that has taught so far", "put it back, or choose another `name`"
            raise ConfigError(TEACHER, found, "the same teacher to the end", cure)
        teacher = other.trained_model()
        if not isinstance(teacher, TwoTower):
            raise ConfigError(TEACHER, "is a run of a ranker", "that of a two_tower", "name another run")
        width = model.item_vectors({name: rows[:1] for name, rows in prepared.item_features.items()}).shape[1]
        model.taught_by(teacher_of(prepared, width, teacher, other.prepared))

    def identities(self) -> Identities:
        """Of the runs that it learns from, or has learned from.

        Raises:
            ConfigError: there is no such run, or its data are gone.
        """
        if self._directory.is_trained:
            origin = self._directory.origin()
            return Identities(None, None) if origin is None else Identities(origin.warm_start, origin.teacher)
        earlier = self.earlier()
        teacher = None if self._distilled is None else self._run(self._distilled.teacher, TEACHER)
        return Identities(self._identity(earlier), self._identity(teacher))

    @property
    def _distilled(self) -> DistillConfig | None:
        model = self._config.model
        return model.item.distill if isinstance(model, TwoTowerConfig) else None

    @staticmethod
    def _identity(run: TrainedRun | None) -> str | None:
        origin = None if run is None else RunDirectory(run.folder).origin()
        return None if origin is None else origin.identity

    def _run(self, path: str, place: str) -> TrainedRun:
        folder = self._base_dir / path
        if not folder.is_dir() or RunDirectory(folder).origin() is None:
            raise ConfigError(place, f"{folder} is no run directory", "that of an earlier run")
        if not (folder / "prepared").exists():
            found, cure = "points to a folder that is gone", f"bring it back: recsys prepare {folder}"
            raise ConfigError(str(folder / "prepared"), found, f"the prepared data of {place}", cure)
        return self._open(folder)
