"""JSON Schema of a config class: what editors complete and check the YAML by."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

_INCLUDE = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    "description": "Other YAML files, relative to this one, whose keys hold where this file says nothing.",
}


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The schema (draft 2020-12) of the YAML files that `load` reads as `model`."""
    schema = model.model_json_schema()
    schema["properties"] = {"include": _INCLUDE, **schema.get("properties", {})}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
