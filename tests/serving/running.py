"""A real server of a real supervisor, as a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

PATIENCE = 240.0
"""Seconds that a busy machine may take to load TensorFlow."""
T = TypeVar("T")


def eventually(look: Callable[[], T], what: str) -> T:
    """The first true thing that `look` sees."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {PATIENCE:.0f} s: {what}")


class Running:
    """`recsys serve PATH`, with a file of what it says."""

    def __init__(self, path: Path, log: Path, *options: str) -> None:
        self.log = log
        command = [
            sys.executable,
            "-c",
            "import sys; from recsys.cli import main; sys.exit(main())",
            "serve",
            str(path),
        ]
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                [*command, "--port", "0", *options], stdout=errors, stderr=errors, env=os.environ
            )

    def url(self) -> str:
        """Where it answers, once it does."""
        return f"http://{self._address('answers at http://')}"

    def grpc(self) -> str:
        """Likewise, TensorFlow Serving's gRPC."""
        return self._address("gRPC at ")

    def _address(self, before: str) -> str:
        def told() -> str:
            assert self.process.poll() is None, self.said()
            return re.split(r"[,\s]", self.said().partition(before)[2])[0]

        return eventually(told, "an address")

    def said(self) -> str:
        """Its log."""
        return self.log.read_text(encoding="utf-8")

    def processes(self, module: str) -> list[psutil.Process]:
        """Those of its processes that run a module of `serving`."""
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if any(word.endswith(f".{module}") for word in child.cmdline())]

    def end(self) -> int:
        """Its exit code, when told to end."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """What a test that failed leaves."""
        for child in psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []:
            child.kill()
        self.process.kill()
        self.process.wait()


def ready(client: httpx.Client) -> dict[str, Any]:
    """What `/readyz` says, ready or not."""
    found: dict[str, Any] = json.loads(client.get("/readyz").content)
    return found
