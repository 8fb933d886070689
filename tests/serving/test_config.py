"""`serving.yaml`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from recsys.errors import ConfigError
from serving.config import ServingConfig
from serving.features import SqliteStoreConfig
from tests.documented import blocks

ROOT = Path(__file__).parents[2]


def test_the_documented_yaml_is_sound(tmp_path: Path) -> None:
    (block,) = blocks((ROOT / "docs/how-to/answers.md").read_text(encoding="utf-8"), "yaml")
    (tmp_path / "serving.yaml").write_text(block)
    config = ServingConfig.load(tmp_path / "serving.yaml")
    assert set(config.model_dump(exclude_unset=True)) >= ServingConfig.model_fields.keys()
    assert config.rules is not None
    assert (config.grpc_port, config.rules.banned, config.budgets.rank) == (8501, ("811",), 100)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    text = "limits: {keys: keys.txt}\nfeatures: {path: users.db}\nlog: {folder: log}\njournal: kept\n"
    (tmp_path / "serving.yaml").write_text(text)
    config = ServingConfig.load(tmp_path / "serving.yaml")
    assert config.limits.keys == str(tmp_path / "keys.txt")
    assert config.log is not None
    assert (config.log.folder, config.journal) == (str(tmp_path / "log"), str(tmp_path / "kept"))
    assert isinstance(config.features, SqliteStoreConfig)
    assert config.features.path == str(tmp_path / "users.db")
    (tmp_path / "serving.yaml").write_text("features: {kind: redis, url: 'redis://localhost'}\n")
    assert ServingConfig.load(tmp_path / "serving.yaml").limits.keys is None


def test_mistakes_name_the_line_and_the_cure(tmp_path: Path) -> None:
    path = tmp_path / "serving.yaml"
    path.write_text("port: '8500'\ncandidate: 10\nbudgets:\n  rank: 0\nfeatures: {kind: mysql}\n")
    with pytest.raises(ConfigError) as caught:
        ServingConfig.load(path)
    lines = [str(problem) for problem in caught.value.problems]
    assert [line.partition(": ")[0] for line in lines] == [f"{path}:{n}" for n in (1, 2, 4, 5)]
    assert "did you mean `candidates`?" in lines[1]
    with pytest.raises(ConfigError, match=r"no\.yaml"):
        ServingConfig.load(tmp_path / "no.yaml")


def test_it_needs_no_tensorflow() -> None:
    code = "import sys, serving.config; assert not {'tensorflow', 'scann'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
