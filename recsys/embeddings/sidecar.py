"""Arrays of a plan: in the JSON a file's name, its SHA-256 and its shape; beside the JSON the file itself."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import PlainSerializer, PlainValidator, SerializationInfo, ValidationInfo

from recsys.config.base import Config

FOLDER = "folder"
"""Key of the validation's context: where the files are."""
FILES = "files"
"""Key of the serialisation's context: a dict that takes the files, from name to content."""


class _Reference(Config):
    file: str
    sha256: str
    shape: tuple[int, ...]


def _file_of(array: NDArray) -> tuple[str, bytes]:
    """Name and content of an array's file; equal arrays have one file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    content = buffer.getvalue()
    return f"{array.dtype.name}-{hashlib.sha256(content).hexdigest()[:16]}.npy", content


def _reference(array: NDArray, info: SerializationInfo) -> dict[str, Any]:
    name, content = _file_of(array)
    if isinstance(info.context, Mapping) and FILES in info.context:
        info.context[FILES][name] = content
    return {"file": name, "sha256": hashlib.sha256(content).hexdigest(), "shape": list(array.shape)}


def _array(dtype: type[np.generic]) -> PlainValidator:
    """From an array, or from a reference and the folder in the context."""

    def read(raw: Any, info: ValidationInfo) -> NDArray:
        array = raw if isinstance(raw, np.ndarray) else _read(_Reference.model_validate(raw, strict=False), info)
        if array.dtype != dtype:
            raise ValueError(f"numbers of type {array.dtype}, not {np.dtype(dtype)}")
        if array.dtype == np.float32 and not np.isfinite(array).all():
            raise ValueError("a number that is not finite")
        return _frozen(array)

    return PlainValidator(read)


def _read(reference: _Reference, info: ValidationInfo) -> NDArray:
    folder = Path((info.context or {})[FOLDER])
    if Path(reference.file).name != reference.file:
        raise ValueError(f"{reference.file!r} is no file of the plan's folder")
    try:
        content = (folder / reference.file).read_bytes()
    except OSError as error:
        raise ValueError(f"{reference.file} cannot be read ({error.strerror})") from error
    if hashlib.sha256(content).hexdigest() != reference.sha256:
        raise ValueError(f"{reference.file} is not what the plan was saved with (SHA-256)")
    array: NDArray = np.load(io.BytesIO(content), allow_pickle=False)
    if array.shape != reference.shape:
        raise ValueError(f"{reference.file} has the shape {array.shape}, not {reference.shape}")
    return array


def _frozen(array: NDArray) -> NDArray:
    if array.flags.writeable:
        array = array.copy()
        array.flags.writeable = False
    return array


Bits = Annotated[NDArray[np.bool_], _array(np.bool_), PlainSerializer(_reference)]
"""An array of bool, kept in a file of its own."""
Floats = Annotated[NDArray[np.float32], _array(np.float32), PlainSerializer(_reference)]
"""An array of finite float32, likewise."""
