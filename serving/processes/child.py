"""What all processes of a server share: how they are started, how they log, how they end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus_client keeps the counts of all processes (see `serving.web.metrics`)."""
GRACE, LATER = 15.0, 5.0
"""Seconds that requests may take to end in a process that is told to, and after which it is killed if it has not."""

SHORTEST, LONGEST = 0.1, 10.0
"""Seconds before a process that died is started again."""
LONG_LIFE = 60.0
"""Seconds after which a death is none of a series."""


def log_to_stderr() -> None:
    """A line an event, with the process that it is of."""
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s",
    )


def end_with_parent() -> None:
    """Told to end (SIGTERM) when standard input ends: with the process that holds the other end, however it dies."""

    def wait() -> None:
        os.read(0, 1)  # not by sys.stdin, whose lock would stand in the way of an ordinary end
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()


async def start(module: str, launch: Path, inherit: Sequence[int] = ()) -> Process:
    """A fresh interpreter that runs a module of this package, with the path of a file that says what to do: spawned,
    never forked, as nothing may be forked once TensorFlow has threads. In a session of its own: Ctrl-C on a terminal
    goes to the supervisor alone.
    """
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        str(launch),
        stdin=PIPE,
        stdout=PIPE,
        pass_fds=inherit,
        start_new_session=True,
        env={**os.environ, METRICS_FOLDER: str(launch.parent)},
    )


async def end(process: Process) -> None:
    """Told to end, and killed where it has not."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), GRACE + LATER)
    except TimeoutError:
        process.kill()
        await process.wait()


class Backoff:
    """Pauses before something is started again: longer each time, unless it has lived long."""

    def __init__(self) -> None:
        self._since, self._pause = monotonic(), 0.0

    async def pause(self) -> None:
        """From a tenth of a second to ten."""
        lived = monotonic() - self._since
        self._pause = SHORTEST if lived > LONG_LIFE else min(max(2 * self._pause, SHORTEST), LONGEST)
        await asyncio.sleep(self._pause)
        self._since = monotonic()
