"""A query tower that learns from windows of histories: killed inside an epoch, it ends with the same bits."""

from __future__ import annotations

from pathlib import Path

from tests.training.test_resume import checkpoint_steps, kill_when
from tests.training.trainees import finish
from tests.worlds import write_world


def test_a_transformer_on_windows_resumes_exactly(tmp_path: Path) -> None:
    """Dropout inside the transformer goes by the step, the windows' order by the epoch."""
    world = write_world(tmp_path / "prepared", users=48, per_user=12)
    options = ("model=transformer", "epochs=2", "every=4", "batch=8")
    whole = finish(world, tmp_path / "undisturbed", *options)
    steps_per_epoch = whole["step"] // 2
    run = tmp_path / "run"
    assert kill_when(world, run, lambda: checkpoint_steps(run) > 0, *options)
    assert checkpoint_steps(run) % steps_per_epoch > 0, "killed at an epoch's end: nothing inside it was tried"
    assert finish(world, run, *options) == whole
