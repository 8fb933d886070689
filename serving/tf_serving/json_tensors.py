"""Tensors in JSON, by row (`instances`, `predictions`) or by name (`inputs`, `outputs`)."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.tf_serving.errors import invalid
from serving.tf_serving.servables import Arrays

BYTES = "_bytes"
"""How the name of an output ends whose text is bytes: they are told in base64."""


def parsed(body: bytes) -> dict[str, Any]:
    """A request's JSON object, in which NaN and infinities may stand.

    Raises:
        ServableError: it is none.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise invalid(f"JSON Parse error: {error if body else 'The document is empty'}") from error
    if not isinstance(found, dict):
        raise invalid(f"JSON Value: {_shown(found)} Is not object")
    return found


def inputs_of(request: Mapping[str, Any], types: Mapping[str, Any]) -> tuple[Arrays, bool]:
    """The inputs of a request, and whether it brings them by row.

    Raises:
        ServableError: they do not fit the signature's types.
    """
    if "instances" in request and "inputs" in request:
        raise invalid("Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ")
    if "instances" in request:
        return _of_rows(request["instances"], types), True
    if "inputs" in request:
        return _of_columns(request["inputs"], types), False
    raise invalid("Missing 'inputs' or 'instances' key")


def _of_rows(rows: Any, types: Mapping[str, Any]) -> Arrays:
    if not isinstance(rows, list):
        raise invalid(f"JSON Value: {_shown(rows)} Excepting 'instances' to be an list/array")
    if not rows:
        raise invalid("JSON Value: [] No values in 'instances' array")
    if not _is_object(rows[0]):
        if len(types) > 1:
            raise invalid(
                "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
                "tensorinfo_map"
            )
        return {name: _array(rows, dtype) for name, dtype in types.items()}
    for at, row in enumerate(rows):
        if not _is_object(row):
            raise invalid(f"Expecting object but got list at item {at} of input list")
        if row.keys() != types.keys():
            raise invalid(
                f"Failed to process element: {at} of 'instances' list. JSON object: {_shown(row)} keys must be equal "
                f"to: {','.join(types)}"
            )
    return {name: _array([row[name] for row in rows], dtype) for name, dtype in types.items()}


def _of_columns(columns: Any, types: Mapping[str, Any]) -> Arrays:
    if not _is_object(columns):
        if len(types) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        return {name: _array(columns, dtype) for name, dtype in types.items()}
    for name in types:
        if name not in columns:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: _array(columns[name], dtype) for name, dtype in types.items()}


def _is_object(value: Any) -> bool:
    """An object that does not stand for bytes."""
    return isinstance(value, dict) and not (value.keys() == {"b64"} and isinstance(value["b64"], str))


def _array(value: Any, dtype: Any) -> NDArray[Any]:
    """An array of nested lists of equal lengths."""
    shape, inner = [], value
    while isinstance(inner, list):
        shape.append(len(inner))
        if not inner:
            break
        inner = inner[0]
    found: list[Any] = []
    _fill(value, shape, 0, dtype, found)
    array = np.empty(len(found), dtype.as_numpy_dtype)
    array[:] = found
    return array.reshape(shape)


def _fill(value: Any, shape: list[int], level: int, dtype: Any, found: list[Any]) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            at = f"found at incorrect level: {level + 1} in the JSON DOM. Expected at level: {len(shape)}"
            raise invalid(f"JSON Value: {_shown(value)} {at}")
        found.append(_element(value, dtype))
        return
    if level >= len(shape):
        raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    for each in value:
        _fill(each, shape, level + 1, dtype, found)


def _element(value: Any, dtype: Any) -> Any:
    if dtype.name == "string":
        if isinstance(value, dict):
            return _decoded(value)
        if isinstance(value, str):
            try:
                return value.encode()
            except UnicodeEncodeError as error:
                raise invalid(f"JSON Value: {_shown(value)} is no Unicode") from error
    elif dtype.is_bool:
        if isinstance(value, bool):
            return value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if dtype.is_floating:
            return _decimal(value, dtype)
        if isinstance(value, int) and dtype.min <= value <= dtype.max:
            return value
    raise invalid(f"JSON Value: {_shown(value)} Type: {type(value).__name__} is not of expected type: {dtype.name}")


def _decimal(value: float, dtype: Any) -> float:
    lost = (
        abs(value) >= 2 ** np.finfo(dtype.as_numpy_dtype).nmant * 2
        if isinstance(value, int)
        else (np.isfinite(value) and abs(value) > dtype.max)
    )
    if lost:
        raise invalid(f"Cannot convert JSON value: {_shown(value)} to {dtype.name} without loss of precision.")
    return value


def _decoded(value: dict[str, Any]) -> bytes:
    if _is_object(value):
        raise invalid(f"JSON Value: {_shown(value)} not formatted correctly for base64 data")
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("Unable to base64 decode") from error


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def response_of(outputs: Arrays, by_row: bool) -> dict[str, Any]:
    """A response's JSON object: by row, of one output alone the values, of several an object a row.

    Raises:
        ServableError: by row, and outputs have no rows, or not as many.
    """
    listed = {name: _listed(array, name) for name, array in outputs.items()}
    alone = next(iter(listed.values())) if len(listed) == 1 else None
    if not by_row:
        return {"outputs": listed if alone is None else alone}
    sizes = {array.shape[0] if array.ndim else -1 for array in outputs.values()}
    if len(sizes) != 1 or sizes == {-1}:
        shapes = ", ".join(f"{name}: {list(array.shape)}" for name, array in outputs.items())
        raise invalid(f"Tensors have no common batch size ({shapes}); ask by 'inputs'")
    if alone is not None:
        return {"predictions": alone}
    return {"predictions": [dict(zip(listed, row, strict=True)) for row in zip(*listed.values(), strict=True)]}


def _listed(array: NDArray[Any], name: str) -> Any:
    if array.dtype.kind not in "OS":
        return array.tolist()
    told = [_text(value, name) for value in array.reshape(-1).tolist()]
    whole = np.empty(len(told), object)
    whole[:] = told
    return whole.reshape(array.shape).tolist()


def _text(value: bytes, name: str) -> str | dict[str, str]:
    if name.endswith(BYTES):
        return {"b64": base64.b64encode(value).decode()}
    return value.decode(errors="replace")
