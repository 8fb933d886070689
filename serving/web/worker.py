"""A web worker: HTTP on a socket that all workers share, TensorFlow Serving's gRPC on a port that they share.

    python -m serving.web.worker LAUNCH.json

It keeps nothing but popular items, and never loads TensorFlow: it can be killed at any time, at the cost of the
requests that it is answering.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import uvicorn
import uvloop

from serving.about import State
from serving.engine.remote import RemoteEngine, channel_to
from serving.processes.child import GRACE, end_with_parent, log_to_stderr
from serving.processes.launch import WorkerLaunch
from serving.tf_serving import proxy
from serving.web.application import web_app
from serving.web.metrics import Metrics


async def main(launch: WorkerLaunch) -> None:
    """Answer until told to end; then end what has begun."""
    end_with_parent()
    channel = channel_to(Path(launch.engine))
    app = web_app(RemoteEngine(channel), launch.config, Metrics(), lambda: _state(Path(launch.state)))
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=int(GRACE),
        )
    )
    grpc = None if launch.grpc is None else await proxy.start(launch.grpc, launch.config.limits, channel)
    await server.serve(sockets=[socket.socket(fileno=launch.http)])
    if grpc is not None:
        await grpc.stop(GRACE)
    await channel.close()


def _state(path: Path) -> State:
    return State.model_validate_json(path.read_bytes())


if __name__ == "__main__":
    log_to_stderr()
    uvloop.run(main(WorkerLaunch.model_validate_json(Path(sys.argv[1]).read_bytes())))
