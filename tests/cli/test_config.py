"""`recsys config check | show | schema`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from recsys.cli import main
from recsys.config.base import Config
from recsys.config.digest import digest
from recsys.config.load import load
from recsys.data.config import DataConfig
from recsys.schema.config import SchemaConfig

GOOD = """\
columns: {user: user, item: item, features: {movie: {kind: categorical, role: item, encoding: {kind: hash}}}}
data: {source: {kind: files, events: "${DATA:-a}/x.parquet"}}
"""


class Composed(Config):
    """A stand-in for the experiment's config."""

    columns: SchemaConfig
    data: DataConfig


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "recsys.experiment_config", SimpleNamespace(ExperimentConfig=Composed))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "c.yaml").write_text(GOOD)
    return tmp_path / "c.yaml"


Streams = pytest.CaptureFixture[str]


def test_check(path: Path, capsys: Streams) -> None:
    assert main(["config", "check", str(path)]) == 0
    found = digest(load(path, Composed).config)
    assert capsys.readouterr().out == f"{path} is sound (digest {found[:12]})\n"
    assert main(["config", "check", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(path), "digest": found}


def test_check_names_every_mistake(path: Path, capsys: Streams) -> None:
    assert main(["config", "check", str(path), "--set", "data.seed=x", "--set", "colums.user=u"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        'error: --set data.seed: "x"; expected an integer',
        "error: --set colums.user: colums: unknown key; did you mean `columns`?",
    ]
    path.write_text(GOOD.replace("kind: files", "kind: flies"))
    assert main(["config", "check", str(path), "--json"]) == 1
    (error,) = json.loads(capsys.readouterr().out)["error"]
    assert error["place"] == f"{path}:2: data.source.kind"
    assert error["cure"] == "did you mean `files`?"


def test_check_without_a_file(tmp_path: Path, capsys: Streams) -> None:
    assert main(["config", "check", str(tmp_path / "none.yaml")]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path}/none.yaml: no such file; expected a YAML file\n"


def test_show_is_a_config_of_the_same_digest(
    path: Path, capsys: Streams, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DATA", "/some/where")
    assert main(["config", "show", str(path), "--set", "data.seed=7"]) == 0
    shown = capsys.readouterr().out
    assert "events: /some/where/x.parquet" in shown
    assert "rows_per_group: 65536" in shown
    (tmp_path / "shown.yaml").write_text(shown)
    again = load(tmp_path / "shown.yaml", Composed).config
    assert again == load(path, Composed, ["data.seed=7"]).config
    assert shown.startswith(f"# digest: {digest(again)}\n")
    assert main(["config", "show", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["data"]["seed"] == 0


def test_schema_is_json_schema(capsys: Streams) -> None:
    assert main(["config", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["$schema"].endswith("2020-12/schema")
    assert set(schema["properties"]) == {"include", "columns", "data"}
    role = schema["$defs"]["Categorical"]["properties"]["role"]
    assert role["description"] == "Whom the feature describes: user, item or context."


@pytest.mark.parametrize(("command", "code"), [("check", 1), ("show", 1), ("schema", 0)])
def test_no_tensorflow(command: str, code: int, tmp_path: Path) -> None:
    """The experiment's own config class, in a process of its own."""
    (tmp_path / "c.yaml").write_text("data: {}\n")
    arguments = ["config", command] + ([] if command == "schema" else [str(tmp_path / "c.yaml")])
    program = f"""
import sys
from recsys.cli import main
code = main({arguments!r})
assert code == {code}, code
assert "recsys.experiment_config" in sys.modules
heavy = {{"tensorflow", "tf_keras", "ibis", "pandas", "pyarrow"}} & set(sys.modules)
assert not heavy, heavy
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
