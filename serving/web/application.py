"""The web application over an engine: this project's own API, health, metrics, documentation."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Query
from fastapi.exceptions import RequestValidationError
from fastapi.requests import Request as HttpRequest
from fastapi.responses import HTMLResponse, Response
from fastapi.routing import APIRoute
from fastapi.telemetry import TelemetryConfig
from pydantic_core import from_json, to_json
from starlette.exceptions import HTTPException

import recsys
from recsys.errors import Problem, RequestError
from serving.about import History, Info, KnownUsers, State
from serving.catalogue.messages import DescribedItems, Legend
from serving.config import ServingConfig
from serving.engine.engine import Answer, Engine, EngineBusyError, EngineGoneError
from serving.messages import (
    Beside,
    BesideRequest,
    BundleName,
    EmbedRequest,
    EventRequest,
    FeedbackRequest,
    ItemsRequest,
    Noted,
    Ranked,
    RankRequest,
    Recommendations,
    Request,
    Updated,
    Vectors,
    problems_of,
)
from serving.page import add_page
from serving.tf_serving.rest_call import METHOD, PREFIX, RestCall
from serving.web.api_page import api_page
from serving.web.edge import Edge, json_response
from serving.web.fallback import Fallback
from serving.web.guard import is_local
from serving.web.metrics import CONTENT_TYPE, Metrics

GONE = Problem("server", "the model process is not there", "one", "try again, as Retry-After says")
LOCKED = Problem("server", "is open to the network without API keys", "`limits.keys`", "give the server a file of keys")
BINARY: dict[int | str, dict[str, Any]] = {200: {"content": {"application/octet-stream": {}}}, 202: {}}
NO_TELEMETRY: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}
"""FastAPI would look for OpenTelemetry's exporters; no request leaves this machine."""


def web_app(
    engine: Engine,
    config: ServingConfig,
    metrics: Metrics,
    state: Callable[[], State] = State,
    close: Callable[[], object] = lambda: None,
) -> FastAPI:
    """The application.

    Args:
        engine: answers the methods of `serving.engine.methods`.
        config: limits, and whether the server is open to the network.
        metrics: counts requests, and is exposed.
        state: what the supervisor says of its processes.
        close: is called when the application ends.

    Raises:
        ConfigError: the file of keys cannot be used.
    """
    fallback = Fallback(engine)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with fallback.kept_fresh():
            yield
        close()

    app = FastAPI(
        title="recsys",
        version=recsys.__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        max_body_size=config.limits.body_bytes,
        telemetry=NO_TELEMETRY,
    )
    app.router.route_class = _StrictJsonRoute
    app.add_middleware(Edge, limits=config.limits, metrics=metrics)
    _add_errors(app)
    _add_recommendations(app, engine, fallback, metrics)
    _add_facts(app, engine)
    _add_changes(app, engine, config)
    _add_map(app, engine)
    add_page(app)
    _add_tf_serving(app, engine)
    _add_health(app, engine, metrics, state)
    _add_documentation(app)
    return app


def _add_recommendations(app: FastAPI, engine: Engine, fallback: Fallback, metrics: Metrics) -> None:
    @app.post("/v1/recommend", response_model=Recommendations)
    async def recommend(request: Request, http: HttpRequest) -> Response:
        """The best items for a known user, or for raw features."""
        try:
            return json_response(await engine.call("recommend", await http.body()))
        except EngineGoneError:
            answer = fallback.recommend(request)
            if answer is None:
                raise
            metrics.answered(answer)
            return json_response(Answer(200, answer.model_dump_json(exclude_defaults=True).encode()))

    @app.post("/v1/similar", response_model=Beside)
    async def similar(request: BesideRequest, http: HttpRequest) -> Response:
        """Items like one of the catalogue, or that go with it."""
        return json_response(await engine.call("beside", await http.body()))

    @app.post("/v1/rank", response_model=Ranked)
    async def rank(request: RankRequest, http: HttpRequest) -> Response:
        """Items of the catalogue in the ranker's order for a user."""
        return json_response(await engine.call("rank", await http.body()))

    @app.post("/v1/embed", response_model=Vectors)
    async def embed(request: EmbedRequest, http: HttpRequest) -> Response:
        """Vectors of raw queries and raw items."""
        return json_response(await engine.call("embed", await http.body()))


def _add_facts(app: FastAPI, engine: Engine) -> None:
    @app.get("/v1/info", response_model=Info)
    async def info() -> Response:
        """What is served."""
        return json_response(await engine.call("info", b""))

    @app.get("/v1/users", response_model=KnownUsers)
    async def users(prefix: str = "", count: int = 10) -> Response:
        """Some users whom the bundle knows, to try things with."""
        return await _asked(engine, "users", {"prefix": prefix, "count": count})

    @app.get("/v1/history", response_model=History)
    async def history(user: str, count: int = 50) -> Response:
        """What a known user liked, the newest first."""
        return await _asked(engine, "history", {"user": user, "count": count})


async def _asked(engine: Engine, method: str, query: dict[str, object]) -> Response:
    return json_response(await engine.call(method, to_json(query)))


