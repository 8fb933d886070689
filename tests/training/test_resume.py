"""kill -9 at any moment, then the same command: the same weights and metrics as an undisturbed run, bit for bit."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.training.trainees import finish, start
from tests.worlds import write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world") / "prepared", users=48, per_user=12)


@pytest.fixture(scope="module")
def undisturbed(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return finish(world, tmp_path_factory.mktemp("undisturbed"))


def kill_when(world: Path, run: Path, moment: Callable[[], bool], *options: str) -> bool:
    """Whether the process was still at work when it was killed."""
    process = start(world, run, *options)
    while process.is_alive() and not moment():
        time.sleep(0.0005)
    alive = process.is_alive()
    process.kill()
    process.join()
    return alive


def checkpoint_steps(run: Path) -> int:
    state = run / "checkpoints" / "checkpoint"
    return int(state.read_text().split("ckpt-")[1].split('"')[0]) if state.exists() else 0


def half_written(run: Path) -> bool:
    """Inside the writing of a checkpoint: its temporary data are there, its index is not."""
    return any((run / "checkpoints").glob("*tempstate*")) or any((run / "checkpoints").glob("*_temp"))


def test_an_undisturbed_run_repeats_exactly(world: Path, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    assert finish(world, tmp_path / "again") == undisturbed
    assert undisturbed["step"] > 20
    assert len({entry["loss"] for entry in undisturbed["history"]}) == len(undisturbed["history"])


def test_killed_at_five_moments_it_ends_with_the_same_bits(
    world: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    moments = random.Random(20)
    kills = 0
    for _ in range(4):
        done = checkpoint_steps(run)
        delay = moments.uniform(0.0, 0.4)
        seen = [0.0]

        def after_next_checkpoint(done: int = done, delay: float = delay, seen: list[float] = seen) -> bool:
            if checkpoint_steps(run) > done and not seen[0]:
                seen[0] = time.monotonic() + delay
            return bool(seen[0]) and time.monotonic() >= seen[0]

        kills += kill_when(world, run, after_next_checkpoint)
    kills += kill_when(world, run, lambda: half_written(run))
    assert kills == 5, "the process ended before it was killed: give the trainee more to do"
    assert half_written(run), "the last kill did not hit the writing of a checkpoint"
    assert not (run / "result.json").exists()
    assert finish(world, run) == undisturbed
    assert not half_written(run), "what the kill left lying about is gone"
