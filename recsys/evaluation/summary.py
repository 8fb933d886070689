"""What a run record says of an evaluation: ranges, slices, and what holds against baselines and champion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from recsys.errors import DataError
from recsys.evaluation.comparison import Difference, hold_against
from recsys.evaluation.config import EvaluationConfig
from recsys.evaluation.evidence import MODEL, Evidence, Measured, evidence_path
from recsys.evaluation.model import Evaluated
from recsys.evaluation.off_policy import OffPolicyRecord
from recsys.evaluation.record import CalibrationRecord, Metrics, Range, Ranges, RunRecord, SliceRecord
from recsys.evaluation.showcase import SHOWCASE
from recsys.files import write_text

CHAMPION = "champion"
POINTWISE = ("auc", "gauc", "logloss")
"""What a ranker is held to; a two_tower to the monitored metric and the recalls."""


@dataclass(frozen=True)
class Champion:
    """An earlier run that a new one is held to."""

    metrics: Metrics
    measured: Measured

    @classmethod
    def read(cls, folder: Path, data_digest: str, monitor: str) -> Champion:
        """From the run directory `folder`.

        Args:
            folder: of the champion's run.
            data_digest: of the prepared data that a new run is measured on.
            monitor: a metric that both must have.

        Raises:
            DataError: it has not been evaluated, or on other data, or is another kind of model.
        """
        metrics = RunRecord.read(folder / "metrics.json").metrics.get(MODEL, {})
        measured = Measured.read(evidence_path(folder, MODEL))
        place, cure = f"evaluation.champion: {folder}", "name another run, or leave it out"
        if monitor not in metrics:
            raise DataError(place, f"has no {monitor}", "an evaluated run of the same kind of model", cure)
        if measured.data_digest != data_digest:
            found = f"was measured on different data ({measured.data_digest[:12]}, not {data_digest[:12]})"
            raise DataError(place, found, "the same data and schema", cure)
        return cls(metrics, measured)


class Findings(TypedDict):
    """The fields of a `RunRecord` that an evaluation gives."""

    metrics: dict[str, Metrics]
    ranges: dict[str, Ranges]
    slices: tuple[SliceRecord, ...]
    differences: tuple[Difference, ...]
    calibration: CalibrationRecord | None
    off_policy: dict[str, OffPolicyRecord]
    warnings: tuple[str, ...]


def summarize(
    evaluated: Evaluated, config: EvaluationConfig, champion: Champion | None, leaks: tuple[str, ...]
) -> Findings:
    """What an evaluation says, beside the champion if there is one, and what makes it doubtful.

    Raises:
        DataError: the champion was measured on other data.
    """
    measured, metrics = dict(evaluated.measured), dict(evaluated.metrics)
    if champion is not None:
        measured[CHAMPION], metrics[CHAMPION] = champion.measured, champion.metrics
    model, curve = measured[MODEL].whole, evaluated.calibration
    return Findings(
        metrics=metrics,
        ranges={name: ranges_of(each.whole) for name, each in measured.items()},
        slices=tuple(_slices(evaluated.measured, config.small_slice)),
        differences=tuple(hold_against(MODEL, measured, headline(model, config))),
        calibration=None if curve is None else CalibrationRecord.of(curve),
        off_policy=evaluated.off_policy,
        warnings=(*leaks, *evaluated.warnings, *_doubts(evaluated.off_policy)),
    )


def write_evaluation(folder: Path, record: RunRecord, evaluated: Evaluated) -> None:
    """The record, the evidence and the examples into a run directory, in place of an earlier evaluation's."""
    measured, showcase = evaluated.measured, evaluated.showcase
    (folder / SHOWCASE).unlink(missing_ok=True)
    for stale in (folder / "evaluation").glob("*.parquet"):
        if stale.stem not in measured:
            stale.unlink()
    for name, each in measured.items():
        each.write(evidence_path(folder, name))
    if showcase is not None:
        write_text(folder / SHOWCASE, showcase.model_dump_json(indent=1) + "\n")
    record.write(folder / "metrics.json")


def _doubts(policies: Mapping[str, OffPolicyRecord]) -> Iterator[str]:
    for name, each in policies.items():
        if each.warning is not None:
            yield f"off-policy estimate of {name}: {each.warning}"


def headline(model: Evidence, config: EvaluationConfig) -> list[str]:
    """The metrics that differences are told of, the first one first."""
    wanted = dict.fromkeys([config.monitor, *(f"recall@{k}" for k in config.ks), *POINTWISE])
    return [name for name in wanted if name in model.values]


def ranges_of(evidence: Evidence) -> Ranges:
    """The metrics of a record, from the values of each user."""
    return {
        name: Range(value=each.estimate, low=each.low, high=each.high, users=each.users)
        for name, each in evidence.intervals().items()
    }


def _slices(measured: Mapping[str, Measured], small: int) -> Iterator[SliceRecord]:
    for key, evidence in measured[MODEL].slices.items():
        users = len(evidence.users)
        metrics = {name: ranges_of(each.slices[key]) for name, each in measured.items()}
        yield SliceRecord(by=key[0], name=key[1], users=users, small=users < small, metrics=metrics)
