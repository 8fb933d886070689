"""One small world, sent the whole way: raw files with every kind of feature, prepared, trained, exported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.data.catalogue import Catalogue
from recsys.data.config import DataConfig
from recsys.data.prepare import prepare
from recsys.data.prepared import Prepared
from recsys.data.reader import Examples
from recsys.data.source import SourceFiles
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.optimizers import TableOptimizers
from recsys.export import Provenance, export_two_tower
from recsys.export.config import RetrievalConfig
from recsys.models.build import make_model
from recsys.models.config import TwoTowerConfig
from recsys.models.two_tower import TwoTower
from recsys.schema.config import SchemaConfig
from recsys.training import Checkpoints, TrainingConfig, fit, make_strategy
from recsys.training.optimizers import make_dense_optimizer

USERS, ITEMS, PER_USER = 40, 60, 12
SCHEMA = SchemaConfig.model_validate(
    {
        "user": "user",
        "item": "item",
        "timestamp": "time",
        "title": "name",
        "features": {
            "member": {"role": "user", "kind": "categorical", "column": "user", "encoding": {"oov_rows": 3}},
            "interests": {"role": "user", "kind": "multi_valued", "max_length": 3, "encoding": {"kind": "hash"}},
            "age": {"role": "user", "kind": "numeric", "transform": "bucketize", "buckets": 4},
            "taste": {"role": "user", "kind": "vector", "dim": 2},
            "film": {"role": "item", "kind": "categorical", "column": "item"},
            "genres": {"role": "item", "kind": "multi_valued", "max_length": 3, "encoding": {"oov_rows": 2}},
            "price": {"role": "item", "kind": "numeric", "transform": "log"},
            "studio": {"role": "item", "kind": "categorical", "encoding": {"kind": "hash"}},
            "device": {"role": "context", "kind": "categorical", "encoding": {"oov_rows": 3}},
            "hour": {"role": "context", "kind": "numeric"},
            "hours": {"role": "context", "kind": "numeric", "column": "hour", "transform": "log_squared"},
            "time_of_day": {"role": "context", "kind": "numeric", "column": "hour", "transform": "log_squared_buckets"},
            "clubs": {"role": "user", "kind": "multi_valued", "column": "interests", "input": False},
            "maker": {"role": "item", "kind": "categorical", "column": "studio", "input": False},
            "screen": {"role": "context", "kind": "categorical", "column": "device", "input": False},
            "recent": {"kind": "sequence", "of": "film", "max_length": 4, "age": True},
            "studios": {"kind": "sequence", "of": "studio", "max_length": 3},
        },
    }
)
EMBEDDINGS = EmbeddingsConfig.model_validate(
    {
        "tables": {"ids": {"dim": 8}, "few": {"dim": 4}, "hashed": {"method": "multiplexed", "rows": 64, "dim": 4}},
        "features": {
            "member": {"table": "ids"},
            "film": {"table": "ids"},
            "recent": {"table": "ids"},
            "age": {"table": "few"},
            "device": {"table": "few"},
            "time_of_day": {"table": "few"},
            "genres": {"table": "few", "pooling": "sqrtn"},
            "interests": {"table": "hashed"},
            "studio": {"table": "hashed"},
            "studios": {"table": "hashed", "pooling": "sum"},
        },
    }
)
TOWER = {"hidden": [16], "output_dim": 8}
MODEL = TwoTowerConfig.model_validate({"kind": "two_tower", "query": TOWER, "item": TOWER})
PROVENANCE = Provenance(name="small", config_digest="0" * 64, metrics={"auc": 0.5})
TRAINING = TrainingConfig(batch_size=64, epochs=2, tensorboard=False)


@dataclass(frozen=True)
class Exported:
    """What came out at the end of the way, and what it was made from."""

    prepared: Prepared
    model: TwoTower
    bundle: Path
    events: pa.Table
    """The raw event log."""


def _write_raw(folder: Path) -> SourceFiles:
    rng = np.random.default_rng(0)
    users = [f"{'uüユ'[n % 3]}{n:02d}" for n in range(USERS)]
    items = [f"{'iéш電'[n % 4]}{n:02d}" for n in range(ITEMS)]
    # Distinct times, so that "newest last" has one answer; in the file they stand in no order.
    time = np.concatenate([rng.choice(1_000, PER_USER, replace=False) for _ in users]) * 3_600
    rows = rng.permutation(USERS * PER_USER)
    events = {
        "user": np.repeat(np.arange(USERS), PER_USER)[rows],
        "item": rng.integers(0, ITEMS, len(rows)),
        "time": time[rows],
        "device": pa.array([[None, "fön", "tv", "téléphone", ""][n] for n in rng.integers(0, 5, len(rows))]),
        "hour": pa.array([None if n == 24 else float(n) for n in rng.integers(0, 25, len(rows))], pa.float64()),
    }
    events["user"], events["item"] = [users[n] for n in events["user"]], [items[n] for n in events["item"]]
    interests, genres = ["jazz", "čas", "", "sci-fi", "数学"], ["drama", "комедия", "noir", "bio"]
    pq.write_table(pa.table(events), folder / "events.parquet")
    described_users = {
        "user": users,
        "interests": pa.array(
            [None if n % 7 == 0 else [interests[(n * k) % 5] for k in range(n % 5)] for n in range(USERS)]
        ),
        "age": pa.array([None if n % 5 == 0 else 20.0 + n for n in range(USERS)], pa.float32()),
        "taste": pa.array([None if n % 6 == 0 else [n / 10, -n / 7] for n in range(USERS)], pa.list_(pa.float32())),
    }
    described_items = {
        "item": items,
        "name": [f"Film {n}" for n in range(ITEMS)],
        "genres": pa.array([[genres[(n + k) % 4] for k in range(n % 5)] for n in range(ITEMS)], pa.list_(pa.string())),
        "price": pa.array([None if n % 9 == 0 else n - 20.5 for n in range(ITEMS)], pa.float64()),
        "studio": pa.array([None if n % 8 == 3 else f"stúdió {n % 6}" for n in range(ITEMS)]),
    }
    pq.write_table(pa.table(described_users), folder / "users.parquet")
    pq.write_table(pa.table(described_items), folder / "items.parquet")
    return SourceFiles((folder / "events.parquet",), (folder / "items.parquet",), (folder / "users.parquet",))


def export(exported: Exported, config: RetrievalConfig, bundles: Path) -> Path:
    return export_two_tower(exported.model, exported.prepared, config, bundles, PROVENANCE)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("export")
    source = _write_raw(folder)
    data = DataConfig.model_validate(
        {
            "source": {"kind": "files", "events": "events.parquet"},
            "split": {"kind": "random", "valid": 0.15, "test": 0.15},
        }
    )
    prepared = Prepared(prepare("small", data, SCHEMA, source, folder / "prepared"))
    model = make_model(MODEL, EMBEDDINGS, prepared.info.inputs, Catalogue.of(prepared), seed=1)
    assert isinstance(model, TwoTower)
    model.compile(TableOptimizers.of(EMBEDDINGS), make_dense_optimizer(TRAINING.dense_optimizer), TRAINING.batch_size)
    examples = Examples(prepared, "train", TRAINING.batch_size, seed=1)
    model.build_from(examples.sample())
    fit(model, examples, TRAINING, Checkpoints(folder / "checkpoints", model), make_strategy(TRAINING))
    made = Exported(prepared, model, folder, pq.read_table(folder / "events.parquet"))
    return Exported(prepared, model, export(made, RetrievalConfig(retriever_k=7), folder / "bundle"), made.events)
