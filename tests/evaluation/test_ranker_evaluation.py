"""A ranker's evaluation: whose labels, whose scores, whose slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from recsys.data.prepared import Prepared
from recsys.evaluation.config import EvaluationConfig
from recsys.evaluation.heads import Scored
from recsys.evaluation.model import evaluate_model
from recsys.evaluation.pointwise import Examples
from recsys.metrics import logloss
from recsys.models.ranker import Ranker
from tests.worlds import write_world


def test_a_ranker_s_slices_and_baselines_stand_by_the_right_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores and labels that only the right rows explain: a slice or a baseline of other rows has another AUC."""
    folder = write_world(tmp_path / "world", users=60, items=40)
    path = folder / "test" / "part-00000.parquet"
    table = pq.read_table(path)
    user, item, device = (table[name].to_numpy() for name in ("user_index", "item_index", "device"))
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, len(table)).astype(np.float32)
    pq.write_table(table.set_column(table.column_names.index("label"), "label", pa.array(labels)), path)
    prepared = Prepared(folder)
    logits = rng.normal(size=len(table)) + labels
    examples = Examples(labels.astype(float), np.ones(len(table)), user)
    monkeypatch.setattr("recsys.evaluation.model.scores", lambda *_: {"label": Scored(examples, logits)})
    config = EvaluationConfig.model_validate(
        {"slices": [{"feature": "device"}, {"feature": "price", "edges": [15]}, {"feature": "user_id", "top": 20}]}
    )
    model = Ranker.__new__(Ranker)
    found = evaluate_model(model, prepared, "test", config)
    slices = found.measured["model"].slices
    names = prepared.users["user"].to_numpy()
    rows = {
        ("device", "d0"): device == 2,
        ("device", "d1"): device == 3,
        ("price", "< 15"): prepared.values("price")[item] < 15,
        ("price", ">= 15"): prepared.values("price")[item] >= 15,
        ("user_id", "other"): user >= 20,
        ("user_id", "u007"): user == 7,
    }
    for key, chosen in rows.items():
        assert slices[key].users.tolist() == sorted(names[user[chosen]]), key
        if len(set(labels[chosen])) == 2:
            auc = roc_auc_score(labels[chosen], logits[chosen])
            assert slices[key].values["auc"].mean() == pytest.approx(auc), key
    popularity = roc_auc_score(labels, prepared.train_count[item])
    assert found.metrics["popularity"]["auc"] == pytest.approx(popularity)
    assert abs(popularity - 0.5) > 0.01
    train = pq.read_table(folder / "train")
    rate = float(np.average(train["label"].to_numpy(), weights=train["weight"].to_numpy()))
    assert found.metrics["base_rate"]["logloss"] == pytest.approx(logloss(labels, np.full(len(labels), rate)))