def _add_changes(app: FastAPI, engine: Engine, config: ServingConfig) -> None:
    """What leaves something behind. Without keys, it is for a server that this machine alone can reach."""
    locked = config.limits.keys is None and not is_local(config.host)

    async def change(method: str, http: HttpRequest) -> Response:
        if locked:
            return json_response(Answer.refused(403, [LOCKED]))
        return json_response(await engine.call(method, await http.body()))

    @app.post("/v1/items", response_model=Updated)
    async def items(request: ItemsRequest, http: HttpRequest) -> Response:
        """Put items into the running server's catalogue, change them, or take them away."""
        return await change("update", http)

    @app.post("/v1/events", response_model=Noted)
    async def events(request: EventRequest, http: HttpRequest) -> Response:
        """A positive event, for the user's history in the online store."""
        return await change("event", http)

    @app.post("/v1/feedback", response_model=Noted)
    async def feedback(request: FeedbackRequest, http: HttpRequest) -> Response:
        """What came of a shown item, for the log."""
        return await change("feedback", http)


def _add_map(app: FastAPI, engine: Engine) -> None:
    @app.get("/v1/items", response_model=DescribedItems)
    async def described(
        row: Annotated[tuple[int, ...], Query()] = (),
        item: Annotated[tuple[str, ...], Query()] = (),
        places: bool = False,
    ) -> Response:
        """Items by row or id, with their features, and on request with their places on the map."""
        return await _asked(engine, "describe", {"rows": row, "items": item, "places": places})

    @app.get("/v1/map", response_class=Response, responses=BINARY)
    async def catalogue_map() -> Response:
        """The points of the catalogue's map; 202 while it is being drawn."""
        answer = await engine.call("map", b"")
        if answer.status != 200:
            return json_response(answer, {"retry-after": "1"})
        return Response(answer.body, media_type="application/octet-stream")

    @app.get("/v1/map/legend", response_model=Legend)
    async def legend() -> Response:
        """What is on the map; 202 while it is being drawn."""
        return json_response(await engine.call("legend", b""))


def _add_tf_serving(app: FastAPI, engine: Engine) -> None:
    @app.api_route(PREFIX + "{path:path}", methods=["GET", "POST"], include_in_schema=False)
    async def tf_serving(path: str, http: HttpRequest) -> Response:
        """TensorFlow Serving's REST API, as its documentation says it."""
        call = RestCall.of(http.method, path)
        if call is None:
            malformed = to_json({"error": f"Malformed request: {http.method} {http.url.path}"})
            return json_response(Answer(400, malformed))
        return json_response(await engine.call(METHOD, call.packed(await http.body())))


def _add_health(app: FastAPI, engine: Engine, metrics: Metrics, state: Callable[[], State]) -> None:
    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """This process lives."""
        return {"status": "ok"}

    @app.get("/readyz", response_model=State)
    async def readyz() -> Response:
        """There is a model: which, and which ones were refused."""
        told = state()
        bundle: BundleName | None = None
        try:
            bundle = BundleName.model_validate_json((await engine.call("name", b"")).body)
        except EngineBusyError:  # all servers of an overloaded fleet must not be taken out of it at once
            bundle = told.bundle
        except EngineGoneError:
            pass
        found = told.model_copy(update={"ready": bundle is not None, "bundle": bundle})
        return json_response(Answer(503 if bundle is None else 200, found.model_dump_json().encode()))

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    def prometheus() -> Response:
        """For Prometheus: of all processes of this server."""
        return Response(metrics.exposition(state()), media_type=CONTENT_TYPE)


def _add_documentation(app: FastAPI) -> None:
    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        """What `/openapi.json` says, for people."""
        return HTMLResponse(api_page(app.openapi()))


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(EngineGoneError)
    async def gone(_: HttpRequest, error: EngineGoneError) -> Response:
        return json_response(Answer.refused(503, [GONE]), {"retry-after": "1"})

    @app.exception_handler(RequestError)
    async def refuse(_: HttpRequest, error: RequestError) -> Response:
        return json_response(Answer.refused(422, error.problems))

    @app.exception_handler(RequestValidationError)
    async def refuse_body(_: HttpRequest, error: RequestValidationError) -> Response:
        return json_response(Answer.refused(422, problems_of(error.errors())))

    @app.exception_handler(HTTPException)
    async def refuse_request(http: HttpRequest, error: HTTPException) -> Response:
        problem = Problem(f"{http.method} {http.url.path}", str(error.detail), cure="/docs has the routes")
        return json_response(Answer.refused(error.status_code, [problem]), dict(error.headers or {}))


class _StrictJson(HttpRequest):
    """Refuses what is nested deeper than any request, and text that is no Unicode."""

    async def json(self) -> Any:
        """Raises `json.JSONDecodeError`."""
        body = await self.body()
        try:
            return from_json(body)
        except ValueError as error:
            raise json.JSONDecodeError(str(error), "", 0) from error


class _StrictJsonRoute(APIRoute):
    def get_route_handler(self) -> Callable[[HttpRequest], Coroutine[Any, Any, Response]]:
        """With bodies read by `_StrictJson`."""
        handle = super().get_route_handler()

        async def strictly(http: HttpRequest) -> Response:
            return await handle(_StrictJson(http.scope, http.receive))

        return strictly
