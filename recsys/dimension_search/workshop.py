"""What the parts of a search share: the experiment, its searched tables, and experiments with other ones."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from recsys.config.base import Config
from recsys.embeddings.plan import Origin
from recsys.embeddings.tables import Vocabularies
from recsys.experiment import Experiment
from recsys.experiment_config import ExperimentConfig
from recsys.files import write_text
from recsys.search.fields import Field, fields_of

SECONDS = "seconds.json"


class _Seconds(Config):
    """What a part of the search took, over all restarts."""

    seconds: float


class Workshop:
    """The experiment that is searched, and where the search's own experiments stand.

    Args:
        experiment: whose tables are to be smaller.
        folder: of the search.
    """

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        self.experiment, self.folder = experiment, folder
        self.config = experiment.config

    @cached_property
    def fields(self) -> list[Field]:
        """The vocabularies whose rows are searched.

        Raises:
            ConfigError: there are none.
        """
        prepared = self.experiment.prepared
        vocabularies = Vocabularies(prepared.frequencies, prepared.vocabulary)
        return fields_of(self.config.embeddings, prepared.info.inputs, vocabularies)

    @property
    def tables(self) -> dict[str, dict[str, Any]]:
        """What the YAML says of the searched tables."""
        entries = self.config.embeddings.tables
        return {field.table: entries[field.table].model_dump(mode="json") for field in self.fields}

    def origin(self, method: str) -> Origin:
        """Of a plan."""
        return Origin(
            method=method,
            run=self.config.name,
            config_digest=self.experiment.digest,
            data_digest=self.experiment.prepared.info.digest,
            seed=self.config.seed,
        )

    def with_tables(
        self,
        name: str,
        tables: Mapping[str, Mapping[str, Any]],
        *,
        features: Mapping[str, Mapping[str, Any]] | None = None,
        plan: Path | None = None,
        schedule: bool = True,
    ) -> ExperimentConfig:
        """The experiment's config under another name, with other tables; without `schedule` learning rates stay what
        they are, as in trainings that are themselves the search, of another length and with decay of their own.
        """
        raw = self.config.model_dump(mode="json", by_alias=True)
        raw["name"] = name
        raw["embeddings"]["tables"] |= tables
        raw["embeddings"]["features"] |= features or {}
        raw["embeddings"]["plan"] = None if plan is None else str(plan.resolve())
        if not schedule:
            raw["training"]["schedule"] = None
        return ExperimentConfig.model_validate(raw)

    def open(self, config: ExperimentConfig) -> Experiment:
        """Anew each time: an experiment holds its model in memory."""
        return Experiment(config, self.experiment.base_dir, self.folder / "runs")

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Adds up the seconds of a part of the search, killed ones too if they end by an error."""
        path, start = self.folder / part / SECONDS, time.monotonic()
        try:
            yield
        finally:
            spent = self.seconds(part) + time.monotonic() - start
            write_text(path, _Seconds(seconds=spent).model_dump_json() + "\n")

    def seconds(self, part: str) -> float:
        """So far."""
        path = self.folder / part / SECONDS
        return _Seconds.model_validate_json(path.read_bytes()).seconds if path.exists() else 0.0
