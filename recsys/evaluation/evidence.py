"""What a comparison needs of a run: one value for each user and metric, stored beside the run record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.errors import DataError
from recsys.files import draft_folder
from recsys.metrics import Interval, bootstrap_interval

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """Each metric as a mean over users, Σ w x / Σ w.

    Metrics that are no such mean stand as one: AUC by its influence (DeLong 1988), whose user means average to AUC.
    """

    data_digest: str
    """Of the prepared data; evidence of other data cannot be compared."""
    part: str
    users: NDArray[np.str_]
    """[U] ids as text, ascending."""
    values: dict[str, Values]
    """Metric -> [U]."""
    weights: dict[str, Values]
    """Metric -> [U], for metrics whose users do not all weigh 1; users of weight 0 are not counted."""

    def __post_init__(self) -> None:
        wrong = [name for name, values in self.values.items() if values.shape != self.users.shape]
        wrong += [name for name, weights in self.weights.items() if weights.shape != self.users.shape]
        if wrong or not self.weights.keys() <= self.values.keys():
            raise ValueError(f"values and weights must be [U] for {len(self.users)} users: {', '.join(wrong)}")

    def weight(self, metric: str) -> Values:
        """[U] the users' weights in a metric."""
        return self.weights.get(metric, np.ones(len(self.users)))

    def interval(self, metric: str, chosen: NDArray[np.bool_] | None = None, seed: int = 0) -> Interval | None:
        """The metric over the `chosen` [U] users, or all; None below two users that count."""
        weights = self.weight(metric)
        counted = weights > 0 if chosen is None else chosen & (weights > 0)
        if counted.sum() < 2:
            return None
        return bootstrap_interval(self.values[metric][counted], weights[counted], seed=seed)

    def write(self, path: Path) -> None:
        """Write to `path`, a Parquet file, whole or not at all."""
        columns = {"user": pa.array(self.users.tolist(), pa.string())}
        columns |= {f"value:{name}": pa.array(values) for name, values in self.values.items()}
        columns |= {f"weight:{name}": pa.array(weights) for name, weights in self.weights.items()}
        about = {b"recsys.data_digest": self.data_digest.encode(), b"recsys.part": self.part.encode()}
        with draft_folder(path) as draft:
            table = pa.table(columns).replace_schema_metadata(about)
            pq.write_table(table, draft / path.name, compression="zstd")
            (draft / path.name).replace(path)

    @classmethod
    def read(cls, path: Path) -> Evidence:
        """The evidence at `path`.

        Raises:
            DataError: there is none, or it is damaged.
        """
        try:
            table = pq.read_table(path)
            about = table.schema.metadata or {}
            return cls(
                data_digest=about[b"recsys.data_digest"].decode(),
                part=about[b"recsys.part"].decode(),
                users=np.array(table["user"].to_pylist(), np.str_),
                values={name[6:]: table[name].to_numpy() for name in table.column_names if name.startswith("value:")},
                weights={name[7:]: table[name].to_numpy() for name in table.column_names if name.startswith("weight:")},
            )
        except (OSError, KeyError, pa.ArrowException, ValueError) as error:
            text = getattr(error, "strerror", None) or type(error).__name__
            raise DataError(
                str(path), f"no readable evidence ({text})", "one value for each user", "evaluate the run again"
            ) from error
