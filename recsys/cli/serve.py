"""`recsys serve`: a bundle behind HTTP and gRPC; `recsys activate` and `recsys rollback`: which one is served."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from recsys.cli._output import JsonOption, Output
from recsys.cli.recommend import BundleArgument

FolderArgument = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="A folder of numbered bundles, or a run directory that has one.")
]


def serve(
    bundle: BundleArgument,
    config: Annotated[Path | None, typer.Option(metavar="YAML", help="How to answer (docs/serving.md).")] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on, 127.0.0.1 by default; 0.0.0.0 opens it to the network.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port of HTTP, 8500 by default.")] = None,
    grpc_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of TensorFlow Serving's gRPC, none by default.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Web processes, 1 by default.")] = None,
) -> None:
    """Serve a bundle, or the active one of a folder of bundles, on this machine only by default.

    The page for people is at /, the API's documentation at /docs.
    """
    from serving.config import ServingConfig
    from serving.processes.child import log_to_stderr
    from serving.processes.supervisor import serve

    log_to_stderr()
    given: dict[str, Any] = {"host": host, "port": port, "grpc_port": grpc_port, "workers": workers}
    changes = {name: value for name, value in given.items() if value is not None}
    base = ServingConfig() if config is None else ServingConfig.load(config)
    serve(bundle, base.model_copy(update=changes))


def activate(
    folder: FolderArgument,
    number: Annotated[int, typer.Argument(metavar="N", help="The bundle's number.")],
    as_json: JsonOption = False,
) -> None:
    """Have a bundle served from now on, by running servers too, whatever is newer."""
    from recsys.bundle.active import activate

    _say(Output(as_json), activate(folder, number), number)


def rollback(folder: FolderArgument, as_json: JsonOption = False) -> None:
    """Have the bundle before the active one served from now on, by running servers too."""
    from recsys.bundle.active import rollback

    _say(Output(as_json), *rollback(folder))


def _say(out: Output, before: int | None, now: int) -> None:
    out.text(f"bundle {now} is active; before, it was {'none' if before is None else before}")
    out.result({"active": now, "before": before})
