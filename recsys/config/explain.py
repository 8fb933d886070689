"""pydantic's errors in the words of the person who wrote the YAML: file, line, key, what to write instead."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from recsys.config.document import Node
from recsys.errors import Problem

Keys = tuple[str | int, ...]
_WORDS = {
    "string_type": "text",
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_JSON_WORDS = {
    "string": "text",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}
_YES_NO = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


def where(root: Node, keys: Sequence[str | int]) -> str:
    """`file:line: dotted.key`, by the line of the key or of the nearest one above it."""
    place, dotted = str(_nearest(root, keys).place), ".".join(map(str, keys))
    return place if dotted == "" or place == f"--set {dotted}" else f"{place}: {dotted}"


def problems(error: ValidationError, model: type[BaseModel], root: Node) -> list[Problem]:
    """One problem for each key at fault, in the order of the file."""
    by_keys: dict[Keys, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        by_keys.setdefault(_keys(details, root), []).append(details)
    shape = _Shape(model)
    in_order = sorted(by_keys, key=lambda keys: _nearest(root, keys).place)
    return [_problem(keys, by_keys[keys], root, shape) for keys in in_order]


def _nearest(node: Node, keys: Sequence[str | int]) -> Node:
    for key in keys:
        child = node.child(key)
        if child is None:
            break
        node = child
    return node


def _keys(details: ErrorDetails, root: Node) -> Keys:
    """The keys of the YAML that an error speaks of: pydantic's `loc` also holds the tags and types of unions."""
    keys: list[str | int] = []
    node, tag_passed = root, False
    for depth, part in enumerate(details["loc"]):
        if part == node.kind and not tag_passed:
            tag_passed = True
        elif (child := node.child(part)) is not None:
            keys.append(part)
            node, tag_passed = child, False
        elif details["type"] == "missing" and depth == len(details["loc"]) - 1:
            keys.append(part)
    if details["type"] in ("union_tag_invalid", "union_tag_not_found"):
        keys.append("kind")
    return tuple(keys)


class _Shape:
    """What may stand where, by the model's JSON Schema."""

    def __init__(self, model: type[BaseModel]) -> None:
        self.schema = model.model_json_schema()

    def at(self, root: Node, keys: Keys) -> list[dict[str, Any]]:
        """The schemas that may hold for the value under `keys` (unions give several)."""
        found, node = list(self._open(self.schema, root)), root
        for key in keys:
            child = node.child(key) or Node(None, node.place)
            found = [leaf for schema in found for below in _below(schema, key) for leaf in self._open(below, child)]
            node = child
        return found

    def names(self, root: Node, keys: Keys) -> list[str]:
        """The keys that the mapping under `keys` may have."""
        return sorted({name for schema in self.at(root, keys) for name in schema.get("properties", {})})

    def values(self, root: Node, keys: Keys) -> list[Any]:
        """The literal values allowed under `keys`, if only those are."""
        return list(dict.fromkeys(value for schema in self.at(root, keys) for value in _literals(schema)))

    def words(self, root: Node, keys: Keys) -> str:
        """What is expected under `keys`."""
        found = (
            [repr(value) for value in _literals(schema)] or [_JSON_WORDS.get(schema.get("type", ""), "a value")]
            for schema in self.at(root, keys)
        )
        return _either(word for words in found for word in words)

    def description(self, root: Node, keys: Keys) -> str:
        """The first sentence of the key's docstring."""
        for schema in self.at(root, keys[:-1]):
            about = schema.get("properties", {}).get(keys[-1], {}).get("description", "")
            if about:
                return str(about).split("\n\n")[0].split(". ")[0].rstrip(".")
        return ""

    def _open(self, schema: dict[str, Any], node: Node) -> Iterator[dict[str, Any]]:
        """References followed and unions opened, down to the members that the node's `kind` allows."""
        if "$ref" in schema:
            yield from self._open(self.schema["$defs"][schema["$ref"].rsplit("/", 1)[-1]], node)
        elif "discriminator" in schema and node.kind in schema["discriminator"]["mapping"]:
            yield from self._open({"$ref": schema["discriminator"]["mapping"][node.kind]}, node)
        elif members := schema.get("oneOf") or schema.get("anyOf") or schema.get("allOf"):
            for member in members:
                yield from self._open(member, node)
        else:
            yield schema


def _below(schema: dict[str, Any], key: str | int) -> list[dict[str, Any]]:
    if isinstance(key, int):
        below = [*schema.get("prefixItems", ())][key : key + 1] or [schema.get("items")]
    else:
        below = [schema.get("properties", {}).get(key, schema.get("additionalProperties"))]
    return [found for found in below if isinstance(found, dict)]


def _literals(schema: dict[str, Any]) -> list[Any]:
    return [schema["const"]] if "const" in schema else schema.get("enum", [])


def _problem(keys: Keys, errors: list[ErrorDetails], root: Node, shape: _Shape) -> Problem:
    place, first = where(root, keys), errors[0]
    match first["type"]:
        case "missing" | "union_tag_not_found":
            about = shape.description(root, keys)
            cure = f"add `{keys[-1]}: ...`" + (f" ({about})" if about else "")
            return Problem(place, "the key is missing", shape.words(root, keys), cure)
        case "extra_forbidden":
            names = shape.names(root, keys[:-1])
            meant = _did_you_mean(str(keys[-1]), names)
            return Problem(place, "unknown key", "" if meant else f"one of {', '.join(names)}", meant or "remove it")
        case "value_error":
            return Problem(place, str(first["ctx"]["error"]))
        case "union_tag_invalid":
            tags = shape.values(root, keys)
            found = first["ctx"]["tag"]
            return Problem(place, repr(found), _either(map(repr, tags)), _did_you_mean(found, tags))
    expected = _either(_expected(details) for details in errors)
    return Problem(place, _show(first["input"]), expected, _cure(first, shape.values(root, keys)))


def _expected(details: ErrorDetails) -> str:
    return _WORDS.get(details["type"]) or details["msg"].removeprefix("Input should be ")


def _cure(details: ErrorDetails, literals: list[Any]) -> str:
    value, error = details["input"], details["type"]
    if error == "literal_error":
        return _did_you_mean(value, literals)
    if error == "string_type" and isinstance(value, bool | int | float):
        return f'for text write "{_show(value)}", in quotes'
    if error == "bool_type" and isinstance(value, str) and value.lower() in _YES_NO:
        return f"did you mean `{_YES_NO[value.lower()]}`?"
    if error in ("int_type", "float_type") and isinstance(value, str) and _is_number(value):
        return "leave out the quotes"
    return ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _did_you_mean(found: Any, possible: Iterable[Any]) -> str:
    close = difflib.get_close_matches(str(found), [str(name) for name in possible], n=1)
    return f"did you mean `{close[0]}`?" if close else ""


def _either(words: Iterable[str]) -> str:
    """`a, b or c`, each once."""
    *some, last = dict.fromkeys(words)
    return f"{', '.join(some)} or {last}" if some else last


def _show(value: Any) -> str:
    """A found value as it would stand in YAML, shortened."""
    if isinstance(value, dict):
        return f"a mapping ({', '.join(map(str, value))})"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
