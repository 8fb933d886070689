"""pydantic's errors in the words of the person who wrote the YAML: file, line, key, what to write instead."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, core_schema

from recsys.config.document import Node
from recsys.errors import Problem

Keys = tuple[str | int, ...]
Schema = dict[str, Any]
_PYDANTIC = frozenset(get_args(core_schema.ErrorType))
"""pydantic's own types of errors. The others are config classes' own (`PydanticCustomError`) and say all themselves."""
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
    shape = _Shape(model)
    by_keys: dict[Keys, list[_Fault]] = {}
    for details in error.errors(include_url=False):
        fault = shape.fault(details, root)
        by_keys.setdefault(fault.keys, []).append(fault)
    in_order = sorted(by_keys, key=lambda keys: _nearest(root, keys).place)
    return [_problem(where(root, keys), by_keys[keys]) for keys in in_order]


def _nearest(node: Node, keys: Sequence[str | int]) -> Node:
    for key in keys:
        child = node.child(key)
        if child is None:
            break
        node = child
    return node


@dataclass(frozen=True)
class _Fault:
    """One of pydantic's errors, the keys of the YAML it speaks of, and what the JSON Schema says of these."""

    details: ErrorDetails
    keys: Keys
    above: list[Schema]
    """Schemas of the mapping that the last key stands in."""
    here: list[Schema]
    """Schemas of the value."""

    @property
    def names(self) -> list[str]:
        """The keys that may stand beside the last one."""
        return sorted({name for schema in self.above for name in schema.get("properties", {})})

    @property
    def literals(self) -> list[Any]:
        """The values that may stand here, if they can be listed."""
        return list(dict.fromkeys(value for schema in self.here for value in _literals(schema)))

    @property
    def words(self) -> str:
        """What may stand here."""
        types = ["object" if "discriminator" in schema else schema.get("type", "") for schema in self.here]
        of_types = [_JSON_WORDS.get(name, "a value") for name in types] or ["a value"]
        return _either(map(repr, self.literals) if self.literals else of_types)

    @property
    def about(self) -> str:
        """The first sentence of the key's docstring."""
        found = (schema.get("properties", {}).get(self.keys[-1], {}).get("description") for schema in self.above)
        return next((str(text).split("\n\n")[0].split(". ")[0].rstrip(".") for text in found if text), "")


class _Shape:
    """What may stand where, by the model's JSON Schema."""

    def __init__(self, model: type[BaseModel]) -> None:
        self.schema = model.model_json_schema()

    def fault(self, details: ErrorDetails, root: Node) -> _Fault:
        """Follows pydantic's `loc`, which beside keys holds the tags of unions, and names of types."""
        own = details["type"] not in _PYDANTIC
        node, keys = root, list[str | int]()
        above: list[Schema] = []
        here = list(self._open(self.schema))
        for part in details["loc"]:
            tagged = [schema["discriminator"]["mapping"].get(part) for schema in here if "discriminator" in schema]
            if any(tagged):
                here = [opened for ref in tagged if ref for opened in self._open({"$ref": ref})]
                continue
            below = [opened for schema in here for found in _below(schema, part) for opened in self._open(found)]
            child = node.child(part)
            if child is None and not below and not own:
                continue
            keys.append(part)
            above, here, node = here, below, child or Node(None, node.place)
        if details["type"] in ("union_tag_invalid", "union_tag_not_found"):
            tag = details["ctx"]["discriminator"].strip("'")
            kinds = [{"enum": list(schema["discriminator"]["mapping"])} for schema in here if "discriminator" in schema]
            return _Fault(details, (*keys, tag), [], kinds)
        return _Fault(details, tuple(keys), above, here)

    def _open(self, schema: Schema) -> Iterator[Schema]:
        """References followed and plain unions opened. A union with a discriminator stays: `loc` will hold its tag."""
        if "$ref" in schema:
            yield from self._open(self.schema["$defs"][schema["$ref"].rsplit("/", 1)[-1]])
        elif "discriminator" not in schema and (members := schema.get("anyOf") or schema.get("allOf")):
            for member in members:
                yield from self._open(member)
        else:
            yield schema


def _below(schema: Schema, key: str | int) -> list[Schema]:
    if isinstance(key, int):
        below = [*schema.get("prefixItems", ())][key : key + 1] or [schema.get("items")]
    else:
        below = [schema.get("properties", {}).get(key, schema.get("additionalProperties"))]
    return [found for found in below if isinstance(found, dict)]


def _literals(schema: Schema) -> list[Any]:
    return [schema["const"]] if "const" in schema else schema.get("enum", [])


def _problem(place: str, faults: list[_Fault]) -> Problem:
    fault, details = faults[0], faults[0].details
    if details["type"] not in _PYDANTIC:
        return Problem(place, "; ".join(other.details["msg"] for other in faults))
    match details["type"]:
        case "missing" | "union_tag_not_found":
            cure = f"add `{fault.keys[-1]}: ...`" + (f" ({fault.about})" if fault.about else "")
            return Problem(place, "the key is missing", fault.words, cure)
        case "extra_forbidden":
            meant = _did_you_mean(fault.keys[-1], fault.names)
            return Problem(
                place, "unknown key", "" if meant else f"one of {', '.join(fault.names)}", meant or "remove it"
            )
        case "value_error":
            return Problem(place, str(details["ctx"]["error"]))
        case "union_tag_invalid":
            found = details["ctx"]["tag"]
            return Problem(place, repr(found), fault.words, _did_you_mean(found, fault.literals))
    expected = _either(_expected(other.details) for other in faults)
    return Problem(place, _show(details["input"]), expected, _cure(details, fault.literals))


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
