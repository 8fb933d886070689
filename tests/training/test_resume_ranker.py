"""A ranker, killed inside epochs: its streaming metrics, and what bfloat16 and XLA compute, go on exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.training.test_resume import checkpoint_steps, kill_when
from tests.training.trainees import finish
from tests.worlds import write_world

OPTIONS = ("model=ranker", "epochs=2", "every=4")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world") / "prepared", users=48, per_user=12, negatives=0.5)


@pytest.fixture(scope="module")
def undisturbed(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return finish(world, tmp_path_factory.mktemp("undisturbed"), *OPTIONS)


def killed_twice(world: Path, run: Path, *options: str) -> dict[str, Any]:
    """What a run ends with that is killed after two checkpoints."""
    for _ in range(2):
        done = checkpoint_steps(run)
        assert kill_when(world, run, lambda done=done: checkpoint_steps(run) > done, *options)
    return finish(world, run, *options)


def test_the_metrics_of_an_epoch_go_on_inside_it(world: Path, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    """AUC and logloss: the sums of the batches before the kill are in the checkpoint."""
    first, second = undisturbed["history"]
    assert {"loss", "auc", "logloss", "val_auc", "val_logloss"} <= first.keys()
    assert 0.3 < second["auc"] < 1
    assert second["auc"] != first["auc"]
    # Without an auxiliary head, and with weights of 1, the loss is the logloss.
    assert second["logloss"] == pytest.approx(second["loss"], rel=1e-5)
    assert killed_twice(world, tmp_path, *OPTIONS) == undisturbed


def test_bfloat16_and_xla_resume_exactly(world: Path, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    options = (*OPTIONS, "precision=mixed_bfloat16", "xla=true")
    whole = finish(world, tmp_path / "undisturbed", *options)
    assert killed_twice(world, tmp_path / "run", *options) == whole
    assert whole["digest"] != undisturbed["digest"]
