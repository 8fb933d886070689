"""`recsys serve` and what is wrong with its command line; `tests/serving/test_server.py` has a server that runs."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from recsys.cli import main


def test_a_port_that_is_taken(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", str(tiny_bundle), "--port", str(port)]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: 127.0.0.1:{port}: cannot be served on")
    assert "choose another port" in last


def test_a_bundle_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path)]) == 1
    assert "holds no manifest.json" in capsys.readouterr().err


def test_keys_that_are_none(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "serving.yaml").write_text("limits: {keys: keys.txt}\n", encoding="utf-8")
    assert main(["serve", str(tiny_bundle), "--config", str(tmp_path / "serving.yaml"), "--port", "0"]) == 1
    assert f"{tmp_path / 'keys.txt'}: cannot be read" in capsys.readouterr().err
