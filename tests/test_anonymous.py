"""A ranker of a log that names no user, no item or neither, the whole way from the log to the bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from recsys.bundle import Bundle
from recsys.config.load import load
from recsys.evaluation.comparison import compare
from recsys.evaluation.evidence import MODEL, Measured, evidence_path
from recsys.evaluation.model import scores
from recsys.experiment import Experiment
from recsys.experiment_config import ExperimentConfig

ROWS = 1_500
NAMED = {"neither": (), "items": ("item",), "users": ("user",)}
OWN = {"item": ("iid", "item"), "user": ("uid", "user")}


def log(seed: int = 0) -> pa.Table:
    """A click depends on the place and on whether there is a number."""
    rng = np.random.default_rng(seed)
    place, missing = rng.integers(0, 5, ROWS), rng.random(ROWS) < 0.3
    clicked = rng.random(ROWS) < np.where(missing, 0.05, 0.1 + 0.18 * place)
    return pa.table(
        {
            "user": [f"u{n}" for n in rng.integers(0, 20, ROWS)],
            "item": [f"i{n}" for n in rng.integers(0, 12, ROWS)],
            "click": clicked.astype(np.int8),
            "place": [f"p{n}" for n in place],
            "number": pa.array(np.where(missing, np.nan, rng.integers(-2, 50, ROWS)), from_pandas=True),
            "line": np.arange(ROWS),
        }
    )


def config(named: tuple[str, ...]) -> dict:
    own = {OWN[entity][0]: {"kind": "categorical", "role": entity, "column": entity} for entity in named}
    number = {"kind": "numeric", "role": "context", "column": "number"}
    features = own | {
        "place": {"kind": "categorical", "role": "context"},
        "size": {**number, "transform": "log_squared"},
        "sizes": {**number, "transform": "log_squared_buckets", "min_count": 20},
        "line": {"kind": "numeric", "role": "context", "input": False},
    }
    read = {name: {"table": "field"} for name in features if name not in ("size", "line")}
    return {
        "name": "clicks",
        "data": {
            "source": {"kind": "files", "events": "log.parquet"},
            "positives": {"column": "click", "at_least": 1},
            "negatives": {"column": "click", "at_most": 0},
            "split": {"kind": "random", "valid": 0.2, "test": 0.2},
        },
        "schema": {entity: entity if entity in named else None for entity in ("user", "item")} | {"features": features},
        "embeddings": {"tables": {"field": {"dim": 8}}, "features": read | {"size": {"projection": 8}}},
        "model": {"kind": "ranker", "interaction": {"kind": "autoint", "layers": 1}, "mlp": {"hidden": []}},
        "training": {"batch_size": 64, "epochs": 8, "tensorboard": False},
        "evaluation": {"slices": [{"feature": "place"}, {"kind": "item_frequency"}, {"kind": "returning"}]},
    }


@pytest.mark.parametrize(("name", "fields"), [("criteo", 39), ("avazu", 22)])
def test_the_published_protocols_fit(name: str, fields: int) -> None:
    path = Path(__file__).parents[1] / "configs" / f"{name}-autoint.yaml"
    plus = ["model.structure=parallel", "model.mlp.hidden=[400, 400]"]
    found = load(path, ExperimentConfig, plus).config
    assert len(found.table_schema.inputs("context")) == fields
    assert found.table_schema.ids == {}
    rare = {
        feature.encoding.min_count for feature in found.table_schema.features.values() if hasattr(feature, "encoding")
    }
    assert rare == {10 if name == "criteo" else 5}


@pytest.mark.parametrize("who", NAMED)
def test_the_whole_way(who: str, tmp_path: Path) -> None:
    named, table = NAMED[who], log()
    pq.write_table(table, tmp_path / "log.parquet")
    (tmp_path / "clicks.yaml").write_text(yaml.safe_dump(config(named)))
    experiment = Experiment.from_yaml(tmp_path / "clicks.yaml", runs=tmp_path / "runs")
    experiment.run()
    record = experiment.evaluate()
    assert set(record.metrics) == {"model", "base_rate", *(["popularity"] if who == "items" else [])}
    assert record.metrics["model"]["auc"] > 0.65
    assert ("gauc" in record.metrics["model"]) == (who == "users")
    said = " ".join(record.warnings)
    assert ("the log names no users: no gauc" in said) == (who != "users")
    assert "does not name both users and items: no baselines of" in said

    measured = Measured.read(evidence_path(experiment.folder, MODEL))
    units = record.counts["test"] if who != "users" else 20
    assert len(measured.whole.users) == units
    sliced = {"place"} | ({"item_frequency"} if who == "items" else {"returning"} if who == "users" else set())
    assert {by for by, _ in measured.slices} == sliced
    if who == "users":
        assert [name for by, name in measured.slices if by == "returning"] == ["returning"], "all of them train"
    same = compare({"a": measured, "b": measured}, ["auc", "logloss"])
    assert [each.difference for each in same] == [0.0, 0.0]

    bundle, found = Bundle.load(experiment.folder), scores(experiment.model, experiment.prepared, "test")["label"]
    assert (len(bundle.users), bundle.items.num_rows) == {"neither": (0, 0), "items": (0, 12), "users": (20, 0)}[who]
    lines = experiment.prepared.examples("test", ["line"])["line"].to_numpy().astype(int)
    raw = table.take(pa.array(lines)).to_pylist()
    requests = [
        {OWN[entity][0]: row[entity] for entity in named}
        | {"place": row["place"], "size": row["number"], "sizes": row["number"]}
        for row in raw
    ]
    np.testing.assert_allclose(bundle.score(requests), found.probabilities, rtol=1e-5)
    assert found.examples.labels.tolist() == [row["click"] for row in raw]
    zero, missing = bundle.score([{**requests[0], "size": number, "sizes": number} for number in (0, None)])
    assert zero > missing, "nothing is not nought"
