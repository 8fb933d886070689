"""`/docs`: the OpenAPI description as a plain page. FastAPI's own page loads its scripts from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code, pre { font: 0.9em/1.45 ui-monospace, monospace; }
pre { overflow-x: auto; padding: 0.75rem 1rem; border: 1px solid color-mix(in srgb, currentColor 20%, transparent); }
summary { cursor: pointer; padding: 0.3rem 0; }
td, th { text-align: left; vertical-align: top; padding: 0.15rem 1.5rem 0.15rem 0; }
"""


def api_page(description: Mapping[str, Any]) -> str:
    """HTML of an OpenAPI description: routes, and the messages that they take and give."""
    title = f"{escape(description['info']['title'])} {escape(description['info']['version'])}"
    return "\n".join(
        [
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}: API</title>',
            f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style><h1>{title}</h1>',
            '<p>As data: <a href="openapi.json">openapi.json</a>. TensorFlow Serving\'s REST API is at '
            "<code>/v1/models/NAME[/versions/N]</code>.</p><h2>Routes</h2>",
            *_routes(description["paths"]),
            "<h2>Messages</h2>",
            *_messages(description["components"]["schemas"]),
            "</html>",
        ]
    )


def _routes(paths: Mapping[str, Any]) -> Iterator[str]:
    for path, methods in paths.items():
        for method, route in methods.items():
            takes = _named(route.get("requestBody", {}).get("content", {}))
            gives = _named(route["responses"].get("200", {}).get("content", {}))
            asked = [f"<code>{escape(each['name'])}</code>" for each in route.get("parameters", [])]
            yield (
                f"<details><summary><code>{method.upper()} {escape(path)}</code> "
                f"{escape(route.get('description', ''))}</summary><p>Takes {takes or ', '.join(asked) or 'nothing'}; "
                f"gives {gives or 'an answer'}.</p></details>"
            )


def _named(content: Mapping[str, Any]) -> str:
    """The message of a body, as a link."""
    reference = content.get("application/json", {}).get("schema", {}).get("$ref", "")
    name = escape(reference.rpartition("/")[2])
    return f'<a href="#{name}">{name}</a>' if name else ""


def _messages(schemas: Mapping[str, Any]) -> Iterator[str]:
    for name, schema in schemas.items():
        yield f'<h3 id="{escape(name)}">{escape(name)}</h3><p>{escape(schema.get("description", ""))}</p><table>'
        for field, told in schema.get("properties", {}).items():
            kind = {key: value for key, value in told.items() if key not in ("title", "description")}
            needed = " (needed)" if field in schema.get("required", ()) else ""
            yield (
                f"<tr><th><code>{escape(field)}</code>{needed}<td>{escape(told.get('description', ''))}"
                f"<td><code>{escape(_type_of(kind))}</code>"
            )
        yield "</table>"


def _type_of(kind: Mapping[str, Any]) -> str:
    if "$ref" in kind:
        return str(kind["$ref"]).rpartition("/")[2]
    if "anyOf" in kind:
        return " or ".join(_type_of(each) for each in kind["anyOf"])
    if kind.get("type") == "array":
        return f"list of {_type_of(kind.get('items', {}))}"
    if "enum" in kind:
        return ", ".join(map(json.dumps, kind["enum"]))
    bounds = [f"{word} {kind[key]}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in kind]
    return " ".join([str(kind.get("type", "any")), *bounds])
