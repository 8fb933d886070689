"""Who may import whom: the contracts in pyproject.toml hold, and would be seen broken."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in ("recsys", "serving"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_the_import_law_holds() -> None:
    run = lint(ROOT)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "2 kept, 0 broken" in run.stdout


@pytest.mark.parametrize(
    ("offender", "code", "chain"),
    [
        ("recsys/data/offender.py", "from recsys.models import config", "recsys.data.offender -> recsys.models"),
        (
            "recsys/schema/offender.py",
            "def late():\n    from recsys.training import loop\n    return loop",
            "recsys.schema.offender -> recsys.training.loop",
        ),
        ("recsys/errors.py", "import recsys._compat", "recsys.errors -> recsys._compat"),
        ("serving/offender.py", "import recsys.data.config", "serving.offender -> recsys.data.config"),
        ("serving/offender.py", "import tf_keras", "serving.offender -> tf_keras"),
        ("recsys/bundle/offender.py", "import tensorflow_recommenders", "-> tensorflow_recommenders"),
    ],
)
def test_a_broken_law_is_seen(copy: Path, offender: str, code: str, chain: str) -> None:
    path = copy / offender
    path.write_text(f'"""Breaks the law."""\n{code}\n')
    if offender.startswith("recsys/bundle"):  # the server may import the bundle, but not Keras by way of it
        (copy / "serving" / "by_way_of.py").write_text("import recsys.bundle.offender\n")
    run = lint(copy)
    assert run.returncode == 1, run.stdout + run.stderr
    assert chain in run.stdout.replace("\n", " ")
