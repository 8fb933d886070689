"""A ranker whose state is everywhere: Dice's moving moments, rows that decay by their counts, dropout by the step."""

from __future__ import annotations

from pathlib import Path

from tests.training.test_resume import checkpoint_steps, kill_when
from tests.training.trainees import finish
from tests.worlds import write_world


def test_din_with_dice_and_mini_batch_aware_decay_resumes_exactly(tmp_path: Path) -> None:
    """Killed inside an epoch; the digest covers every variable of the model and of both optimizers."""
    world = write_world(tmp_path / "prepared", users=48, per_user=12, negatives=0.5)
    options = ("model=din", "epochs=2", "every=4")
    whole = finish(world, tmp_path / "undisturbed", *options)
    steps_per_epoch = whole["step"] // 2
    run = tmp_path / "run"
    assert kill_when(world, run, lambda: checkpoint_steps(run) > 0, *options)
    assert checkpoint_steps(run) % steps_per_epoch > 0, "killed at an epoch's end: nothing inside it was tried"
    assert finish(world, run, *options) == whole
    moving = [values for name, values in whole["dense"].items() if "dice" in name]
    assert moving, "Dice is there"
