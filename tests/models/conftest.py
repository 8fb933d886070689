"""A small prepared folder, and its first batches."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys.data.prepared import Prepared
from tests.worlds import write_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """40 users like those of 30 items that have their own parity."""
    folder: Path = tmp_path_factory.mktemp("models") / "world"
    return Prepared(write_world(folder))
