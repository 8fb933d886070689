"""What was served, and what came of it, as Parquet files (`recsys.bundle.served_log` has the columns)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.bundle.manifest import RawField
from recsys.bundle.served_log import FEEDBACK, FEEDBACK_SCHEMA, RESPONSES, SHOWN, logged_features, response_schema
from serving.log.config import LogConfig
from serving.log.parquet_log import LogCounts, Outcome, ParquetLog

Counted = Callable[[str, Outcome, int], None]
"""Takes the log (`responses` or `feedback`), what became of rows, and how many."""
Floats = Sequence[float] | NDArray[np.floating]


@dataclass(frozen=True)
class Response:
    """One answer.

    Attributes:
        request_id: by which feedback names it: unlike any other's.
        time: when it was given.
        user: None where raw features alone asked.
        features: raw user and context features as the models read them, histories among them.
        bundle, version: that answered.
        candidates: C item ids in the order of the retrieval.
        retrieval_scores: [C] of them.
        ranker_scores: [C] of them; None where no ranker answered.
        shown: L item ids, by place.
        scores: [L] by which they were ordered; NaN for an item that a rule put there.
        propensities: [L] in (0, 1].
        degraded: why the answer is not what it would be.
        milliseconds: by stage.
    """

    request_id: str
    time: datetime
    user: str | None
    features: Mapping[str, Any]
    bundle: str
    version: int
    candidates: Sequence[str]
    retrieval_scores: Floats
    ranker_scores: Floats | None
    shown: Sequence[str]
    scores: Floats
    propensities: Floats
    degraded: Sequence[str]
    milliseconds: Mapping[str, float]


@dataclass(frozen=True)
class Feedback:
    """What came of a shown item.

    Attributes:
        request_id: of the answer that showed it.
        item: its id.
        label: what happened: `click`, `purchase`, ...
        time: when.
    """

    request_id: str
    item: str
    label: str
    time: datetime


class ResponseLog:
    """Logs answers and feedback beside the answering: a call puts a row into a queue, and threads write files."""

    def __init__(self, responses: ParquetLog[Response], feedback: ParquetLog[Feedback]) -> None:
        """`ResponseLog.open` makes one."""
        self._responses = responses
        self._feedback = feedback

    @classmethod
    def open(cls, config: LogConfig, request: Mapping[str, RawField], counted: Counted = lambda *_: None) -> Self:
        """A log for one process, of a bundle with this request schema; `counted` is told what becomes of rows.

        Raises:
            OSError: the folder cannot be made.
        """
        folder, schema = Path(config.folder), response_schema(request)
        limits = (config.rows, config.seconds, config.waiting, config.patience)
        return cls(
            ParquetLog(
                folder / RESPONSES, lambda rows: _responses(rows, request, schema), *limits, partial(counted, RESPONSES)
            ),
            ParquetLog(folder / FEEDBACK, _feedback, *limits, partial(counted, FEEDBACK)),
        )

    def response(self, response: Response) -> bool:
        """Log an answer. False where it was dropped, which is counted."""
        return self._responses.put(response)

    def feedback(self, feedback: Feedback) -> bool:
        """Log feedback. False where it was dropped, which is counted."""
        return self._feedback.put(feedback)

    def counts(self) -> dict[str, LogCounts]:
        """Of `responses` and `feedback`."""
        return {RESPONSES: self._responses.counts(), FEEDBACK: self._feedback.counts()}

    def close(self) -> None:
        """Write all that waits, and end."""
        self._responses.close()
        self._feedback.close()


def _responses(rows: Sequence[Response], request: Mapping[str, RawField], schema: pa.Schema) -> pa.Table:
    own = [name for name in schema.names if name in Response.__dataclass_fields__ and name != "shown"]
    values = [
        {name: getattr(row, name) for name in own}
        | {"time": _utc(row.time), "milliseconds": [*row.milliseconds.items()]}
        | logged_features(request, row.features)
        for row in rows
    ]
    columns = {name: pa.array([row[name] for row in values], schema.field(name).type) for name in values[0]}
    columns["shown"] = _shown(rows)
    return pa.table([columns[name] for name in schema.names], schema)


def _shown(rows: Sequence[Response]) -> pa.ListArray:
    """Lists of `SHOWN`, flat: rows are many, and items of each too."""
    lengths = np.array([len(row.shown) for row in rows], np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    scores = np.concatenate([np.asarray(row.scores, np.float64) for row in rows])
    flat = {
        "item": pa.array([item for row in rows for item in row.shown], pa.string()),
        "place": pa.array(np.arange(offsets[-1], dtype=np.int32) - np.repeat(offsets[:-1], lengths) + 1),
        "score": pa.array(scores, from_pandas=True),  # NaN is null
        "propensity": pa.array(np.concatenate([np.asarray(row.propensities, np.float64) for row in rows])),
    }
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays([*flat.values()], fields=list(SHOWN)))


def _feedback(rows: Sequence[Feedback]) -> pa.Table:
    return pa.Table.from_pylist([asdict(row) | {"time": _utc(row.time)} for row in rows], FEEDBACK_SCHEMA)


def _utc(time: datetime) -> datetime:
    """As a column holds it: without an offset, which is UTC. A time that names none is UTC already."""
    return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo is not None else time
