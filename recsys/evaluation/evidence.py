"""What a comparison needs of a run: one value for each user and metric, stored beside the run record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.errors import DataError
from recsys.evaluation.config import UNIT
from recsys.files import draft_folder
from recsys.metrics import Interval, bootstrap_intervals

Values = NDArray[np.float64]
SliceKey = tuple[str, str]
"""By what was sliced (`item_frequency`, a feature, ...), and which slice it is (`tail`, a value, ...)."""
WHOLE: SliceKey = ("", "")
MODEL = "model"
"""What the model is called beside its baselines."""


def evidence_path(folder: Path, name: str) -> Path:
    """Where a run directory holds the evidence of the model or of a baseline."""
    return folder / "evaluation" / f"{name}.parquet"


@dataclass(frozen=True)
class Evidence:
    """Each metric as a mean over users, Σ w x / Σ w.

    Metrics that are no such mean stand as one: AUC by its influence (DeLong 1988), whose user means average to AUC.
    """

    users: NDArray[np.str_]
    """[U] ids as text, ascending."""
    values: dict[str, Values]
    """Metric -> [U]; NaN only where the weight is 0."""
    weights: dict[str, Values] = field(default_factory=dict)
    """Metric -> [U], for metrics whose users do not all weigh 1; users of weight 0 are not counted."""

    def __post_init__(self) -> None:
        wrong = [name for name, values in self.values.items() if values.shape != self.users.shape]
        wrong += [name for name, weights in self.weights.items() if weights.shape != self.users.shape]
        if wrong or not self.weights.keys() <= self.values.keys():
            raise ValueError(f"values and weights must be [U] for {len(self.users)} users: {', '.join(wrong)}")

    @classmethod
    def of(cls, users: NDArray[np.str_], values: dict[str, Values]) -> Evidence:
        """Of values that are NaN for users who do not count; all others weigh 1."""
        unknown = {name: np.isnan(array) for name, array in values.items()}
        return cls(users, values, {name: 1.0 - where for name, where in unknown.items() if where.any()})

    def weight(self, metric: str) -> Values:
        """[U] the users' weights in a metric."""
        return self.weights.get(metric, np.ones(len(self.users)))

    def take(self, rows: NDArray[np.integer], metrics: Sequence[str]) -> Evidence:
        """Some of the metrics, of some of the users."""
        return replace(
            self,
            users=self.users[rows],
            values={name: self.values[name][rows] for name in metrics},
            weights={name: self.weights[name][rows] for name in metrics if name in self.weights},
        )

    def intervals(self, level: float = 0.95, seed: int = 0) -> dict[str, Interval]:
        """Of every metric that counts two users or more."""
        if not self.values:
            return {}
        values = np.stack(list(self.values.values()), axis=1)
        weights = np.stack([self.weight(name) for name in self.values], axis=1)
        found = bootstrap_intervals(values, weights, level=level, seed=seed)
        return {name: _possible(name, each) for name, each in zip(self.values, found, strict=True) if each is not None}


def _possible(metric: str, interval: Interval) -> Interval:
    """Without values that the metric cannot have."""
    if metric.rpartition(".")[2].partition("@")[0] not in UNIT:  # that of a further head is called NAME.auc
        return interval
    return replace(interval, low=max(interval.low, 0.0), high=min(interval.high, 1.0))


@dataclass(frozen=True)
class Measured:
    """The evidence about one recommender or ranker: of all users, and of each slice."""

    data_digest: str
    """Of the prepared data; what was measured on other data cannot be compared."""
    part: str
    whole: Evidence
    slices: dict[SliceKey, Evidence] = field(default_factory=dict)
    slicings: dict[str, str] = field(default_factory=dict)
    """By what was sliced -> how, as `evaluation.config.slicing_definitions` says."""

    def write(self, path: Path) -> None:
        """Write to `path`, a Parquet file, whole or not at all."""
        texts = (self.data_digest, self.part, json.dumps(self.slicings))
        about = {f"recsys.{name}": text for name, text in zip(_ABOUT, texts, strict=True)}
        tables = [_table(key, each) for key, each in {WHOLE: self.whole, **self.slices}.items()]
        table = pa.concat_tables(tables, promote_options="default").replace_schema_metadata(about)
        with draft_folder(path) as draft:
            pq.write_table(table, draft / path.name, compression="zstd")
            (draft / path.name).replace(path)

    @classmethod
    def read(cls, path: Path) -> Measured:
        """What was written to `path`.

        Raises:
            DataError: there is nothing, or it is damaged.
        """
        try:
            table = pq.read_table(path)
            about = table.schema.metadata or {}
            parts = dict(_parts(table))
            digest, part, slicings = (about[f"recsys.{name}".encode()].decode() for name in _ABOUT)
            return cls(digest, part, parts.pop(WHOLE), parts, json.loads(slicings))
        except (OSError, KeyError, pa.ArrowException, ValueError) as error:
            text = getattr(error, "strerror", None) or type(error).__name__
            raise DataError(
                str(path), f"no readable evidence ({text})", "one value for each user", "evaluate the run again"
            ) from error


_ABOUT = ("data_digest", "part", "slicings")


def _table(key: SliceKey, evidence: Evidence) -> pa.Table:
    by, name = (pa.repeat(text, len(evidence.users)) for text in key)
    columns = {"by": by, "slice": name, "user": pa.array(evidence.users, pa.string())}
    columns |= {f"value:{name}": pa.array(values) for name, values in evidence.values.items()}
    return pa.table(columns | {f"weight:{name}": pa.array(weights) for name, weights in evidence.weights.items()})


def _parts(table: pa.Table) -> list[tuple[SliceKey, Evidence]]:
    keys = table.select(["by", "slice"]).to_pandas()
    first = np.flatnonzero((keys != keys.shift()).any(axis=1).to_numpy())
    bounds = zip(first, np.append(first[1:], len(keys)), strict=True)
    return [(tuple(keys.iloc[start]), _evidence(table.slice(start, stop - start))) for start, stop in bounds]


def _evidence(table: pa.Table) -> Evidence:
    """Columns that hold nothing belong to other slices; a weight that is left out is 1."""
    held = [name for name in table.column_names if table[name].null_count < len(table)]
    return Evidence(
        users=table["user"].to_numpy().astype(np.str_),
        values={name[6:]: table[name].to_numpy() for name in held if name.startswith("value:")},
        weights={name[7:]: table[name].to_numpy() for name in held if name.startswith("weight:")},
    )
