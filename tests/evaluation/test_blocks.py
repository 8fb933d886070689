"""Examples of nobody in particular are measured in blocks."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from recsys.evaluation import pointwise
from recsys.evaluation.config import EvaluationConfig
from recsys.evaluation.pointwise import BLOCKS, Examples, blocks_of, user_values
from recsys.schema.config import SchemaConfig


def test_blocks_are_of_equal_size_and_as_many_as_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert blocks_of(3).tolist() == [0, 1, 2], "each its own"
    assert blocks_of(0).tolist() == []
    monkeypatch.setattr(pointwise, "BLOCKS", 4)
    assert blocks_of(10).tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]
    monkeypatch.undo()
    sizes = np.bincount(blocks_of(1_234_567))
    assert len(sizes) == BLOCKS
    assert set(sizes) == {61, 62}


def measured(examples: Examples, scores: np.ndarray) -> dict[str, tuple[float, float]]:
    """Each metric, and the width of its interval."""
    evidence = user_values(examples, scores).evidence(np.array([f"block {n:05d}" for n in range(40_000)]))
    return {name: (each.estimate, each.high - each.low) for name, each in evidence.intervals().items()}


def test_there_are_no_histories_to_slice_by() -> None:
    config = EvaluationConfig.model_validate({"slices": [{"kind": "in_history"}]})
    schema = SchemaConfig.model_validate({"user": None, "item": None, "features": {}})
    ((key, text),) = config.problems(schema)
    assert key == ("slices", "0")
    assert "no histories without schema.user and schema.item; remove it" in text
    assert list(EvaluationConfig().problems(schema)) == [], "the default slices are left out, being empty"


def test_blocks_give_the_metric_itself_and_the_interval_of_single_examples() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(40_000) < 0.3).astype(float)
    scores = 1 / (1 + np.exp(-rng.normal(labels, 1)))
    weights = rng.integers(1, 4, len(labels)).astype(float)
    one_by_one = Examples(labels, weights, np.arange(len(labels)), in_blocks=True)
    in_blocks = Examples(labels, weights, np.arange(len(labels)) // 20, in_blocks=True)
    single, blocks = (measured(each, scores) for each in (one_by_one, in_blocks))
    assert set(single) == set(blocks) == {"auc", "logloss", "normalized_entropy"}, "no gauc"
    assert blocks["auc"][0] == pytest.approx(roc_auc_score(labels, scores, sample_weight=weights))
    for name, (estimate, width) in blocks.items():
        assert estimate == pytest.approx(single[name][0])
        assert width == pytest.approx(single[name][1], rel=0.1)
    assert "gauc" in user_values(Examples(labels, weights, in_blocks.users), scores).values, "with users there is one"
