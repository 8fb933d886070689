"""Towers that were made elsewhere, such as with TensorFlow Recommenders, as a bundle: with the tuned index, the
evaluation on the full catalogue and the server that a model trained here gets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.bundle import BundleWriter, Description, RequestEncoder
from recsys.bundle.filters import TRAIN_COUNT
from recsys.bundle.golden import Stages, write_golden
from recsys.bundle.layout import ITEM_TOWER, ITEMS, QUERIES, QUERY_TOWER, USERS
from recsys.bundle.manifest import CategoricalField, MultiValuedField, NumericField, RawField
from recsys.bundle.requests import text_of
from recsys.bundle.retrieval_parts import write_retrieval
from recsys.bundle.tower import ServedGraph
from recsys.bundle.users import Users
from recsys.errors import DataError, ExportError
from recsys.evaluation.config import EvaluationConfig
from recsys.evaluation.recommenders import Nearest
from recsys.evaluation.retrieval import Task, evaluate_retrieval
from recsys.evaluation.tuned_index import TUNED_BY, Queries, tuned_index
from recsys.export.config import RetrievalConfig
from recsys.ragged import Ragged
from recsys.retrieval.index import Vectors
from recsys.schema.config import Role

Tower = Callable[[Any], Any]
AT_ONCE = 4_096
"""Rows embedded at once."""


@dataclass(frozen=True)
class Log:
    """What happened, for towers that were trained elsewhere.

    Attributes:
        train: a row for each event that the towers have learned from; those items are not recommended again.
        held_out: likewise, later: what is to be found, and by whose queries the index is tuned.
        user: column of both, and of `users`.
        item: column of both, and of the catalogue.
        time: column of `train` that says what came first; by default its rows stand in order.
    """

    train: pd.DataFrame
    held_out: pd.DataFrame
    user: str
    item: str
    time: str | None = None


@dataclass(frozen=True)
class ExportedTowers:
    """What came of it."""

    bundle: Path
    metrics: dict[str, float]
    """On the full catalogue, by METRIC@K."""


def export_towers(
    query_tower: Tower,
    item_tower: Tower,
    catalogue: pd.DataFrame,
    log: Log,
    bundles: Path | str,
    *,
    name: str = "towers",
    users: pd.DataFrame | None = None,
    query_features: Sequence[str] | None = None,
    item_features: Sequence[str] | None = None,
    title: str | None = None,
    retrieval: RetrievalConfig | None = None,
    evaluation: EvaluationConfig | None = None,
) -> ExportedTowers:
    """Evaluates two towers and writes the next bundle under `bundles`.

    A tower is any Keras model or other callable that TensorFlow can save. It takes one feature as a tensor, or several
    as a dictionary of tensors by name: text [B], numbers float32 [B], lists of text [B, L] padded with "", and returns
    vectors [B, d]. What a column holds says which.

    Args:
        query_tower: of `query_features`.
        item_tower: of `item_features`.
        catalogue: a row for each item: its id, its features, and whatever else requests are to be filtered by.
        log: training and held-out events.
        bundles: the folder of the bundles.
        name: of the bundle.
        users: a row for each user with features; by default the users of the log, with nothing but their ids.
        query_features: columns of `users`; by default the user's id alone.
        item_features: columns of `catalogue`; by default the item's id alone.
        title: column of `catalogue` that people read.
        retrieval: the index and its promise.
        evaluation: cut-offs.

    Raises:
        DataError: a table lacks a column, an id comes twice or is missing, or the log names an unknown item or user.
        ExportError: a tower cannot be saved or does not give such vectors, or the index does not keep its promise.
    """
    retrieval, evaluation = retrieval or RetrievalConfig(), evaluation or EvaluationConfig()
    if users is None:
        places = (("log.train", log.train), ("log.held_out", log.held_out))
        everybody = pd.concat([_column(frame, place, log.user) for place, frame in places])
        users = pd.DataFrame({log.user: everybody.drop_duplicates()})
    people = _Entities.of(users, "users", log.user, query_features or [log.user], "user")
    items = _Entities.of(catalogue, "catalogue", log.item, item_features or [log.item], "item", title)
    seen, relevant = (
        _pairs(frame, place, log, people, items)
        for frame, place in ((log.train, "log.train"), (log.held_out, "log.held_out"))
    )
    with BundleWriter(bundles) as writer:
        for folder, tower, of in ((QUERY_TOWER, query_tower, people), (ITEM_TOWER, item_tower, items)):
            _save(tower, of, folder, writer.graph(folder))
        vectors = _embedded(writer.graph(ITEM_TOWER), items, items.rows)
        asking = np.flatnonzero(relevant.difference(seen).lengths)
        if not len(asking):
            raise DataError("log.held_out", "no user has an item that is not in log.train", cure="hold out more events")
        queries = _embedded(writer.graph(QUERY_TOWER), people, [people.rows[n] for n in asking])
        if vectors.shape[1] != queries.shape[1]:
            found = f"queries of width {queries.shape[1]}, items of width {vectors.shape[1]}"
            raise ExportError("towers", found, "one width", "end both in as many units")
        tuned_by = Queries(asking[:TUNED_BY].astype(np.int32), queries[:TUNED_BY])
        index = tuned_index(vectors, retrieval.index, tuned_by, name)
        count = np.bincount(seen.values, minlength=len(items.rows))
        task = Task(relevant.take(asking), seen.take(asking), count)
        metrics = evaluate_retrieval(Nearest(index, queries), task, evaluation).summary()
        catalogue_table = items.table.append_column(TRAIN_COUNT, pa.array(count))
        users_table = _with_histories(people, seen, relevant)
        pq.write_table(catalogue_table, writer.path(ITEMS))
        pq.write_table(users_table, writer.path(USERS))
        asked = ServedGraph(writer.graph(QUERY_TOWER), RequestEncoder(people.fields).inputs, "embedding")
        write_golden(writer, Stages(Users(users_table, USERS), catalogue_table, people.fields, None, asked, index))
        pq.write_table(_query_table(people, tuned_by), writer.path(QUERIES))
        facts = write_retrieval(writer, index, items.table["item"], retrieval.retriever_k)
        writer.describe(
            Description(
                name=name,
                request=people.fields,
                item=items.fields,
                described=items.described,
                embedding_dim=vectors.shape[1],
                catalogue_size=len(items.rows),
                metrics=metrics,
                index=facts.index,
                retriever_k=facts.retriever_k,
                catalogue=facts.catalogue,
                item_columns={"item": log.item} | ({} if title is None else {"title": title}),
                config_digest=_digest(retrieval.model_dump_json(), evaluation.model_dump_json()),
                data_digest=_digest(*map(str, (seen.values.tobytes(), relevant.values.tobytes()))),
            )
        )
    return ExportedTowers(writer.folder, metrics)


@dataclass(frozen=True)
class _Entities:
    """Users or items, by id in code point order."""

    table: pa.Table
    """As a bundle holds them."""
    fields: dict[str, RawField]
    """What the tower reads."""
    described: dict[str, RawField]
    """What it does not."""
    rows: list[dict[str, Any]]
    """Raw values of `fields`."""
    row_of: dict[str, int]

    @classmethod
    def of(
        cls, frame: pd.DataFrame, place: str, key: str, features: Sequence[str], role: Role, title: str | None = None
    ) -> _Entities:
        ids = [text_of(_plain(value), f"{place}.{key}") for value in _column(frame, place, key)]
        for name in (*features, *([] if title is None else [title])):
            _column(frame, place, name)
        if "" in ids or len(set(ids)) < len(ids):
            found = "a row without an id" if "" in ids else "an id twice"
            raise DataError(f"{place}: column {key!r}", found, "each id once", "drop the other rows")
        order = np.argsort(np.array(ids, object), kind="stable")
        sorted_ = frame.iloc[order]
        others = [name for name in frame.columns if role == "item" and name not in (*features, title)]
        columns = {name: _raw(sorted_[name], f"{place}: column {name!r}") for name in (*features, *others)}
        fields = {name: _field(column, role) for name, column in columns.items()}
        ordered = [ids[n] for n in order]
        titles = {} if title is None else {"title": pa.array([_plain(v) for v in sorted_[title]], pa.string())}
        table = pa.table({role: ordered, **titles, **{f"raw.{name}": column for name, column in columns.items()}})
        rows = table.select([f"raw.{name}" for name in features]).rename_columns(list(features)).to_pylist()
        read = {name: fields[name] for name in features}
        return cls(table, read, {n: fields[n] for n in others}, rows, {each: n for n, each in enumerate(ordered)})


def _column(frame: pd.DataFrame, place: str, name: str) -> pd.Series:
    if name not in frame.columns:
        there = ", ".join(map(str, frame.columns))
        raise DataError(place, f"no column {name!r}", f"one of {there}", "name another, or add it")
    return frame[name]


def _plain(value: Any) -> Any:
    """A cell as Python has it; None for what is missing."""
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(each) for each in value]
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return None
    return value.item() if isinstance(value, np.generic) else value


def _raw(column: pd.Series, place: str) -> pa.Array:
    """As `items.parquet` holds raw values: float32, text, or lists of text."""
    if pd.api.types.is_float_dtype(column):
        return pa.array(column.to_numpy(np.float32, na_value=np.nan), from_pandas=True)
    values = [_plain(value) for value in column]
    if any(isinstance(value, list) for value in values):
        lists = [None if value is None else [text_of(each, place) for each in value] for value in values]
        return pa.array(lists, pa.list_(pa.string()))
    return pa.array([None if value is None else text_of(value, place) for value in values], pa.string())


def _field(column: pa.Array, role: Role) -> RawField:
    if pa.types.is_floating(column.type):
        return NumericField(role=role)
    if pa.types.is_list(column.type):
        return MultiValuedField(role=role, max_length=max(1, max((len(v) for v in column.to_pylist() if v), default=1)))
    return CategoricalField(role=role)


def _pairs(frame: pd.DataFrame, place: str, log: Log, people: _Entities, items: _Entities) -> Ragged:
    """For each user the items of the events, in the order of the log."""
    if log.time is not None and place == "log.train":
        frame = frame.iloc[np.argsort(_column(frame, place, log.time), kind="stable")]
    rows = _known(_column(frame, place, log.user), place, people.row_of, "users")
    values = _known(_column(frame, place, log.item), place, items.row_of, "items")
    return Ragged.from_pairs(rows, values, len(people.rows))


def _known(column: pd.Series, place: str, row_of: Mapping[str, int], what: str) -> NDArray[np.int64]:
    codes, values = pd.factorize(column, use_na_sentinel=False)
    texts = [text_of(_plain(value), f"{place}.{column.name}") for value in values]
    absent = [text for text in texts if text not in row_of]
    if absent:
        found = f"{len(absent)} values that are no {what}, such as {absent[0]!r}"
        raise DataError(f"{place}: column {column.name!r}", found, f"those of the table of {what}", "drop these events")
    return np.array([row_of[text] for text in texts], np.int64)[codes]


class _TowerModule(tf.Module):
    """A tower behind a bundle's signature."""

    def __init__(self, tower: Tower, fields: Mapping[str, RawField]) -> None:
        super().__init__()
        self.tower = tower
        self._names = list(fields)
        specs = {
            name: tf.TensorSpec(
                [None, None] if isinstance(field, MultiValuedField) else [None],
                tf.float32 if isinstance(field, NumericField) else tf.string,
                name,
            )
            for name, field in fields.items()
        }
        self.serve = tf.function(self._serve, autograph=False).get_concrete_function(specs)

    def _serve(self, raw: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        given = raw if len(self._names) > 1 else raw[self._names[0]]
        return {"embedding": tf.cast(self.tower(given), tf.float32)}


def _save(tower: Tower, of: _Entities, name: str, path: Path) -> None:
    try:
        module = _TowerModule(tower, of.fields)
        shape = module.serve.structured_outputs["embedding"].shape
        if shape.rank != 2 or shape[1] is None:
            raise ValueError(f"it returns {shape}")
        tf.saved_model.save(module, str(path), signatures={"serving_default": module.serve})
    except (TypeError, ValueError, AssertionError, tf.errors.OpError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ExportError(
            name,
            f"cannot be saved as a tower of {', '.join(of.fields)} ({lines[0]})",
            "a model that takes them and returns vectors [B, d]",
            "take one feature as a tensor, several as a dictionary",
        ) from error


def _embedded(folder: Path, of: _Entities, rows: list[dict[str, Any]]) -> Vectors:
    encoder = RequestEncoder(of.fields)
    graph = ServedGraph(folder, encoder.inputs, "embedding")
    return np.concatenate([graph(encoder.encode(rows[at : at + AT_ONCE])) for at in range(0, len(rows), AT_ONCE)])


def _with_histories(people: _Entities, before: Ragged, after: Ragged) -> pa.Table:
    """`users.parquet`: what was held out has been met by whoever is served."""
    rows = np.concatenate([before.row_of_value, after.row_of_value])
    met = Ragged.from_pairs(rows, np.concatenate([before.values, after.values]), len(before))
    history = pa.LargeListArray.from_arrays(pa.array(met.offsets), pa.array(met.values.astype(np.int32)))
    return people.table.append_column("history", history).append_column("seen", history)


def _query_table(people: _Entities, queries: Queries) -> pa.Table:
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(queries.vectors.ravel()), queries.vectors.shape[1])
    return pa.table({"user": people.table["user"].take(pa.array(queries.users)), "vector": vectors})


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
