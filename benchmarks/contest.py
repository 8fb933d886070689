"""What the benchmarks of training speed share: contenders in processes and environments of their own, and how much of
the machine others took meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import IO, Any, NamedTuple, Self

import psutil

from recsys.data.cache import cache_dir
from recsys.files import draft_folder

HERE = Path(__file__).parent
QUIET = 0.05
"""Share of the machine's cores that others may take."""


class Time(NamedTuple):
    """Of a step."""

    seconds: float
    cpu: float
    """Seconds of work, over all threads: it hardly depends on what else runs on the machine."""


@dataclass
class Contender:
    """A process that trains when it is told to."""

    name: str
    arguments: list[str]
    """Of its Python: the module, and what that is to do."""
    python: Callable[[], str] = lambda: sys.executable
    largest: int = 2**63 - 1
    """Tables of more rows are left out."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that it needs."""
    versions: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> Self:
        # Threads that spin while they wait would take the cores from the contender whose turn it is.
        quiet = {"OMP_WAIT_POLICY": "passive", "TF_CPP_MIN_LOG_LEVEL": "2"}
        self._process = subprocess.Popen(
            [self.python(), "-m", *self.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **quiet, **self.environment},
            cwd=HERE,
        )
        self.versions = json.loads(_line(self._process.stdout, self.name))
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def ask(self, question: Mapping[str, Any]) -> dict[str, float]:
        """What it answers to a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer: dict[str, float] = json.loads(_line(self._process.stdout, self.name))
        return answer


def _line(stream: IO[str] | None, name: str) -> str:
    """The next line of JSON: some libraries greet on stdout."""
    for line in stream or ():
        if line.startswith("{"):
            return line
    raise SystemExit(f"{name} ended before its time; what it said stands above")


def environment_of(peer: str) -> str:
    """The Python of a peer's environment, that of `peers/PEER/requirements.txt`, which is made when it is first needed.

    The CPU build of torch comes from PyTorch's own index, or from wherever UV_FIND_LINKS or PIP_FIND_LINKS point.
    """
    requirements = HERE / "peers" / peer / "requirements.txt"
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    environment = cache_dir().absolute() / "benchmarks" / f"{peer}-{digest}"
    if not environment.exists():
        uv = shutil.which("uv", path=f"{HERE.parent / '.uv' / 'bin'}:{os.environ.get('PATH', '')}")
        if uv is None:
            raise SystemExit(f"{peer} gets an environment of its own, and there is no uv to make it: pip install uv")
        links = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS")
        source = ["--find-links", links] if links else ["--torch-backend", "cpu"]
        environment.parent.mkdir(parents=True, exist_ok=True)
        with draft_folder(environment) as draft:
            made = draft / "environment"
            subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(made)], check=True)
            install = [uv, "pip", "install", "--quiet", "--python", str(made), "--no-deps", "--requirements"]
            subprocess.run([*install, str(requirements), *source], check=True)
            made.rename(environment)
    return str(environment / "bin" / "python")


@dataclass
class Load:
    """What others took of the machine's cores, as a share."""

    share: float = 0.0


@contextmanager
def others() -> Iterator[Load]:
    """Measures while the block runs what processes that are not ours do, and other virtual machines."""
    load, before, mine, start = Load(), _busy(), _own(), monotonic()
    try:
        yield load
    finally:
        cores = psutil.cpu_count() or 1
        load.share = max(0.0, (_busy() - before - (_own() - mine)) / (monotonic() - start) / cores)


def _busy() -> float:
    times = psutil.cpu_times()._asdict()
    # user holds guest, nice holds guest_nice.
    return sum(seconds for kind, seconds in times.items() if kind not in {"idle", "iowait", "guest", "guest_nice"})


def _own() -> float:
    """CPU seconds of this process and its children, the finished ones too."""
    this = psutil.Process()
    mine, children = this.cpu_times(), [child.cpu_times() for child in this.children(recursive=True)]
    return float(sum(mine[:4]) + sum(sum(times[:2]) for times in children))
