"""Run directories made of hand-written records: no model, no TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recsys.config.dialect import dump
from recsys.config.load import load
from recsys.embeddings.health_record import FeatureHealth, HealthRecord, TableHealth
from recsys.evaluation.comparison import Difference
from recsys.evaluation.record import CalibrationRecord, Cost, Environment, Range, RunRecord, SliceRecord
from recsys.evaluation.showcase import Example, Named, Showcase, Shown
from recsys.experiment_config import ExperimentConfig
from recsys.run_directory import Origin
from tests.trained import CONFIG

EVIL = "<script>alert('x')</script> & \"co\""
"""A title as somebody else may write it."""
DIGEST, DATA = "c" * 64, "d" * 64
MakeRun = Callable[..., Path]
RANKER = """\
name: ranked
data:
  source: {kind: public, name: movielens-latest-small}
  positives: {column: rating, at_least: 4}
  negatives: {column: rating, at_most: 3}
schema:
  user: user_id
  item: movie_id
  timestamp: timestamp
  features:
    movie_id: {kind: categorical, role: item}
    user_id: {kind: categorical, role: user}
embeddings:
  tables: {shared: {dim: 8}}
  features: {movie_id: {table: shared}, user_id: {table: shared}}
model: {kind: ranker, interaction: {kind: autoint, layers: 1, heads: 1, head_dim: 4}}
"""


def difference(against: str, **changes: Any) -> Difference:
    whole: dict[str, Any] = {
        "run": "model",
        "against": against,
        "metric": "ndcg@10",
        "reference": 0.15,
        "value": 0.25,
        "difference": 0.1,
        "low": 0.05,
        "high": 0.15,
        "p": 0.001,
        "detectable": 0.02,
        "real": True,
        "users": 400,
    }
    return Difference(**(whole | changes))


def record(**changes: Any) -> RunRecord:
    """Of a two_tower: 0.25 against 0.15 of popularity."""
    whole: dict[str, Any] = {
        "name": "small",
        "config_digest": DIGEST,
        "data_digest": DATA,
        "seed": 17,
        "environment": Environment(
            python="3.11.9", platform="Linux", cores=2, memory_gib=8.0, versions={"recsys": "0.1.0"}
        ),
        "metrics": {
            "model": {"recall@10": 0.5, "ndcg@10": 0.25, "coverage@10": 0.125},
            "popularity": {"recall@10": 0.25, "ndcg@10": 0.15, "coverage@10": 0.0625},
            "champion": {"recall@10": 0.5, "ndcg@10": 0.245},
        },
        "counts": {"users": 500, "items": 200, "train": 9_000, "users_evaluated": 400, "users_without_relevant": 100},
        "cost": Cost(seconds={"train": 61.0}, peak_memory_mib=2048.0),
        "ranges": {
            "model": {"ndcg@10": Range(value=0.25, low=0.2, high=0.3, users=400)},
            "popularity": {"ndcg@10": Range(value=0.15, low=0.1, high=0.2, users=400)},
        },
        "slices": (
            _slice("head", 300, 0.4),
            _slice("tail", 12, 0.0125),
        ),
        "differences": (
            difference("popularity"),
            difference("champion", reference=0.245, difference=0.005, low=-0.01, high=0.02, p=0.6, real=False),
        ),
        "history": (
            {"loss": 3.0, "val_ndcg@10": 0.1},
            {"loss": 2.0, "val_ndcg@10": 0.3},
            {"loss": 1.5, "val_ndcg@10": 0.2},
        ),
    }
    return RunRecord(**(whole | changes))


def ranked(**changes: Any) -> RunRecord:
    """Of a ranker whose probabilities are 0.2 too high."""
    whole: dict[str, Any] = {
        "name": "ranked",
        "metrics": {"model": {"auc": 0.75, "logloss": 0.5, "ece": 0.2}, "base_rate": {"auc": 0.5, "logloss": 0.6}},
        "counts": {"examples_evaluated": 10_000},
        "ranges": {"model": {"auc": Range(value=0.75, low=0.7, high=0.8, users=90)}},
        "slices": (),
        "differences": (difference("base_rate", metric="auc", reference=0.5, value=0.75, difference=0.25),),
        "calibration": CalibrationRecord(predicted=(0.3, 0.7, 0.9), observed=(0.1, 0.5, 0.7), weight=(1.0, 1.0, 1.0)),
        "history": ({"loss": 0.6, "logloss": 0.6, "auc": 0.7, "val_auc": 0.7},),
    }
    return record(**(whole | changes))


def _slice(name: str, users: int, value: float) -> SliceRecord:
    found = {"ndcg@10": Range(value=value, low=value / 2, high=value * 2, users=users)}
    return SliceRecord(by="item_frequency", name=name, users=users, small=users < 100, metrics={"model": found})


def showcase(title: str = EVIL) -> Showcase:
    """One user, of whose two items one is found."""
    shown = (Shown(item="1", title=title, wanted=True), Shown(item="2", title="Plain", wanted=False))
    wanted = (Named(item="1", title=title), Named(item="3", title="Never shown"))
    user = Example(user="u<7>", liked=(Named(item="9", title="Old friend"),), shown=shown, wanted=wanted)
    return Showcase(part="test", users=(user,))


def health(**changes: Any) -> HealthRecord:
    """One table of 200 rows, 16 wide."""
    whole: dict[str, Any] = {
        "name": "item",
        "method": "full",
        "features": ("item_id", "history"),
        "rows": 200,
        "dim": 16,
        "precision": "float32",
        "parameters": 3_200,
        "bytes": 12_800,
        "copies": 1,
        "optimizer_bytes": 25_600,
        "untrained": 0.125,
        "effective_rank": 12.3,
        "ids_per_row": 1.0,
        "vocabularies": (FeatureHealth("item_id", 198, 0.0),),
    }
    return HealthRecord(config_digest=DIGEST, tables=(TableHealth(**(whole | changes)),))


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """`make_run(name, config, {file: text})`: a run directory that has trained, with these files in it."""

    def make(name: str = "small", config: str | None = CONFIG, files: dict[str, str] | None = None) -> Path:
        run = tmp_path / "runs" / name
        if config is not None:
            (run / "checkpoints").mkdir(parents=True)
            (run / "checkpoints" / "checkpoint").write_text("")
            path = tmp_path / f"{name}.yaml"
            path.write_text(config)
            whole = load(path, ExperimentConfig).config
            (run / "config.yaml").write_text(dump(whole.model_dump(mode="json", by_alias=True)))
            origin = Origin(base_dir=str(tmp_path), training_digest="t" * 64, data_digest=DATA)
            (run / "origin.json").write_text(origin.model_dump_json())
        for file, text in (files or {}).items():
            (run / file).parent.mkdir(parents=True, exist_ok=True)
            (run / file).write_text(text, encoding="utf-8")
        return run

    return make


@pytest.fixture
def whole_run(make_run: MakeRun) -> Path:
    """A two_tower's run with metrics, examples and inspected tables; no bundle, no search."""
    parts = {
        "metrics.json": record(warnings=("a leak: 3 test events stand in the training part",)),
        "evaluation/examples.json": showcase(),
        "inspect/tables.json": health(),
    }
    files = {name: part.model_dump_json() for name, part in parts.items()}
    return make_run(files=files | {"cost.json": '{"prepare": 2.5, "train": 61.0}'})
