"""What a run directory holds, read and not yet judged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from recsys.bundle.active import numbered
from recsys.bundle.layout import INDEX, MANIFEST
from recsys.bundle.manifest import Manifest
from recsys.bundle.verify import read_manifest
from recsys.config.load import load
from recsys.data.dataset import DatasetInfo
from recsys.embeddings.health_record import TABLES, HealthRecord
from recsys.errors import ConfigError, DataError, Problem
from recsys.evaluation.backtest_record import BACKTEST, BacktestRecord
from recsys.evaluation.record import RunRecord
from recsys.evaluation.showcase import SHOWCASE, Showcase
from recsys.experiment_config import ExperimentConfig
from recsys.retrieval.curve import Curve
from recsys.run_directory import Origin, RunDirectory
from recsys.search.frontier import SearchRecord
from recsys.tuning.record import TuningRecord

METRICS, EXPLANATION, CONFIG = "metrics.json", "explain/explanation.json", "config.yaml"
SEARCH, TUNING = "search.json", "tuning.json"
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Found:
    """The files of a run, of two runs together, or of a backtest; None for those that are not there."""

    folder: Path
    config: ExperimentConfig | None
    """Of a run; two stages and backtests have none of their own."""
    config_text: str
    origin: Origin | None
    seconds: dict[str, float]
    record: RunRecord | None
    backtest: BacktestRecord | None
    search: SearchRecord | None
    tuning: TuningRecord | None
    dataset: DatasetInfo | None
    health: HealthRecord | None
    showcase: Showcase | None
    explanation: dict[str, Any] | None
    bundle: Path | None
    """The latest."""
    manifest: Manifest | None
    curve: Curve | None
    """What its index was measured to do, if it was tuned."""

    @property
    def name(self) -> str:
        """As the records call it."""
        named = self.config or self.record or self.backtest
        return named.name if named is not None else self.folder.resolve().name

    @property
    def run_kind(self) -> str:
        """What was run."""
        if self.config is not None:
            return self.config.model.kind
        return "backtest" if self.backtest is not None else "two stages"


def find(folder: Path) -> Found:
    """Reads a run directory.

    Raises:
        ConfigError: it is none, or nothing has been trained in it yet.
        DataError, BundleError: a file in it cannot be read.
    """
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "no such folder"
        raise ConfigError(str(folder), found, "a run directory (runs/NAME)", "recsys run CONFIG makes one")
    directory = RunDirectory(folder)
    origin = directory.origin()
    record = _read(folder / METRICS, RunRecord)
    backtest = _read(folder / BACKTEST, BacktestRecord)
    if origin is None and record is None and backtest is None:
        expected, cure = "a run directory (runs/NAME)", "recsys run CONFIG makes one"
        raise ConfigError(str(folder), "holds no run", expected, cure)
    if origin is not None and record is None and not directory.is_trained:
        raise ConfigError(str(folder), "nothing is trained there yet", "a trained run", f"recsys run {folder}")
    config = load(folder / CONFIG, ExperimentConfig, env={}).config if origin is not None else None
    resolved = folder.resolve()
    bundles = folder / "bundle"
    versions = [n for n in numbered(bundles) if (bundles / str(n) / MANIFEST).is_file()]
    bundle = bundles / str(max(versions)) if versions else None
    explanation = folder / EXPLANATION
    return Found(
        folder=folder,
        config=config,
        config_text=(folder / CONFIG).read_text(encoding="utf-8") if origin is not None else "",
        origin=origin,
        seconds=directory.seconds(),
        record=record,
        backtest=backtest,
        search=_read(resolved.parent / f"{resolved.name}-search" / SEARCH, SearchRecord),
        tuning=_read(resolved.parent / f"{resolved.name}-tune" / TUNING, TuningRecord),
        dataset=_read(folder / "prepared" / "dataset.json", DatasetInfo),
        health=_read(folder / TABLES, HealthRecord),
        showcase=_read(folder / SHOWCASE, Showcase),
        explanation=_json(explanation) if explanation.exists() else None,
        bundle=bundle,
        manifest=None if bundle is None else read_manifest(bundle),
        curve=None if bundle is None else Curve.load(bundle / INDEX),
    )


def _read(path: Path, model: type[M]) -> M | None:
    """None where there is no such file.

    Raises:
        DataError: it does not hold what it should; one problem for each field.
    """
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise DataError(
            Problem(f"{path}: {'.'.join(map(str, each['loc'])) or 'file'}", each["msg"], cure="have it written again")
            for each in error.errors()
        ) from error


def _json(path: Path) -> dict[str, Any]:
    try:
        return TypeAdapter(dict[str, Any]).validate_json(path.read_bytes())
    except ValidationError as error:
        raise DataError(str(path), "is no JSON object", "what recsys explain wrote", "recsys explain RUN") from error
