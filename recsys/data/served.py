"""Events from what a server has shown, and what came of it: what was served is what is learned from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import duckdb
import ibis
import ibis.expr.types as ir
import pyarrow.parquet as pq

from recsys.bundle.manifest import signature_name
from recsys.bundle.served_log import FEEDBACK, FEEDBACK_SCHEMA, RESPONSES
from recsys.bundle.users import RAW
from recsys.config.digest import digest
from recsys.data.cache import cache_dir
from recsys.data.config import ServedSource
from recsys.data.source import SourceFiles
from recsys.errors import DataError
from recsys.files import draft_folder, new_folder

VERSION = 1
"""Raised whenever the same log gives other events."""
EVENTS = "events.parquet"
_SECOND = 1_000_000  # microseconds


def served(source: ServedSource, folder: Path) -> tuple[Path, ...]:
    """The event log of the served items in the log `folder`, made once and kept in the cache.

    A row for each shown item of each answer: user, item, label and the further labels (1 or 0), time, propensity, place
    (from 1), score (null for an item that a rule put there), request_id, bundle, version, degraded, and the features of
    users and of the context as they were served.

    Raises:
        DataError: there are no answers, or a feature has the name of one of those columns; or the files cannot be read.
    """
    responses, feedback = (_files(folder / name) for name in (RESPONSES, FEEDBACK))
    if not responses:
        cure = "correct the path, or serve with a log"
        raise DataError("data.source.folder", f"no answers in {folder / RESPONSES}", "the log of a server", cure)
    plain = digest(source.model_copy(update={"folder": "", "items": None, "users": None}))
    files = SourceFiles(responses).digest() + SourceFiles(feedback).digest()
    target = cache_dir() / "served" / f"v{VERSION}-{hashlib.sha256((plain + files).encode()).hexdigest()[:16]}"
    if not target.is_dir():
        with new_folder(target) as draft, draft_folder(draft / "work") as work:
            _write(source, responses, feedback, work)
            (work / EVENTS).replace(draft / EVENTS)
    return (target / EVENTS,)


def _files(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(folder.glob("*.parquet")))


def _write(source: ServedSource, responses: Sequence[Path], feedback: Sequence[Path], folder: Path) -> None:
    place = "data.source.folder"
    try:
        connection = ibis.duckdb.connect(temp_directory=str(folder / "spill"))
        try:
            nothing = folder / "nothing.parquet"
            pq.write_table(FEEDBACK_SCHEMA.empty_table(), nothing)
            events = _events(source, _read(connection, responses), _read(connection, [nothing, *feedback]))
            events.to_parquet(folder / EVENTS)
        finally:
            connection.disconnect()
    except (ibis.common.exceptions.IbisError, duckdb.Error) as error:
        raise DataError(place, f"cannot be read ({error})", "the log of a server", "check its files") from error
    if pq.read_metadata(folder / EVENTS).num_rows == 0:
        cure = "wait for more answers, or set data.source.settle lower"
        raise DataError(place, "no answer that counts has shown anything", "at least one", cure)


def _read(connection: ibis.BaseBackend, files: Sequence[Path]) -> ir.Table:
    """Of one or several bundles, whose features may differ: null where one has none."""
    return connection.read_parquet([str(file) for file in files], union_by_name=True)


def _events(source: ServedSource, answers: ir.Table, feedback: ir.Table) -> ir.Table:
    if not source.anonymous:
        answers = answers.filter(answers.user.notnull())
    if source.settle:
        newest = answers.time.max().as_scalar()
        answers = answers.filter(answers.time <= newest - ibis.interval(microseconds=round(source.settle * _SECOND)))
    shown = answers.unnest("shown")
    columns: dict[str, ir.Value] = {
        "user": shown.user,
        "item": shown.shown["item"],
        "time": shown.time,
        "propensity": shown.shown["propensity"],
        "place": shown.shown["place"],
        "score": shown.shown["score"],
        "request_id": shown.request_id,
        "bundle": shown.bundle,
        "version": shown.version,
        "degraded": shown.degraded.length() > 0,
    }
    labels = {"label": source.label} | {name: name for name in source.further_labels}
    raw = [name for name in shown.columns if name.startswith(RAW)]
    features = {signature_name(name.removeprefix(RAW)): shown[name] for name in raw}
    taken = sorted(features.keys() & (columns.keys() | labels.keys()))
    if taken:
        cure = "rename the feature in the schema of the bundle"
        raise DataError("data.source.folder", f"feature {taken[0]!r} has the name of another column", cure=cure)
    events = shown.select(**columns, **features)
    for column, label in labels.items():
        events = _labelled(events, feedback, column, label)
    return events.order_by(["time", "request_id", "place"])


def _labelled(events: ir.Table, feedback: ir.Table, column: str, label: str) -> ir.Table:
    """With 1 where the feedback has this label of the shown item, else 0."""
    hits = feedback.filter(feedback.label == label).select("request_id", "item").distinct()
    hits = hits.rename(hit_request="request_id", hit_item="item")
    joined = events.left_join(hits, [events.request_id == hits.hit_request, events["item"] == hits.hit_item])
    found = ibis.ifelse(joined.hit_request.notnull(), 1, 0).cast("int8")
    return joined.mutate(**{column: found}).drop("hit_request", "hit_item")
