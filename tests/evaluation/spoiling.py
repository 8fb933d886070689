"""Sound prepared folders of every kind of split, and how a test spoils a copy of one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.data.config import DataConfig
from recsys.data.prepare import prepare
from recsys.data.prepared import Prepared
from recsys.data.source import SourceFiles
from recsys.evaluation.leakage import find_leaks
from recsys.schema.config import SchemaConfig

USERS, ITEMS, EVENTS, DAYS = 60, 80, 2_400, 200
SPLITS = {
    "temporal": {"kind": "temporal"},
    "window": {"kind": "temporal", "train": 0.5, "held_back": 0.1},
    "leave_last_out": {"kind": "leave_last_out"},
    "random": {"kind": "random"},
    "by_user": {"kind": "by_user", "valid": 0.2, "test": 0.2, "targets": 0.1},
    "cold_users": {"kind": "cold_users", "valid": 0.2, "test": 0.2},
    "cold_items": {"kind": "cold_items", "valid": 0.2, "test": 0.2},
    "random, no time": {"kind": "random"},
    "by_user, no time": {"kind": "by_user", "valid": 0.2, "test": 0.2},
}
FEATURES = {
    "user_id": {"kind": "categorical", "role": "user", "column": "user"},
    "joined": {"kind": "numeric", "role": "user", "transform": "log"},
    "item_id": {"kind": "categorical", "role": "item", "column": "item", "encoding": {"min_count": 3}},
    "tags": {"kind": "multi_valued", "role": "item"},
    "price": {"kind": "numeric", "role": "item"},
    "year": {"kind": "numeric", "role": "item", "transform": "bucketize", "buckets": 4},
    "device": {"kind": "categorical", "role": "context", "encoding": {"oov_rows": 2}},
    "query": {"kind": "multi_valued", "role": "context", "encoding": {"min_count": 2}},
    "hour": {"kind": "numeric", "role": "context", "transform": "bucketize", "buckets": 5},
    "basket": {"kind": "numeric", "role": "context", "transform": "log"},
    "size": {"kind": "numeric", "role": "context", "transform": "log_squared", "column": "basket"},
    "sizes": {
        "kind": "numeric",
        "role": "context",
        "transform": "log_squared_buckets",
        "column": "basket",
        "min_count": 9,
    },
    "history": {"kind": "sequence", "of": "item_id", "max_length": 5, "age": True},
}


def log(seed: int) -> dict[str, pa.Table]:
    """Days with many ties, items that come up over time, repeats, missing values, ratings."""
    rng = np.random.default_rng(seed)
    born = rng.integers(0, DAYS // 2, ITEMS)
    born[0] = 0
    popular = rng.zipf(1.4, ITEMS).clip(max=50).astype(float)
    time = np.sort(rng.integers(0, DAYS, EVENTS))
    item = np.array([rng.choice(ITEMS, p=alive / alive.sum()) for alive in popular * (born <= time[:, None])])
    user = rng.integers(0, USERS, EVENTS)
    _, once = np.unique(np.stack([user, item, time]), axis=1, return_index=True)
    user, item, time = user[once], item[once], time[once]
    words = np.array(["red", "blue", "green", "", "new"])
    events = {
        "user": np.char.add("u", user.astype(str)),
        "item": np.char.add("i", item.astype(str)),
        "time": time,
        "stars": rng.integers(1, 6, len(time)),
        "weight": rng.integers(1, 4, len(time)),
        "device": rng.choice([*"abcdefghij"], len(time), p=np.arange(10, 0, -1) / 55),
        "query": words[rng.integers(0, 5, (len(time), 3))].tolist(),
        "hour": rng.integers(0, 24, len(time)),
        "basket": np.where(rng.random(len(time)) < 0.2, np.nan, rng.lognormal(2, 1, len(time))),
        "number": np.arange(len(time)),
    }
    items = {
        "item": [f"i{n}" for n in range(ITEMS)],
        "tags": words[rng.integers(0, 5, (ITEMS, 3))].tolist(),
        "price": np.where(rng.random(ITEMS) < 0.2, np.nan, rng.lognormal(2, 1, ITEMS)),
        "year": 2000 + born // 10,
    }
    users = {"user": [f"u{n}" for n in range(USERS)], "joined": rng.integers(0, 1000, USERS)}
    return {"events": pa.table(events), "items": pa.table(items), "users": pa.table(users)}


LIKED = {"positives": {"column": "stars", "at_least": 4}, "negatives": {"column": "stars", "at_most": 2}}


def prepared(folder: Path, name: str, seed: int = 0, rules: Mapping[str, Any] = LIKED) -> Path:
    """A real preparation; events are liked (4, 5), disliked (1, 2) or dropped."""
    folder.mkdir(parents=True)
    timeless = "no time" in name
    features = {f: c for f, c in FEATURES.items() if not (timeless and f == "history")}
    if timeless:  # the same user may have the same item twice; this tells the events apart
        features["number"] = {"kind": "numeric", "role": "context"}
    tables = log(seed)
    for table, rows in tables.items():
        pq.write_table(rows, folder / f"{table}.parquet")
    columns = {"user": "user", "item": "item", "weight": "weight"} | ({} if timeless else {"timestamp": "time"})
    data = {"source": {"kind": "files", "events": "events.parquet"}, "split": SPLITS[name], "rows_per_group": 300}
    return prepare(
        name,
        DataConfig.model_validate({**data, **rules}),
        SchemaConfig.model_validate(columns | {"features": features}),
        SourceFiles(*((folder / f"{table}.parquet",) for table in tables)),
        folder / "prepared",
    )


@dataclass
class World:
    """A prepared folder that tests may spoil."""

    path: Path

    def read(self, name: str) -> pa.Table:
        return pq.read_table(self.path / self._file(name))

    def rows(self, name: str) -> dict[str, np.ndarray]:
        table = self.read(name)
        return {column: table[column].to_numpy() for column in table.column_names}

    def set(self, name: str, column: str, values: np.ndarray) -> None:
        table = self.read(name)
        at = table.column_names.index(column)
        table = table.set_column(at, column, pa.array(values, table.schema.field(column).type))
        pq.write_table(table, self.path / self._file(name), row_group_size=300)

    def put(self, name: str, row: int, **values: float) -> None:
        """New values in one row."""
        for column, value in values.items():
            changed = self.read(name)[column].to_numpy().copy()
            changed[row] = value
            self.set(name, column, changed)

    def info(self, change: Callable[[dict], None]) -> None:
        file = self.path / "dataset.json"
        info = json.loads(file.read_text())
        change(info)
        file.write_text(json.dumps(info))

    def feature(self, entity: str, name: str, values: np.ndarray) -> None:
        """New values of a numeric feature, with mean and deviation as `prepare` would find them."""
        values = np.asarray(values, np.float32)
        events, negatives = self.rows("events"), self._negatives()
        index = np.concatenate([events[f"{entity}_index"][events["stage"] == 0], negatives[f"{entity}_index"]])
        train = np.bincount(index, minlength=len(values))
        there = ~np.isnan(values) & (train > 0)
        mean = float(np.average(values[there].astype(float), weights=train[there]))
        std = float(np.sqrt(np.average((values[there].astype(float) - mean) ** 2, weights=train[there])))

        def change(info: dict) -> None:
            info["features"][name] |= {"transform": "standardize", "boundaries": [], "mean": mean, "std": std or 1.0}

        self.info(change)
        self.set(f"{entity}s", name, values)

    def _negatives(self) -> dict[str, np.ndarray]:
        """The training events that are negative."""
        rows = self.rows("train")
        logged = json.loads((self.path / "dataset.json").read_text())["sampled_negatives"] is None
        return {name: column[(rows["label"] == 0) & logged] for name, column in rows.items()}

    def found(self) -> list[str]:
        return [str(problem) for problem in find_leaks(Prepared(self.path))]

    def only(self) -> str:
        (found,) = self.found()
        return found

    @staticmethod
    def _file(name: str) -> str:
        return f"{name}.parquet" if name in ("items", "users") or "/" in name else f"{name}/part-00000.parquet"
