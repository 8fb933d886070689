"""The model process: the one that loads TensorFlow, SavedModels and an index, and answers over a Unix socket.

    python -m serving.processes.model_process LAUNCH.json

It says on standard output, in one line of JSON, that it is ready or why it is not, and ends when standard input does:
whoever started it holds the other ends.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import TextIO

import grpc

from recsys.bundle.bundle import Bundle
from recsys.bundle.golden import self_test
from recsys.bundle.layout import GOLDEN
from recsys.errors import RecsysError
from serving.config import ServingConfig
from serving.engine.methods import Methods, methods_of
from serving.engine.remote import OPTIONS, SERVICE
from serving.pipeline.pipeline import Pipeline
from serving.processes.child import GRACE, end_with_parent, log_to_stderr
from serving.processes.launch import ModelLaunch
from serving.web.metrics import Metrics

_log = logging.getLogger(__name__)
STEP_BACK = 5
"""By how much a quiet process is nicer than it would be: where others compete it gets about a quarter of a core, so
that a server that has no pause takes up a new bundle, too.
"""
QUEUED = 128
"""Requests that are worked on or wait; to more it says at once that it cannot, so that web workers can."""


def main(launch: ModelLaunch) -> int:
    """Load, say so, and answer until told to end."""
    report = _own_stdout()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    end_with_parent()
    start, metrics = perf_counter(), Metrics()
    try:
        pipeline, import_seconds = _loaded(launch, metrics)
    except RecsysError as error:
        print(json.dumps({"refused": [asdict(problem) for problem in error.problems]}), file=report, flush=True)
        return 1
    server = _server(pipeline, launch, metrics)
    server.start()
    loaded = {"seconds": perf_counter() - start, "import_seconds": import_seconds}
    print(json.dumps({"ready": pipeline.name.model_dump(), "loaded": loaded}), file=report, flush=True)
    stop.wait()
    server.stop(GRACE).wait()
    pipeline.close()
    return 0


def _loaded(launch: ModelLaunch, metrics: Metrics) -> tuple[Pipeline, float]:
    """In a thread of low priority, if it is to be quiet. Priorities are those of threads, and threads inherit them: so
    TensorFlow makes its own before, at the usual one, which is what requests need. Returns its import's seconds too.
    """
    with ThreadPoolExecutor(1, initializer=_step_back if launch.quiet else None) as loader:
        bundle = loader.submit(Bundle.load, launch.bundle).result()
        start = perf_counter()
        loader.submit(_import_tensorflow).result()
        import_seconds = perf_counter() - start
        _start_tensorflow()
        return loader.submit(_tried, bundle, launch.config, metrics).result(), import_seconds


def _tried(bundle: Bundle, config: ServingConfig, metrics: Metrics) -> Pipeline:
    """Warm, once it has answered its golden requests as it did when it was exported."""
    if GOLDEN in bundle.manifest.files:
        self_test(bundle)
    else:
        _log.warning("%s has no golden requests to be tried with", bundle.folder)
    return Pipeline(bundle, config, metrics.logged)


def _step_back() -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + STEP_BACK)


def _import_tensorflow() -> None:
    import tensorflow  # noqa: F401


def _start_tensorflow() -> None:
    import tensorflow as tf

    tf.constant(0) + 1


def _server(pipeline: Pipeline, launch: ModelLaunch, metrics: Metrics) -> grpc.Server:
    from serving.tf_serving import services
    from serving.tf_serving.servables import Servables

    servables = Servables(pipeline.bundle)
    methods = methods_of(pipeline, servables, metrics)
    threads = ThreadPoolExecutor(launch.config.threads, "answer")
    server = grpc.server(threads, options=OPTIONS, maximum_concurrent_rpcs=QUEUED)
    handlers = {name: grpc.unary_unary_rpc_method_handler(_handler(methods, name)) for name in methods}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
    services.add_to(server, servables)
    server.add_insecure_port(f"unix:{launch.socket}")
    return server


def _handler(methods: Methods, name: str) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    return lambda body, _: methods.answer(name, body).packed()


def _own_stdout() -> TextIO:
    """Standard output for the report alone; what libraries print goes to standard error."""
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return report


if __name__ == "__main__":
    log_to_stderr()
    sys.exit(main(ModelLaunch.model_validate_json(Path(sys.argv[1]).read_bytes())))
