"""Prepares small logs and reads back what was written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.data.config import DataConfig
from recsys.data.dataset import DatasetInfo
from recsys.data.prepare import prepare
from recsys.data.source import SourceFiles
from recsys.schema.config import SchemaConfig

Columns = Mapping[str, Any]
PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class Result:
    """A prepared folder, with ids in the place of indices."""

    folder: Path

    def table(self, name: str) -> pa.Table:
        return pq.read_table(self.folder / f"{name}.parquet")

    def rows(self, name: str) -> list[dict[str, Any]]:
        return self.table(name).to_pylist()

    @property
    def info(self) -> DatasetInfo:
        return DatasetInfo.model_validate_json((self.folder / "dataset.json").read_text())

    @property
    def items(self) -> dict[str, dict[str, Any]]:
        return {row["item"]: row for row in self.rows("items")}

    @property
    def users(self) -> dict[str, dict[str, Any]]:
        return {row["user"]: row for row in self.rows("users")}

    def vocabulary(self, name: str) -> list[tuple[str, int]]:
        return [(row["value"], row["count"]) for row in self.rows(f"vocab/{name}")]

    @property
    def events(self) -> list[tuple[str, str, int]]:
        """(user, item, stage), in the file's order."""
        users, items = self.table("users")["user"], self.table("items")["item"]
        rows = self.rows("events/part-00000")
        return [(users[r["user_index"]].as_py(), items[r["item_index"]].as_py(), r["stage"]) for r in rows]

    def examples(self, part: str) -> list[dict[str, Any]]:
        """The rows of a part, with user, item and history (item texts) added; in the file's order."""
        users, items, events = self.rows("users"), self.rows("items"), self.events
        found = []
        for row in self.rows(f"{part}/part-00000"):
            user = users[row["user_index"]]
            history = events[user["event_start"] : row["history_stop"]]
            assert all(owner == user["user"] for owner, _, _ in history)
            assert row["history_stop"] <= user["event_start"] + user["event_count"]
            found.append(
                {
                    **row,
                    "user": user["user"],
                    "item": items[row["item_index"]]["item"],
                    "history": [e[1] for e in history],
                }
            )
        return found

    def pairs(self, part: str) -> list[tuple[str, str]]:
        """(user, item) of a part, sorted."""
        return sorted((row["user"], row["item"]) for row in self.examples(part))

    def histories(self) -> dict[tuple[str, str], list[str]]:
        """The history of every example, by user and item."""
        return {(r["user"], r["item"]): r["history"] for part in PARTS for r in self.examples(part)}


Run = Callable[..., Result]
"""run(events, features=..., items=..., users=..., schema=..., **data config) -> Result"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Writes tables (columns by name, or the path of a file), prepares them, reads the result."""
    numbers = count()

    def source(table: Columns | Path, name: str) -> tuple[Path]:
        if isinstance(table, Path):
            return (table,)
        path = tmp_path / f"{name}-{next(numbers)}.parquet"
        pq.write_table(pa.table(dict(table)), path)
        return (path,)

    def prepared(
        events: Columns | Path,
        features: Mapping[str, Any] | None = None,
        items: Columns | Path | None = None,
        users: Columns | Path | None = None,
        schema: Mapping[str, Any] | None = None,
        **data: Any,
    ) -> Result:
        fixed = {"user": "user", "item": "item", "timestamp": "time"}
        table_schema = SchemaConfig.model_validate({**fixed, **(schema or {}), "features": features or {}})
        config = DataConfig.model_validate({"source": {"kind": "files", "events": "events.parquet"}, **data})
        files = SourceFiles(
            source(events, "events"),
            None if items is None else source(items, "items"),
            None if users is None else source(users, "users"),
        )
        return Result(prepare("small", config, table_schema, files, tmp_path / f"prepared-{next(numbers)}"))

    return prepared


@pytest.fixture
def line() -> Columns:
    """One user, ten events at the times 0 to 9, items i0 to i9: by default eight train, one validates, one tests."""
    return {"user": ["u"] * 10, "item": [f"i{n}" for n in range(10)], "time": list(range(10))}
