"""Small prepared folders, written directly by the contract of docs/architecture.md, so that readers and models are
tested without `prepare`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.data.dataset import CategoricalInfo, Counts, DatasetInfo, FeatureInfo, NumericInfo, SequenceInfo
from recsys.schema.config import SchemaConfig

SCHEMA = {
    "user": "user_id",
    "item": "movie_id",
    "timestamp": "time",
    "features": {
        "user_id": {"kind": "categorical", "role": "user"},
        "movie_id": {"kind": "categorical", "role": "item"},
        "genres": {"kind": "multi_valued", "role": "item", "max_length": 3},
        "price": {"kind": "numeric", "role": "item"},
        "device": {"kind": "categorical", "role": "context"},
        "history": {"kind": "sequence", "of": "movie_id", "max_length": 4, "age": True},
    },
}


def write_world(
    path: Path,
    users: int = 40,
    items: int = 30,
    per_user: int = 12,
    seed: int = 0,
    group: int = 64,
    negatives: float = 0.0,
) -> Path:
    """Users like items of their own parity; the last event of each tests, the one before validates, the rest trains.

    A share of the examples are `negatives`: they say nothing, but metrics of rankers are defined.
    """
    rng = np.random.default_rng(seed)
    item = (2 * rng.integers(0, items // 2, (users, per_user)) + np.arange(users)[:, None] % 2).astype(np.int32)
    time = np.sort(rng.integers(0, 50, (users, per_user)), axis=1).astype(np.int64) * 3600
    stage = np.zeros((users, per_user), np.int8)
    stage[:, -2], stage[:, -1] = 1, 2
    before = (time[:, :, None] > time[:, None, :]).sum(2)
    start = np.arange(users, dtype=np.int64) * per_user
    user = np.repeat(np.arange(users, dtype=np.int32), per_user)
    device = rng.integers(1, 4, user.size).astype(np.int32)
    train = stage.ravel() == 0
    counts = np.bincount(item.ravel()[train], minlength=items)
    path.mkdir(parents=True)
    _write(
        path / "items.parquet",
        item=pa.array([f"i{n:03d}" for n in range(items)]),
        title=pa.array([f"Item {n}" for n in range(items)]),
        train_count=counts.astype(np.int64),
        **{"raw.movie_id": pa.array([f"i{n:03d}" for n in range(items)])},
        movie_id=(np.arange(items) + 2).astype(np.int32),
        **{"raw.genres": pa.array([[f"g{n % 5}", f"g{n % 3}"] for n in range(items)])},
        genres=pa.array([[2 + n % 5, 2 + n % 3] for n in range(items)], pa.list_(pa.int32())),
        **{"raw.price": pa.array(np.arange(items), pa.float32())},
        price=np.arange(items).astype(np.float32),
    )
    _write(
        path / "users.parquet",
        user=pa.array([f"u{n:03d}" for n in range(users)]),
        event_start=start,
        event_count=np.full(users, per_user, np.int32),
        **{"raw.user_id": pa.array([f"u{n:03d}" for n in range(users)])},
        user_id=(np.arange(users) + 2).astype(np.int32),
    )
    _write(
        path / "events" / "part-00000.parquet",
        user_index=user,
        item_index=item.ravel(),
        time=time.ravel(),
        stage=stage.ravel(),
    )
    for part, code in (("train", 0), ("valid", 1), ("test", 2)):
        rows = rng.permutation(np.flatnonzero(stage.ravel() == code))
        _write(
            path / part / "part-00000.parquet",
            group=group,
            user_index=user[rows],
            item_index=item.ravel()[rows],
            label=(np.random.default_rng(seed).random(len(rows)) >= negatives).astype(np.float32),
            weight=np.ones(len(rows), np.float32),
            time=time.ravel()[rows],
            history_stop=(start[:, None] + before).ravel()[rows],
            device=device[rows],
        )
    values = {
        "user_id": [f"u{n:03d}" for n in range(users)],
        "movie_id": [f"i{n:03d}" for n in range(items)],
        "genres": [f"g{n}" for n in range(5)],
        "device": ["d0", "d1", "d2"],
    }
    for name, vocabulary in values.items():
        _write(
            path / "vocab" / f"{name}.parquet", value=pa.array(vocabulary), count=np.full(len(vocabulary), 5, np.int64)
        )
    features: dict[str, FeatureInfo] = {
        "user_id": CategoricalInfo(role="user", rows=users + 2, oov_rows=1),
        "movie_id": CategoricalInfo(role="item", rows=items + 2, oov_rows=1),
        "genres": CategoricalInfo(role="item", rows=7, oov_rows=1, max_length=3),
        "price": NumericInfo(role="item", transform="standardize", mean=14.5, std=8.0),
        "device": CategoricalInfo(role="context", rows=5, oov_rows=1),
        "history": SequenceInfo(of="movie_id", max_length=4, age=True),
    }
    info = DatasetInfo(
        name="world",
        digest=f"world-{users}-{items}-{per_user}-{seed}",
        table_schema=SchemaConfig.model_validate(SCHEMA),
        features=features,
        counts=Counts(
            users=users, items=items, events=user.size, train=int(train.sum()), valid=users, test=users, dropped=0
        ),
        split="leave_last_out",
        has_time=True,
        rows_per_group=group,
    )
    (path / "dataset.json").write_text(info.model_dump_json(indent=2))
    return path


EMBEDDINGS = {
    "tables": {"ids": {"dim": 8}, "user": {"dim": 8}, "genre": {"method": "hashed", "rows": 16, "dim": 4}},
    "features": {
        "user_id": {"table": "user"},
        "movie_id": {"table": "ids"},
        "history": {"table": "ids"},
        "genres": {"table": "genre"},
        "device": {"table": "genre"},
    },
}


def _write(path: Path, group: int = 1 << 20, **columns: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=group)
