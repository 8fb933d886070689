"""From raw requests (JSON) to the arrays that a tower's serving signature takes."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.bundle.manifest import (
    CategoricalField,
    MultiValuedField,
    NumericField,
    RawField,
    SequenceField,
    VectorField,
    age_inputs,
)
from recsys.errors import Problem, RequestError

Request = Mapping[str, object]
"""Raw values by feature; a feature that is left out is missing."""
Arrays = dict[str, NDArray[Any]]
_ANY_CATEGORY = "text, an integer, true, false or null"
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class RequestEncoder:
    """Encodes requests for one tower: `encode(requests)` returns its inputs by name (docs/architecture.md)."""

    def __init__(self, fields: Mapping[str, RawField]) -> None:
        self._fields = dict(fields)
        self._ages = age_inputs(fields)
        self.inputs: frozenset[str] = frozenset(self._fields) | frozenset(self._ages)
        """Names of the tower's inputs: the features, and `NAME.age` for sequences with ages."""

    def encode(self, requests: Sequence[Request]) -> Arrays:
        """Arrays with one row per request: text (object) [B] or [B, L], numbers (float32) [B], [B, L] or [B, D].

        Integers become decimal text, booleans `true` and `false`; null and "" are missing: "" for categories, NaN for
        numbers, zeros for vectors. Lists are cut to `max_length` (the newest events of a sequence, the first values of
        a set) and padded at the end, with "" or 0.

        Raises:
            RequestError: with one problem for each value that does not fit its feature.
        """
        self.check(requests, "requests")
        arrays: Arrays = {}
        for name, field in self._fields.items():
            arrays |= _arrays(name, field, requests)
        return arrays

    def check(self, requests: Sequence[Request], name: str) -> None:
        """Whether raw requests fit; `name` is what errors call them, if there are several.

        Raises:
            RequestError: with one problem for each value that does not.
        """
        problems: list[Problem] = []
        for number, request in enumerate(requests):
            where = "features" if len(requests) == 1 else f"{name}[{number}].features"
            problems += [
                self._unknown(f"{where}.{feature}", feature) for feature in request if feature not in self.inputs
            ]
            problems += self._misfits(where, request)
        if problems:
            raise RequestError(problems)

    def _unknown(self, place: str, name: str) -> Problem:
        close = difflib.get_close_matches(name, self.inputs, n=1)
        cure = f"did you mean {close[0]}?" if close else "leave it out"
        return Problem(shown(place), "no such feature", f"one of {', '.join(sorted(self.inputs))}", cure)

    def _misfits(self, where: str, request: Request) -> list[Problem]:
        problems = []
        for name, field in self._fields.items():
            problems += _problems(field, f"{where}.{name}", request.get(name))
        for age, name in self._ages.items():
            problems += _age_problems(f"{where}.{age}", name, request.get(name), request.get(age))
        return problems


def text_of(value: object, place: str) -> str:
    """A categorical raw value as text, as `prepare` wrote it into the vocabulary.

    Raises:
        RequestError: the value is a float, a list or text that is no Unicode.
    """
    problems = _category_problems(place, value)
    if problems:
        raise RequestError(problems)
    return _text(value)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def shown(value: object) -> str:
    """What was found, short and printable on every terminal (lone surrogates and control characters escaped)."""
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _category_problems(place: str, value: object) -> list[Problem]:
    if isinstance(value, float):
        return [Problem(place, f"the float {value}", _ANY_CATEGORY, "send categories as text or integers")]
    if not (value is None or isinstance(value, str | int)):
        return [Problem(place, f"{type(value).__name__} {shown(value)}", _ANY_CATEGORY, "send one value")]
    if isinstance(value, str) and not _is_unicode(value):
        return [Problem(place, f"text with half a surrogate pair: {shown(value)}", "Unicode text", "send valid UTF-8")]
    return []


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def number_problems(place: str, value: object) -> list[Problem]:
    """What is wrong with a raw number, if it is not null."""
    if value is None:
        return []
    if isinstance(value, bool) or not isinstance(value, int | float):
        return [Problem(place, f"{type(value).__name__} {shown(value)}", "a number or null", "send a JSON number")]
    if not abs(value) <= _FLOAT32_MAX:  # NaN fails, too
        return [Problem(place, shown(value), "a finite float32 number", "send null for a missing number")]
    return []


