"""Model processes: starting one, and which of them answers."""

from __future__ import annotations

import asyncio
import json
import os
from asyncio.subprocess import Process
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Self

from recsys.errors import BundleError, Problem
from recsys.files import write_text
from serving.about import Loaded
from serving.config import ServingConfig
from serving.messages import BundleName
from serving.processes.child import end, start
from serving.processes.launch import ModelLaunch

PATIENCE = 600.0
"""Seconds that a model process may take to load."""
_numbers = count(1)


@dataclass(frozen=True, eq=False)
class ModelProcess:
    """One that is ready."""

    process: Process
    bundle: Path
    socket: Path
    name: BundleName
    loaded: Loaded

    @classmethod
    async def start(cls, bundle: Path, workplace: Path, config: ServingConfig, *, quiet: bool) -> Self:
        """Start one and wait until it is ready. `quiet`: at low priority.

        Raises:
            BundleError: it is not sound, or takes too long.
        """
        file = f"model-{next(_numbers)}"
        socket, launch = workplace / f"{file}.sock", workplace / f"{file}.json"
        write_text(
            launch, ModelLaunch(bundle=str(bundle), socket=str(socket), config=config, quiet=quiet).model_dump_json()
        )
        try:
            process = await start("serving.processes.model_process", launch)
        except OSError as error:
            raise BundleError(
                str(bundle), f"no process can be started ({error})", "room for one", "see the log"
            ) from error
        try:
            name, loaded = await _ready(process, bundle)
        except BaseException:
            if process.returncode is None:
                process.kill()
            await process.wait()
            raise
        return cls(process, bundle, socket, name, loaded)

    async def end(self) -> None:
        """Let it finish what it has begun; its clients are told to go elsewhere."""
        await end(self.process)


async def _ready(process: Process, bundle: Path) -> tuple[BundleName, Loaded]:
    assert process.stdout is not None  # a pipe: see `start`
    try:
        line = await asyncio.wait_for(process.stdout.readline(), PATIENCE)
    except TimeoutError:
        raise BundleError(str(bundle), f"is not ready after {PATIENCE:.0f} s", "", "see the log") from None
    if not line:
        raise BundleError(
            str(bundle), f"its process ended while loading (exit {await process.wait()})", "", "see the log"
        )
    report = json.loads(line)
    if "refused" in report:
        raise BundleError(Problem(**problem) for problem in report["refused"])
    return BundleName.model_validate(report["ready"]), Loaded.model_validate(report["loaded"])


class ModelSlot:
    """The link by which web workers find the model process that answers."""

    def __init__(self, link: Path) -> None:
        self.link = link
        self.current: ModelProcess | None = None

    def give(self, process: ModelProcess) -> None:
        """Have it answer from now on. Connections to another stay until that one ends them."""
        draft = self.link.with_suffix(".new")
        with suppress(FileNotFoundError):
            draft.unlink()
        draft.symlink_to(process.socket)
        os.replace(draft, self.link)
        self.current = process
