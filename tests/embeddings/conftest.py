"""What the tests of tables share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.embeddings.methods import write_given


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the given vectors are."""
    path: Path = tmp_path_factory.mktemp("methods")
    write_given(path)
    return path
