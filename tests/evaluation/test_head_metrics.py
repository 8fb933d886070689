"""Further heads by the examples whose label is known; users and labels of one class; label checks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from recsys.data.prepared import Prepared
from recsys.errors import DataError
from recsys.evaluation.evidence import Evidence
from recsys.evaluation.heads import Scored, beside, head_doubts, head_metrics
from recsys.evaluation.labels import check_labels
from recsys.evaluation.pointwise import Examples, evaluate_ranking, user_values
from tests.worlds import write_world

RNG = np.random.default_rng(0)
USERS = RNG.integers(0, 20, 400)
LABELS = RNG.choice([0.0, 1.0, np.nan], 400)
LABELS[USERS == 7] = np.nan
WEIGHTS = RNG.uniform(0, 2, 400)
LOGITS = RNG.normal(size=400)
NAMES = np.array([f"u{n:02}" for n in range(20)])
KNOWN = ~np.isnan(LABELS)


def scored(labels: np.ndarray, weights: np.ndarray = WEIGHTS) -> Scored:
    return Scored(Examples(labels, weights, USERS), LOGITS).known()


def test_metrics_are_those_of_the_known_examples() -> None:
    found = head_metrics({"loved": scored(LABELS)})
    p = 1 / (1 + np.exp(-LOGITS[KNOWN]))
    y, w = LABELS[KNOWN], WEIGHTS[KNOWN]
    assert found["loved.auc"] == pytest.approx(roc_auc_score(y, p, sample_weight=w))
    assert found["loved.logloss"] == pytest.approx(log_loss(y, p, sample_weight=w))
    assert found["loved.base_rate"] == pytest.approx(np.average(y, weights=w))
    assert found.keys() == {f"loved.{name}" for name in evaluate_ranking(y, p, w, USERS[KNOWN])}
    assert not list(head_doubts({"loved": scored(LABELS)}))


def test_evidence_has_every_head_s_values_of_its_users() -> None:
    """User 7 has no known label, and weighs nothing in the head's metrics; the main ones stay as they are."""
    main = scored(np.arange(400) % 2.0)
    whole = user_values(main.examples, main.probabilities).evidence(NAMES)
    found = beside(whole, {"loved": scored(LABELS)}, NAMES)
    assert isinstance(found, Evidence)
    metrics = head_metrics({"loved": scored(LABELS)})
    for name in ("auc", "gauc", "logloss", "normalized_entropy"):
        np.testing.assert_array_equal(found.values[name], whole.values[name])
        weight, values = found.weight(f"loved.{name}"), found.values[f"loved.{name}"]
        assert weight[7] == 0
        there = weight > 0
        assert np.average(values[there], weights=weight[there]) == pytest.approx(metrics[f"loved.{name}"])
    assert found.intervals()["loved.auc"].high <= 1


def test_what_cannot_be_measured_is_said() -> None:
    heads = {
        "ones": scored(np.where(KNOWN, 1.0, np.nan)),
        "none": scored(np.full(400, np.nan)),
        "loved": scored(LABELS),
    }
    assert [name for name in head_metrics(heads) if not name.startswith("loved.")] == ["ones.logloss", "ones.base_rate"]
    first, second = head_doubts(heads)
    assert first == f"label 'ones' is 1 in all {KNOWN.sum()} examples: there is no ones.auc"
    assert second == "label 'none' is known of no example: nothing is measured of its head"
    light = {"light": scored(LABELS, np.zeros(400))}
    assert not head_metrics(light)
    assert len(list(head_doubts(light))) == 1


def test_users_of_one_class_have_no_part_in_gauc() -> None:
    """User 0: AUC 1 of 2 examples; user 1: AUC 0 of 3; users 2 and 3 have one class."""
    users = np.array([0, 0, 1, 1, 1, 2, 2, 3])
    labels = np.array([1.0, 0, 1, 0, 0, 1, 1, 0])
    p = np.array([0.9, 0.1, 0.2, 0.5, 0.6, 0.3, 0.4, 0.5])
    assert evaluate_ranking(labels, p, users=users)["gauc"] == pytest.approx((2 * 1 + 3 * 0) / 5)
    alone = evaluate_ranking(labels, p, users=np.arange(8))
    assert "gauc" not in alone
    assert "auc" in alone


def test_parts_that_need_both_labels(tmp_path: Path) -> None:
    """The world's labels are all 1: enough for a two-tower model, not for a ranker."""
    world = Prepared(write_world(tmp_path / "world", users=6))
    check_labels(world)
    with pytest.raises(DataError) as caught:
        check_labels(world, both=("train", "test"))
    assert [problem.place for problem in caught.value.problems] == ["world: train", "world: test"]
