"""The study of retrieval: its linear models by their equations, its configs, and what its page is made of."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import sparse

from recsys.config.load import load
from recsys.data.prepared import Prepared
from recsys.evaluation.config import EvaluationConfig
from recsys.evaluation.record import RunRecord
from recsys.experiment_config import ExperimentConfig
from recsys.ragged import Ragged
from tests.worlds import write_world

ROOT = Path(__file__).parents[1]
RNG = np.random.default_rng(0)
X = (RNG.random((12, 6)) < 0.4).astype(np.float32)


@pytest.fixture
def linear(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import linear_models

    return linear_models


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import retrieval

    return retrieval


def test_ease_is_the_least_squares_of_each_item_by_the_others(linear: ModuleType) -> None:
    """Without the closed form: for each item a ridge regression on the other columns."""
    scores = linear.ease(sparse.csr_array(X), 2.0)
    weights = scores(sparse.csr_array(np.eye(6, dtype=np.float32)))
    for item in range(6):
        others = np.delete(np.arange(6), item)
        a = X[:, others].astype(float)
        expected = np.linalg.solve(a.T @ a + 2.0 * np.eye(5), a.T @ X[:, item])
        np.testing.assert_allclose(weights[others, item], expected, atol=1e-4)
        assert weights[item, item] == 0


def test_ials_ends_where_its_objective_is_least_for_every_user(linear: ModuleType) -> None:
    """Σ over what was met (s - 1)² + α Σ over all s² + λ (n + α N) |u|² has no gradient at the users' vectors."""
    items = RNG.normal(size=(6, 3))
    users = linear._solved(sparse.csr_array(X), items, 0.2, 0.1)
    for row, user in zip(X, users, strict=True):
        scores, met = items @ user, row > 0
        gradient = (scores[met] - 1) @ items[met] + 0.2 * scores @ items + 0.1 * (met.sum() + 0.2 * 6) * user
        np.testing.assert_allclose(gradient, 0.0, atol=1e-8)


def test_dense_scores_are_ranked_without_what_is_excluded(linear: ModuleType) -> None:
    table = RNG.normal(size=(12, 6)).astype(np.float32)
    ranked = linear.ByScores(lambda met: table[: met.shape[0]].copy(), sparse.csr_array(X))
    exclude = Ragged.from_lists([[0, 1, 2], list(range(6)), []])
    found = ranked.recommend(np.arange(3), 8, exclude)
    assert found[0, :3].tolist() == [3 + n for n in np.argsort(-table[0, 3:])]
    assert (found[0, 3:] == -1).all()
    assert (found[1] == -1).all()
    assert found[2, :6].tolist() == np.argsort(-table[2]).tolist()


def test_baselines_are_chosen_on_validation_and_measured_on_test(linear: ModuleType, tmp_path: Path) -> None:
    """Users like items of their own parity: both find them."""
    world = Prepared(write_world(tmp_path / "world"))
    found = linear.tuned(world, EvaluationConfig(ks=(5, 10)), "ndcg@10")
    assert set(found) == {"ease", "ials"}
    for each in found.values():
        best = max(each["validation"].values())
        assert each["validation"][each["settings"]] == best
        assert each["metrics"]["recall@10"] > 10 / 30


def test_every_run_of_the_study_is_a_sound_config(study: ModuleType) -> None:
    runs = study.plan()
    assert len({run.path for run in runs}) == len(runs) == 15
    for name in study.DATA:
        assert load(ROOT / "configs" / f"{name}.yaml", ExperimentConfig, []).config.model.kind == "two_tower"


def test_the_page_ranks_what_was_measured_and_published(
    study: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    assert study.section().startswith("Not run yet")
    stored = RunRecord.read(ROOT / "benchmarks" / "results" / "retrieval" / "movielens-1m" / "movielens-1m-seed0.json")
    (beside,) = (
        each
        for each in stored.differences
        if (each.run, each.against, each.metric, each.slice) == ("model", "popularity", "ndcg@10", "")
    )
    for seed, value in ((0, 0.034), (1, 0.036)):
        metrics = {
            "model": {"recall@10": 2 * value, "ndcg@10": value},
            "item_knn": {"recall@10": 0.02, "ndcg@10": 0.004},
            "popularity": {"recall@10": 0.01, "ndcg@10": 0.005},
        }
        own = beside.model_copy(update={"difference": (-0.001, 0.003)[seed], "real": True})
        others = ({"slice": "head"}, {"against": "item_knn"}, {"run": "ease"}, {"metric": "mrr@10"})
        differences = (own, *(own.model_copy(update={**each, "difference": 1.0}) for each in others))
        record = stored.model_copy(update={"seed": seed, "metrics": metrics, "differences": differences})
        record.write(tmp_path / "amazon-beauty-sasrec" / f"amazon-beauty-sasrec-seed{seed}.json")
    linear = {"ease": {"metrics": {"recall@10": 0.05, "ndcg@10": 0.03}}}
    (tmp_path / "amazon-beauty-sasrec" / "linear.json").write_text(json.dumps(linear))
    lines = study.section().splitlines()
    assert "seeds 0, 1" in lines[0]
    ranked = [line.split(" | ")[0].removeprefix("| ") for line in lines if line.startswith("| ")][2:]
    expected = ["TIGER, as published", "`configs/amazon-beauty-sasrec.yaml`", "SASRec, as published"]
    assert ranked == [*expected, "*EASE*", "*popularity*", "*item-kNN*"]
    assert "| 0.0350 ± 0.0014 |" in study.section()
    assert lines[-1] == "User by user beside popularity: ndcg@10 +0.0010 (real: above in 1, below in 1 of 2 runs)."
