"""`recsys serve`: a bundle behind HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

from recsys.cli._output import Output
from recsys.cli.recommend import BundleArgument


def serve(
    bundle: BundleArgument,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 opens it to the network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8500,
) -> None:
    """Serve a bundle over HTTP, on this machine only by default.

    POST /v1/recommend, GET /healthz, and a page for trying them at /docs.
    """
    from recsys.bundle import Bundle
    from serving import serve

    loaded = Bundle.load(bundle)
    address = f"[{host}]" if ":" in host else host
    name = f"{loaded.manifest.name} {loaded.manifest.version}"
    Output().note(f"{name}: http://{address}:{port} (its page: http://{address}:{port}/docs); Ctrl-C ends it")
    serve(loaded, host, port)
