"""The outermost layer of the web server: keys, rates, headers, counts, and errors that say nothing of the inside."""

from __future__ import annotations

from math import ceil
from time import perf_counter

from fastapi.responses import Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.config import Limits
from serving.engine.engine import Answer, internal_error
from serving.web.guard import NO_KEY, Keys, Rates, too_often
from serving.web.metrics import Metrics

GUARDED = ("/v1/", "/metrics")
"""What begins so needs a key and counts against a client's rate; the rest are probes, the page and documentation."""
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "cross-origin-resource-policy": "same-origin",
}
"""Of every answer: nothing is loaded from elsewhere, nor by elsewhere."""


def json_response(answer: Answer, headers: dict[str, str] | None = None) -> Response:
    """An answer of an engine over HTTP."""
    return Response(answer.body, answer.status, {"cache-control": "no-store"} | (headers or {}), "application/json")


class Edge:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics
        self._keys, self._rate = Keys.read(limits.keys), limits.requests_per_second
        self._rates = Rates(self._rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = perf_counter(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = self._refused(scope)
        app = self._app if refused is None else refused
        try:
            await app(scope, receive, sending)
        except Exception:
            if status != 500:  # the answer has begun: the server can only break off
                raise
            await json_response(internal_error(scope["path"]))(scope, receive, sending)
        finally:
            route = _route(scope)
            self._metrics.requests.labels(route, status).inc()
            self._metrics.seconds.labels(route).observe(perf_counter() - start)

    def _refused(self, scope: Scope) -> Response | None:
        if not scope["path"].startswith(GUARDED):
            return None
        if not self._keys.admit(Headers(scope=scope)):
            return json_response(Answer.refused(401, [NO_KEY]), {"www-authenticate": "Bearer"})
        client = scope["client"][0] if scope["client"] else "local"
        wait = self._rates.wait(client)
        if wait:
            return json_response(Answer.refused(429, [too_often(self._rate)]), {"retry-after": str(ceil(wait))})
        return None


def _route(scope: Scope) -> str:
    """The path as the application declares it: what a client makes up must not become a label."""
    return getattr(scope.get("route"), "path", "other")
