"""The web server: `POST /v1/recommend` and `GET /healthz` over one bundle."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import uvicorn
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.requests import Request as HttpRequest
from fastapi.responses import JSONResponse

import recsys
from recsys.bundle.bundle import Bundle
from recsys.bundle.users import UnknownUserError
from recsys.config.base import Config
from recsys.errors import ConfigError, Problem, RequestError
from serving.messages import BundleName, Recommendations, Request, problems_of
from serving.pipeline import Pipeline


class Health(Config):
    """The server is ready."""

    status: Literal["ok"]
    bundle: BundleName
    catalogue_size: int


def create_app(bundle: Bundle | Path | str) -> FastAPI:
    """The ASGI application of a bundle (or of the bundle at a path, which is verified).

    Raises:
        BundleError: the bundle is missing, incomplete, altered, or made for other versions.
    """
    pipeline = Pipeline(bundle if isinstance(bundle, Bundle) else Bundle.load(bundle))
    manifest = pipeline.bundle.manifest
    app = FastAPI(title=f"recsys: {manifest.name}", version=recsys.__version__)

    @app.post("/v1/recommend", response_model_exclude_defaults=True)
    def recommend(request: Request) -> Recommendations:
        """The best items for a known user, or for raw features."""
        return pipeline.recommend(request)

    @app.get("/healthz")
    def healthz() -> Health:
        """Whether the server is ready, and with what."""
        return Health(status="ok", bundle=pipeline.name, catalogue_size=manifest.catalogue_size)

    @app.exception_handler(RequestError)
    def refuse(_: HttpRequest, error: RequestError) -> JSONResponse:
        return _answer(404 if isinstance(error, UnknownUserError) else 422, error.problems)

    @app.exception_handler(RequestValidationError)
    def refuse_body(_: HttpRequest, error: RequestValidationError) -> JSONResponse:
        return _answer(422, problems_of(error.errors()))

    return app


def _answer(status: int, problems: tuple[Problem, ...] | list[Problem]) -> JSONResponse:
    return JSONResponse({"error": [asdict(problem) for problem in problems]}, status)


def serve(bundle: Bundle | Path | str, host: str = "127.0.0.1", port: int = 8500) -> None:
    """Serve a bundle in this process until it is told to stop (SIGINT, SIGTERM).

    Raises:
        BundleError: see `create_app`.
        ConfigError: the address cannot be had; told before the bundle is loaded.
    """
    with _bound(host, port) as address:
        server = uvicorn.Server(uvicorn.Config(create_app(bundle), host=host, port=port))
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn's way to say that SIGINT ended it
            server.run(sockets=[address])


def _bound(host: str, port: int) -> socket.socket:
    """A socket at this address; it refuses connections until the server listens."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"{host}:{port}", f"cannot be served on ({error})", "a free address of this machine", "choose another port"
        ) from error
    return bound
