"""From raw files to the prepared folder that `docs/architecture.md` draws."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from recsys.data.cache import cache_dir
from recsys.data.config import DataConfig, TemporalSplit
from recsys.data.dataset import (
    FORMAT,
    PARTS,
    STAGES,
    Counts,
    DatasetInfo,
    FeatureInfo,
    LabelInfo,
    SequenceInfo,
    Suspicion,
    label_column,
)
from recsys.data.prepare.checks import check_rows
from recsys.data.prepare.engine import Runner, start
from recsys.data.prepare.entities import Encoded, Entities
from recsys.data.prepare.events import keep, ranked
from recsys.data.prepare.examples import Examples
from recsys.data.prepare.histories import in_order, with_history
from recsys.data.prepare.layout import Layout, Table, lay_out
from recsys.data.prepare.negatives import NegativeSampler, Outside
from recsys.data.prepare.raw_log import RawLog, ids_of
from recsys.data.prepare.splits import TEST, TRAIN, VALID, Moments, staged
from recsys.data.prepare.write import BASE, write_rows, write_table
from recsys.data.source import Role, SourceFiles, as_parquet, place
from recsys.errors import DataError, Problem
from recsys.files import draft_folder
from recsys.schema.config import SchemaConfig, Sequence


def prepare(name: str, data: DataConfig, schema: SchemaConfig, files: SourceFiles, out: Path | None = None) -> Path:
    """Prepare a data set, or find it prepared already.

    Args:
        name: what the data set is called in reports.
        data: rules, split, seed and engine; its source has been resolved into `files`.
        schema: what the columns mean.
        files: the raw files.
        out: the folder to write; by default `prepared/DIGEST` in the cache. It appears complete, or not at all.

    Returns:
        The prepared folder.

    Raises:
        SchemaError: the schema and the columns do not fit each other.
        DataError: the files or their rows cannot be used, or `out` holds something else.
    """
    digest = prepared_digest(data, schema, files)
    target = cache_dir() / "prepared" / digest[:16] if out is None else out
    if _digest_of(target) == digest:
        return target
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(
            str(out), "holds something else than this data set", "a new or empty folder", "remove it, or name another"
        )
    try:
        with draft_folder(target) as folder:
            with start(data.engine, folder) as runner:
                _Preparation(name, digest, data, schema, files, runner, folder).write(folder / "ready")
            _move(folder / "ready", target, digest)
    except OSError as error:
        raise DataError(
            str(target), f"cannot be written ({error})", cure="free some space, or set RECSYS_CACHE to another folder"
        ) from error
    return target


def prepared_digest(data: DataConfig, schema: SchemaConfig, files: SourceFiles) -> str:
    """SHA-256 of everything that decides what is written: configs, the files' contents, the format. Not the engine."""
    decisive = {
        "data": data.model_dump(mode="json", exclude={"source", "engine"}),
        "schema": schema.model_dump(mode="json"),
        "files": files.digest(),
        "format": FORMAT,
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class _Preparation:
    """One run of the pipeline."""

    def __init__(
        self,
        name: str,
        digest: str,
        data: DataConfig,
        schema: SchemaConfig,
        files: SourceFiles,
        runner: Runner,
        folder: Path,
    ) -> None:
        self._name = name
        self._digest = digest
        self._data = data
        self._schema = schema
        self._files = files
        self._runner = runner
        self._tables = self._read(folder)
        self._layout: Layout = lay_out(self._tables, data, schema)

    def _read(self, folder: Path) -> Mapping[Role, Table]:
        tables: dict[Role, Table] = {}
        for role, paths in self._files.tables():
            tables[role] = Table(paths, self._runner.read(f"raw_{role}", as_parquet(role, paths, folder)))
        return tables

    def write(self, out: Path) -> None:
        """Everything into the new folder `out`; dataset.json comes last."""
        check_rows(self._runner, self._tables, self._layout, self._data, self._schema)
        raw = self._tables["events"].rows
        everything = self._runner.store("kept", keep(raw, self._layout, self._data, self._schema))
        self._check_positives(everything)
        kept, moments = self._known(everything)
        users = Entities(self._runner, "user", kept, self._tables.get("users"), self._layout, self._schema)
        items = Entities(self._runner, "item", kept, self._tables.get("items"), self._layout, self._schema)
        events = self._placed(kept, users, items, moments)
        asked = events.filter(events.before >= self._data.min_history)
        self._check_parts(events, asked)

        in_train, positive = events.stage == TRAIN, events.label > 0
        of_user = users.count(events, train=in_train, positive=positive & self._schema.has_histories)
        of_item = items.count(events, train=in_train, positive=in_train & positive)
        starts = np.cumsum(of_user["positive"]) - of_user["positive"]
        examples = Examples(self._runner, asked, self._schema)
        user_features = users.encode(events, of_user["train"])
        item_features = items.encode(events, of_item["train"])

        fixed_users = {"user": users.ids, "event_start": starts, "event_count": of_user["positive"].astype(np.int32)}
        write_table(out / "users.parquet", pa.table(fixed_users | user_features.columns))
        write_table(out / "items.parquet", _items_table(items, item_features, of_item["positive"]))
        vocabularies = user_features.vocabularies | item_features.vocabularies | examples.vocabularies
        (out / "vocab").mkdir()
        for feature, vocabulary in vocabularies.items():
            write_table(out / "vocab" / f"{feature}.parquet", vocabulary)
        sampler = self._sampler(events, users, of_item["positive"])
        rows = self._write_rows(out, events, examples, starts, sampler)
        counts = Counts(
            users=len(users),
            items=len(items),
            dropped=_count(self._runner, raw) - _count(self._runner, everything),
            held_back=_count(self._runner, everything) - _count(self._runner, kept),
            **rows,
        )
        log = RawLog(
            self._runner, raw, self._data, self._schema, moments, _held_out(events, users, items, self._schema)
        )
        suspicions = [*log.suspicions("user", users, user_features), *log.suspicions("item", items, item_features)]
        self._write_info(out, user_features.infos | item_features.infos | examples.infos, counts, suspicions)

    def _known(self, events: ir.Table) -> tuple[ir.Table, Moments | None]:
        """The events that are not held back, and where a temporal split cuts them."""
        split = self._data.split
        if not isinstance(split, TemporalSplit):
            return events, None
        moments = Moments.of(self._runner, events, split)
        if split.held_back is not None:
            self._check_positives(moments.known(events), "before those held back ", "lower data.split.held_back")
        return moments.known(events), moments

    def _placed(self, kept: ir.Table, users: Entities, items: Entities, moments: Moments | None) -> ir.Table:
        """Events with order, part and history."""
        events = self._runner.store("ranked", ranked(kept, users.index, items.index, self._data.seed))
        events = staged(events, users.index, items.index, self._data, moments)
        events = with_history(events, self._data.split, self._data.min_history)
        # Where no user is named, this adds nothing that takes time.
        return events if self._schema.user is None else self._runner.store("placed", events)

    def _check_positives(
        self, kept: ir.Table, which: str = "", cure: str = "change data.positives or data.negatives"
    ) -> None:
        if _count(self._runner, kept.filter(kept.label > 0)) == 0:
            raise DataError(place(self._files.events), f"no event {which}is positive", "some positive events", cure)

    def _check_parts(self, events: ir.Table, asked: ir.Table) -> None:
        there, left = (self._stages(rows) for rows in (events, asked))
        split, least = self._data.split.kind, self._data.min_history
        problems = [
            Problem(
                place(self._files.events),
                f"the {part} part of the {split} split has no rows",
                "at least one",
                "give more events, other shares in data.split, or another kind of split",
            )
            for part in PARTS
            if STAGES[part] not in there
        ]
        problems += [
            Problem(
                "data.min_history",
                f"{least}, and in the {part} part of the {split} split no event has so long a history",
                "at least one",
                "lower it, or give more events",
            )
            for part in PARTS
            if STAGES[part] in there - left
        ]
        if problems:
            raise DataError(problems)

    def _stages(self, rows: ir.Table) -> set[int]:
        return set(self._runner.fetch(rows.select("stage").distinct())["stage"].to_pylist())

    def _sampler(self, events: ir.Table, users: Entities, train_count: np.ndarray) -> NegativeSampler | None:
        config = self._data.sampled_negatives
        if config is None:
            return None
        weights = train_count if config.distribution == "popularity" else np.ones_like(train_count)
        own = events.filter(events.label > 0).select("user_index", "item_index").distinct()
        pairs = pa.Table.from_batches(self._runner.batches(own.order_by(["user_index", "item_index"])))
        outside = Outside(weights, pairs["user_index"].to_numpy(), pairs["item_index"].to_numpy(), len(users))
        return NegativeSampler(config, outside, users.ids)

    def _write_rows(
        self, out: Path, events: ir.Table, examples: Examples, starts: np.ndarray, sampler: NegativeSampler | None
    ) -> dict[str, int]:
        group = self._data.rows_per_group
        rows = {"events": self._write_events(out / "events", events)}
        start_of = pa.table({"user_index": pa.array(np.arange(len(starts)), pa.int32()), "event_start": starts})
        users = self._runner.put("event_starts", start_of)
        for part in PARTS:
            rows[part] = write_rows(out / part, examples.batches(part, users, sampler), examples.finish, group)
        return rows

    def _write_events(self, folder: Path, events: ir.Table) -> int:
        has_time = "time" in events.columns
        columns = ["user_index", "item_index", *(["time"] if has_time else []), "stage"]
        if not self._schema.has_histories:
            write_table(folder / "part-00000.parquet", pa.table({name: pa.array([], BASE[name]) for name in columns}))
            return 0
        history = self._runner.batches(in_order(events, self._data.split).select(*columns))
        return write_rows(folder, history, lambda name, column: column.cast(BASE[name]), self._data.rows_per_group)

    def _write_info(
        self, out: Path, infos: Mapping[str, FeatureInfo], counts: Counts, suspicions: Iterable[Suspicion]
    ) -> None:
        features = {
            name: SequenceInfo(of=feature.of, max_length=feature.max_length, age=feature.age)
            if isinstance(feature, Sequence)
            else infos[name]
            for name, feature in self._schema.features.items()
        }
        info = DatasetInfo(
            name=self._name,
            digest=self._digest,
            table_schema=self._schema,
            features=features,
            labels={name: self._label(name, out / "train") for name in self._data.labels},
            counts=counts,
            split=self._data.split.kind,
            sampled_negatives=self._data.sampled_negatives,
            has_time=self._schema.timestamp is not None,
            rows_per_group=self._data.rows_per_group,
            suspicions=tuple(suspicions),
        )
        (out / "dataset.json").write_text(info.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def _label(self, name: str, examples: Path) -> LabelInfo:
        """What the training examples, as they are written, know of a further label."""
        known = positive = 0
        for file in sorted(examples.glob("*.parquet")):
            for batch in pq.ParquetFile(file).iter_batches(columns=[label_column(name)]):
                values = batch.column(0).to_numpy()
                known += int(np.count_nonzero(~np.isnan(values)))
                positive += int(np.count_nonzero(values == 1))
        if not known:
            column = self._data.labels[name].column
            raise DataError(
                f"{place(self._files.events)}: column {column!r}",
                f"holds nothing in any training event, so label {name!r} is not known of one",
                "some values",
                f"fill the column, or remove data.labels.{name}",
            )
        return LabelInfo(known=known, positive=positive)


def _held_out(events: ir.Table, users: Entities, items: Entities, schema: SchemaConfig) -> ir.Table:
    """user, item: text, time (if there is one) of the events that validate and test."""
    held = events.filter(events.stage.isin([VALID, TEST]))
    for entity, entities in (("user", users), ("item", items)):
        if entity in schema.ids:
            held = held.join(entities.index, f"{entity}_index")
    return held.select(
        **ids_of(lambda entity: held[entity], schema), **{n: held[n] for n in {"time"} & {*held.columns}}
    )


def _items_table(items: Entities, features: Encoded, train_count: np.ndarray) -> pa.Table:
    columns = dict(features.columns)
    title = {"title": columns.pop("title")} if "title" in columns else {}
    return pa.table({"item": items.ids} | title | {"train_count": train_count} | columns)


def _count(runner: Runner, table: ir.Table) -> int:
    return int(runner.fetch(table.aggregate(rows=table.count()))["rows"][0].as_py())


def _digest_of(folder: Path) -> str | None:
    """The digest of a complete prepared folder; None for anything else."""
    try:
        return DatasetInfo.model_validate_json((folder / "dataset.json").read_bytes()).digest
    except (OSError, ValidationError):
        return None


def _move(ready: Path, target: Path, digest: str) -> None:
    if _digest_of(target) == digest:  # another process was faster
        return
    if target.exists():
        shutil.rmtree(target)
    os.replace(ready, target)
