"""The supervisor: starts the processes of a server, starts again what dies, and swaps model processes.

It never loads TensorFlow, answers no request, and holds the sockets: a process that dies takes nothing with it but the
requests that it was answering.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from recsys.bundle.active import ACTIVE
from recsys.bundle.layout import MANIFEST
from recsys.bundle.verify import find
from recsys.errors import BundleError, ConfigError
from recsys.files import write_text
from serving.about import State
from serving.config import ServingConfig
from serving.processes.child import Backoff, end, start
from serving.processes.launch import WorkerLaunch
from serving.processes.model_slot import ModelProcess, ModelSlot
from serving.web.guard import Keys

LOOK = 1.0
"""Seconds between two looks at the folder of bundles."""
_log = logging.getLogger("serving")


def serve(path: Path | str, config: ServingConfig | None = None) -> None:
    """Serve a bundle, or the active one of a folder of bundles, until told to end (SIGINT, SIGTERM); then let end what
    has begun.

    Raises:
        BundleError: the bundle cannot be served.
        ConfigError: an address cannot be had, or the file of keys cannot be used.
    """
    path, config = Path(path), config or ServingConfig()
    find(path)
    Keys.read(config.limits.keys)
    with ExitStack() as held:
        http = held.enter_context(bound(config.host, config.port))
        grpc = (
            None if config.grpc_port is None else held.enter_context(bound(config.host, config.grpc_port, shared=True))
        )
        workplace = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="recsys-serve-")))  # of mode 0700
        asyncio.run(Supervisor(path, config, workplace, http, grpc).run())


def bound(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket at this address that does not listen yet: of the one that all inherit, or, if it is `shared`, holding
    the port for those that bind it likewise.

    Raises:
        ConfigError: the address cannot be had.
    """
    option = socket.SO_REUSEPORT if shared else socket.SO_REUSEADDR
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, option, 1)
        made.bind(address)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"{host}:{port}", f"cannot be served on ({error})", "a free address of this machine", "choose another port"
        ) from error
    return made


