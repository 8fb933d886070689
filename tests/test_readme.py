"""What the README shows is so: its YAML, its Python, its commands and its figures."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from recsys.config.load import load
from recsys.experiment_config import ExperimentConfig
from tests.documented import CLI, blocks, commands, must_parse

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_yaml_is_sound(tmp_path: Path) -> None:
    (block,) = blocks(README, "yaml")
    path = tmp_path / "shop.yaml"
    path.write_text(block, encoding="utf-8")
    config = load(path, ExperimentConfig, ["model.query.dropout=0.2"]).config
    assert config.name == "shop"
    assert config.model.kind == "two_tower"
    assert config.model.query.dropout == 0.2
    assert block.count("\n") <= 50, "one screen"


def test_every_command_is_named() -> None:
    named = {shlex.split(command)[1] for command in commands(README)}
    assert named == set(CLI.commands), "the README names every command"


@pytest.mark.parametrize("command", sorted(set(commands(README))))
def test_a_command_takes_these_arguments(command: str) -> None:
    must_parse(command)


def test_the_python_runs(tmp_path: Path) -> None:
    (block,) = blocks(README, "python")
    template = (ROOT / "recsys" / "cli" / "_quickstart" / "simulated.yaml").read_text(encoding="utf-8")
    small = template.replace("users: 2000, items: 1000, events: 100000", "users: 200, items: 100, events: 5000")
    assert small != template
    (tmp_path / "quickstart.yaml").write_text(small, encoding="utf-8")
    run = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    metrics, items = run.stdout.splitlines()
    assert all(0 < float(value) < 1 for value in metrics.split())
    assert items.count("Recommended(") == 5


def test_the_figures_are_the_records() -> None:
    """`python benchmarks/table.py --write` makes them so."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from table import MARKS, marked, tables
    finally:
        sys.path.pop(0)
    assert README.count(MARKS[0]) == README.count(MARKS[1]) == 1
    assert marked(README)[1] == tables()


def test_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_the_architecture_names_modules_that_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    paths = set(re.findall(r"`((?:\w+/)+\w+\.py)`", text))
    assert len(paths) > 10
    assert not [path for path in paths if not any((root / path).is_file() for root in (ROOT / "recsys", ROOT))]
