"""A Redis server of the tests' own, on a Unix socket."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.conftest import Require


class RedisServer:
    """A process that can be stopped and started again; it keeps what it has on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}"

    def start(self) -> None:
        command = ["redis-server", "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self._folder)]
        command += ["--appendonly", "yes", "--save", ""]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        client = redis.Redis(unix_socket_path=str(self.socket))
        while True:
            assert self._process.poll() is None, "redis-server ended"
            try:
                client.ping()
            except redis.ConnectionError:  # not listening yet, or loading what it has
                continue
            break
        client.close()

    def stop(self) -> None:
        """Kill it, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self.socket.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def redis_server(require: Require) -> Iterator[RedisServer]:
    require(shutil.which("redis-server"), "redis-server is not installed")
    folder = Path(tempfile.mkdtemp(prefix="redis-"))  # a socket's path must be short
    server = RedisServer(folder)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)
