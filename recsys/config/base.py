"""The strict base of every config class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

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


def default_tag(key: str, value: str) -> BeforeValidator:
    """For a discriminated union whose usual member need not be named: a mapping without `key` is read as if it said
    `key: value`.
    """

    def fill(raw: Any) -> Any:
        return {key: value, **raw} if isinstance(raw, dict) else raw

    return BeforeValidator(fill)


Misfit = tuple[tuple[str, ...], str]
"""A key of a config, and why it does not fit the rest."""


def misfits(found: Sequence[Misfit]) -> ValidationError:
    """For a model validator to raise: parts that are sound by themselves but do not fit each other, each at its own
    key.
    """
    return ValidationError.from_exception_data(
        "misfits",
        [
            InitErrorDetails(type=PydanticCustomError("misfit", "{text}", {"text": text}), loc=key, input=None)
            for key, text in found
        ],
    )
