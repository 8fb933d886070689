"""`recsys quickstart` without MovieLens and network: the newcomer's first minute, and the longest test."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest
import yaml

from recsys.bundle import Bundle
from recsys.cli import main
from recsys.evaluation.record import RunRecord
from tests.trained import recsys


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every download goes to a port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{taken.getsockname()[1]}"
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy)
    for name in ("no_proxy", "NO_PROXY", "RECSYS_DATA"):
        monkeypatch.delenv(name, raising=False)


def test_without_data_and_network_it_simulates_and_recommends(no_network: None, tmp_path: Path) -> None:
    done = recsys(tmp_path, "quickstart", RECSYS_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    (note,) = [line for line in done.stderr.splitlines() if "MovieLens" in line]
    assert "simulating users instead" in note
    assert yaml.safe_load((tmp_path / "quickstart.yaml").read_text())["data"]["source"]["kind"] == "simulated"

    out = done.stdout
    sections = re.split(r"^User (\S+)$", out, flags=re.MULTILINE)
    assert len(sections) == 7, "three users are shown"
    for table in sections[2::2]:
        titles = re.findall(r"Item \d+ of category \d+\s*$", table, flags=re.MULTILINE)
        assert len(titles) == 8, "eight recommendations each"
    assert re.search(r"embedding tables [0-9.]+ MB, bundle [0-9.]+ MB on disk", out)
    assert "wrote quickstart.yaml\nwrote runs/quickstart/bundle/1\nwrote runs/quickstart/report.html\n" in out

    run = tmp_path / "runs" / "quickstart"
    metrics = RunRecord.read(run / "metrics.json").metrics
    assert metrics["model"]["recall@10"] > 1.3 * metrics["popularity"]["recall@10"], "the first impression"
    assert Bundle.load(run).manifest.name == "quickstart"
    assert {path.name for path in tmp_path.iterdir()} == {"quickstart.yaml", "runs", "cache"}

    command = next(line.split() for line in out.split("next:")[1].splitlines() if "recsys recommend" in line)
    shown = recsys(tmp_path, *command[1:], RECSYS_CACHE=os.devnull)
    assert shown.returncode == 0, shown.stderr
    assert "quickstart 1 recommends" in shown.stdout, "the first command that it proposes works as printed"


def test_a_yaml_that_is_there_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart.yaml").write_text("name: mine\n")
    assert main(["quickstart"]) == 1
    err = capsys.readouterr().err
    assert "quickstart.yaml:1: data: the key is missing" in err
    assert (tmp_path / "quickstart.yaml").read_text() == "name: mine\n"