def address_of(made: socket.socket) -> str:
    """`host:port`, as in a URL."""
    host, port = made.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Supervisor:
    """Of one server."""

    def __init__(
        self, path: Path, config: ServingConfig, workplace: Path, http: socket.socket, grpc: socket.socket | None
    ) -> None:
        self._path, self._config, self._workplace, self._http, self._grpc = path, config, workplace, http, grpc
        self._slot = ModelSlot(workplace / "model.sock")
        self._restarts: Counter[str] = Counter()
        self._swaps = self._refusals = 0
        self._refused: dict[str, str] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._state, self._launch = workplace / "state.json", workplace / "worker.json"

    async def run(self) -> None:
        """Until told to end. Raises `BundleError`: the first bundle cannot be served."""
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        self._tell()
        self._write_launch()
        workers = [asyncio.create_task(self._keep_worker()) for _ in range(self._config.workers)]
        model, stop = asyncio.create_task(self._keep_model()), asyncio.create_task(stopped.wait())
        try:
            await asyncio.wait({model, stop}, return_when=asyncio.FIRST_COMPLETED)
            _log.info("ending" if stop.done() else "the bundle cannot be served")
        finally:
            self._http.close()  # the workers close theirs: nobody is let in any more
            await _cancelled(*workers)
            await _cancelled(model, stop)
            await asyncio.gather(*self._ending)
        if not model.cancelled():
            model.result()

    async def _keep_worker(self) -> None:
        backoff = Backoff()
        while True:
            try:
                process = await start("serving.web.worker", self._launch, inherit=[self._http.fileno()])
            except OSError as error:
                _log.error("no web process can be started: %s", error)
            else:
                try:
                    code = await process.wait()
                finally:
                    await end(process)
                self._died("web", code)
            await backoff.pause()

    async def _keep_model(self) -> None:
        first = await ModelProcess.start(find(self._path), self._workplace, self._config, quiet=False)
        self._give(first)
        grpc = "" if self._grpc is None else f", TensorFlow Serving's gRPC at {address_of(self._grpc)}"
        _log.info("%s answers at http://%s%s", first.bundle, address_of(self._http), grpc)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch())
                group.create_task(self._restart_forever())
        finally:
            if self._slot.current is not None:
                await self._slot.current.end()

    async def _restart_forever(self) -> None:
        backoff = Backoff()
        while True:
            was = self._slot.current
            assert was is not None  # since the first was ready
            code = await was.process.wait()
            if was is not self._slot.current:  # it was told to end: another has taken over
                continue
            self._died("model", code)
            while was is self._slot.current:
                await backoff.pause()
                try:
                    fresh = await ModelProcess.start(was.bundle, self._workplace, self._config, quiet=False)
                except BundleError as error:
                    _log.error("cannot be started again: %s", error)
                    continue
                if was is self._slot.current:
                    self._give(fresh)
                else:  # another bundle has taken over meanwhile
                    await fresh.end()

    async def _watch(self) -> None:
        """Swap to the bundle that is wanted, once it is another; what was refused is not tried again as it is."""
        tried: object = None
        while not (self._path / MANIFEST).is_file():  # one bundle alone is the wanted one for ever
            await asyncio.sleep(LOOK)
            try:
                wanted = find(self._path)
            except BundleError as error:
                self._refuse(ACTIVE, error)
                continue
            except OSError as error:  # a volume that is away for a while
                self._refuse(ACTIVE, BundleError(str(self._path), f"cannot be read ({error})"))
                continue
            as_it_is = (wanted, _changed(wanted / MANIFEST), _changed(wanted.parent / ACTIVE))
            current = self._slot.current
            if current is not None and wanted == current.bundle:
                self._forgive()
            elif as_it_is != tried:
                tried = as_it_is
                await self._swap(wanted)

    async def _swap(self, wanted: Path) -> None:
        _log.info("%s: loading", wanted)
        try:
            fresh = await ModelProcess.start(wanted, self._workplace, self._config, quiet=True)
        except BundleError as error:
            self._refusals += 1
            self._refuse(wanted.name, error)
            return
        before = self._slot.current
        self._swaps += 1
        self._refused.clear()
        self._give(fresh)
        _log.info("%s answers, ready in %.1f s", wanted, fresh.loaded.seconds)
        if before is not None:
            self._ending.add(asyncio.create_task(before.end()))

    def _give(self, process: ModelProcess) -> None:
        self._slot.give(process)
        self._tell()

    def _forgive(self) -> None:
        """What was refused is not wanted any more."""
        if self._refused:
            self._refused.clear()
            self._tell()

    def _refuse(self, name: str, error: BundleError) -> None:
        reason = "; ".join(map(str, error.problems))
        if self._refused.get(name) != reason:
            _log.error("refused, the one before stays: %s", reason)
            self._refused[name] = reason
            self._tell()

    def _died(self, kind: str, code: int) -> None:
        how = signal.Signals(-code).name if code < 0 else f"exit {code}"
        _log.warning("a %s process died (%s), and is started again", kind, how)
        self._restarts[kind] += 1
        self._tell()

    def _tell(self) -> None:
        current = self._slot.current
        state = State(
            bundle=None if current is None else current.name,
            loaded=None if current is None else current.loaded,
            swaps=self._swaps,
            refusals=self._refusals,
            refused=self._refused,
            restarts=dict(self._restarts),
        )
        write_text(self._state, state.model_dump_json())

    def _write_launch(self) -> None:
        launch = WorkerLaunch(
            http=self._http.fileno(),
            grpc=None if self._grpc is None else address_of(self._grpc),
            engine=str(self._slot.link),
            state=str(self._state),
            config=self._config,
        )
        write_text(self._launch, launch.model_dump_json())


def _changed(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
