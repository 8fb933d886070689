"""The strict base of every config class."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")


class Config(BaseModel):
    """A config object: immutable, no unknown keys, no silent coercion (`"4"` is not 4, `1` is not true).

    Every field of every config class carries a docstring: it becomes the description in `recsys config schema`,
    which editors show beside the key.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
    )


Many = Annotated[tuple[T, ...], Field(strict=False)]
"""A sequence: a YAML or Python list is accepted where the immutable config holds a tuple."""
