"""The web server: `POST /v1/recommend` and `GET /healthz` over one bundle."""

from __future__ import annotations

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
from recsys.errors import Problem, RequestError
from serving.recommender import BundleName, Recommendations, Recommender, Request, problems_of


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
    recommender = Recommender(bundle if isinstance(bundle, Bundle) else Bundle.load(bundle))
    manifest = recommender.bundle.manifest
    app = FastAPI(title=f"recsys: {manifest.name}", version=recsys.__version__)

    @app.post("/v1/recommend")
    def recommend(request: Request) -> Recommendations:
        """The best items for a known user, or for raw features."""
        return recommender.recommend(request)

    @app.get("/healthz")
    def healthz() -> Health:
        """Whether the server is ready, and with what."""
        return Health(status="ok", bundle=recommender.name, catalogue_size=manifest.catalogue_size)

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
    """
    uvicorn.run(create_app(bundle), host=host, port=port, log_level="info")
