"""The page at `/`: files without a build step, held in memory, that load nothing from elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI
from fastapi.requests import Request
from fastapi.responses import Response

FOLDER = Path(__file__).parent / "static"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # asked for again each time, answered with 304 if it is the same
}


def add_page(app: FastAPI) -> None:
    """`GET /` and the files that it is made of, under `/page/`. No path of a request is looked for on the disk."""
    for path in sorted(FOLDER.iterdir()):
        route = "/" if path.name == "index.html" else f"/page/{path.name}"
        app.add_route(route, _file(path.read_bytes(), TYPES[path.suffix]), include_in_schema=False)


def _file(body: bytes, kind: str) -> Callable[[Request], Response]:
    headers = HEADERS | {"etag": f'"{hashlib.sha256(body).hexdigest()[:16]}"'}

    def answer(request: Request) -> Response:
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers, media_type=kind)

    return answer
