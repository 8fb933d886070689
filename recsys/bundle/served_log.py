"""The log of what was served and what came of it: the columns that a server writes and `prepare` reads.

    LOG/
      responses/*.parquet   a row for each answer: `response_schema`
      feedback/*.parquet    a row for each event on a shown item: `FEEDBACK_SCHEMA`

Times are UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from recsys.bundle.manifest import (
    CategoricalField,
    MultiValuedField,
    NumericField,
    RawField,
    SequenceField,
    VectorField,
    age_inputs,
)
from recsys.bundle.new_items import stored
from recsys.bundle.requests import text_of
from recsys.bundle.users import RAW

RESPONSES, FEEDBACK = "responses", "feedback"
_TIME = pa.timestamp("us")
SHOWN = pa.struct({"item": pa.string(), "place": pa.int32(), "score": pa.float64(), "propensity": pa.float64()})
"""Places are from 1; the score is null for an item that a rule put there, unseen by any model."""
FEEDBACK_SCHEMA = pa.schema({"request_id": pa.string(), "item": pa.string(), "label": pa.string(), "time": _TIME})
_ANSWER = {
    "request_id": pa.string(),
    "time": _TIME,
    "user": pa.string(),
    "bundle": pa.string(),
    "version": pa.int32(),
    "candidates": pa.list_(pa.string()),
    "retrieval_scores": pa.list_(pa.float32()),
    "ranker_scores": pa.list_(pa.float32()),
    "shown": pa.list_(SHOWN),
    "degraded": pa.list_(pa.string()),
    "milliseconds": pa.map_(pa.string(), pa.float64()),
}


def response_schema(request: Mapping[str, RawField]) -> pa.Schema:
    """Columns of the responses of a bundle with this request schema: `raw.FEATURE` for each of its features, as the
    models read it, and `raw.NAME.age` for histories with ages.
    """
    features = {f"{RAW}{name}": _type(field) for name, field in request.items()}
    ages = dict.fromkeys((f"{RAW}{age}" for age in age_inputs(request)), pa.list_(pa.float64()))
    return pa.schema({**_ANSWER, **features, **ages})


def logged_features(request: Mapping[str, RawField], features: Mapping[str, Any]) -> dict[str, Any]:
    """Raw features that fit the request schema, as columns of the log."""
    columns = {f"{RAW}{name}": _logged(field, features.get(name)) for name, field in request.items()}
    return columns | {f"{RAW}{age}": features.get(age) for age in age_inputs(request)}


def _logged(field: RawField, value: Any) -> Any:
    if isinstance(field, SequenceField) and value is not None and value != "":
        return [text_of(each, "") for each in value]
    return stored(field, value)


def _type(field: RawField) -> pa.DataType:
    match field:
        case CategoricalField():
            return pa.string()
        case NumericField():
            return pa.float64()
        case MultiValuedField() | SequenceField():
            return pa.list_(pa.string())
        case VectorField():
            return pa.list_(pa.float64())
