"""Prepared folders to look for leaks in."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.evaluation.spoiling import World, prepared


@pytest.fixture(scope="session")
def sound(tmp_path_factory) -> Callable[[str], Path]:
    """The sound folder of each split, prepared once."""
    done: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in done:
            done[name] = prepared(tmp_path_factory.mktemp("sound") / "world", name)
        return done[name]

    return folder


@pytest.fixture
def world(sound, tmp_path) -> Callable[[str], World]:
    """A copy to spoil."""
    return lambda name: World(Path(shutil.copytree(sound(name), tmp_path / "spoiled")))
