"""`recsys serve` as a process of its own."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from recsys.cli import main

PATIENCE = 120.0
"""Seconds that a busy machine may take to load TensorFlow."""


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture
def server(tiny_bundle: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", "import sys; from recsys.cli import main; sys.exit(main())"]
    process = subprocess.Popen(
        [*command, "serve", str(tiny_bundle), "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


def wait_until_ready(server: subprocess.Popen[str], url: str) -> httpx.Response:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and server.poll() is None:
        try:
            return httpx.get(url, timeout=PATIENCE)
        except httpx.ConnectError:
            time.sleep(0.2)
    raise AssertionError(f"not ready (exit {server.poll()}): {server.communicate(timeout=5)[1]}")


def test_a_server_answers_and_ends_when_told(server: subprocess.Popen[str], port: int) -> None:
    url = f"http://127.0.0.1:{port}"
    health = wait_until_ready(server, f"{url}/healthz")
    assert health.json() == {"status": "ok", "bundle": {"name": "tiny", "version": 1}, "catalogue_size": 6}
    answer = httpx.post(f"{url}/v1/recommend", json={"user": "1", "k": 1}, timeout=PATIENCE)
    assert [item["item"] for item in answer.json()["items"]] == ["日本"]
    server.send_signal(signal.SIGTERM)
    _, errors = server.communicate(timeout=PATIENCE)
    assert server.returncode in (0, -signal.SIGTERM)
    assert url in errors
    assert "Application shutdown complete" in errors
    assert "Traceback" not in errors


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