def _list_problems(place: str, value: object, what: str, each: Callable[[str, object], list[Problem]]) -> list[Problem]:
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        return [Problem(place, f"{type(value).__name__} {shown(value)}", what, "send a JSON list")]
    return [problem for n, element in enumerate(value) for problem in each(f"{place}[{n}]", element)]


def _problems(field: RawField, place: str, value: object) -> list[Problem]:
    match field:
        case CategoricalField():
            return _category_problems(place, value)
        case NumericField():
            return number_problems(place, value)
        case VectorField():
            return _vector_problems(field, place, value)
        case MultiValuedField() | SequenceField():
            return _list_problems(place, value, "a list of values", _category_problems)


def _vector_problems(field: VectorField, place: str, value: object) -> list[Problem]:
    what = f"a list of {field.dim} numbers"
    problems = _list_problems(place, value, what, _component_problems)
    if not problems and isinstance(value, list | tuple) and len(value) != field.dim:
        return [Problem(place, f"a list of {len(value)}", what, "send null for a missing vector")]
    return problems


def _component_problems(place: str, value: object) -> list[Problem]:
    if value is None:
        return [Problem(place, "null", "a number", "send null for the whole vector if it is missing")]
    return number_problems(place, value)


def _age_problems(place: str, name: str, events: object, ages: object) -> list[Problem]:
    problems = _list_problems(place, ages, "a list of seconds", _one_age_problems)
    if problems or not isinstance(events, list | tuple | None):
        return problems
    found, needed = len(ages) if isinstance(ages, list | tuple) else 0, len(events or ())
    if found == needed:
        return []
    return [Problem(place, f"{found} ages", f"{needed}, one for each of {name}", "send each event's age in seconds")]


def _one_age_problems(place: str, value: object) -> list[Problem]:
    problems = _component_problems(place, value)
    if not problems and isinstance(value, int | float) and value < 0:
        return [Problem(place, f"{value} seconds", "0 or more", "send how long ago the event was")]
    return problems


def _arrays(name: str, field: RawField, requests: Sequence[Request]) -> Arrays:
    """The arrays of one feature; the values have been checked."""
    values: list[Any] = [request.get(name) for request in requests]
    match field:
        case CategoricalField():
            return {name: np.array([_text(v) for v in values], dtype=object)}
        case NumericField():
            return {name: np.array([math.nan if v is None else v for v in values], dtype=np.float32)}
        case VectorField():
            zeros = [0.0] * field.dim
            rows = [zeros if v is None else v for v in values]
            return {name: np.array(rows, dtype=np.float32).reshape(len(rows), field.dim)}
        case MultiValuedField():
            present = [[_text(v) for v in row or () if v is not None and v != ""] for row in values]
            return {name: _padded([row[: field.max_length] for row in present], "", object)}
        case SequenceField():
            newest = slice(-field.max_length, None)
            arrays = {name: _padded([[_text(v) for v in (row or ())[newest]] for row in values], "", object)}
            if field.age:
                ages: list[Any] = [request.get(f"{name}.age") for request in requests]
                arrays[f"{name}.age"] = _padded([(row or ())[newest] for row in ages], 0.0, np.float32)
            return arrays


def _padded(rows: list[Sequence[Any]] | list[list[str]], fill: object, dtype: type) -> NDArray[Any]:
    """[B, L] with L the longest row's length, and at least 1 (a graph may reduce over it)."""
    padded: NDArray[Any] = np.full((len(rows), max([1, *map(len, rows)])), fill, dtype=dtype)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = row
    return padded
