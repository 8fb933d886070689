"""What is tuned: keys of the experiment's YAML, and what they may be.

space:
  - {keys: [model.loss.temperature], kind: float, low: 0.05, high: 0.5, log: true}
  - {keys: [embeddings.tables.user.dim, embeddings.tables.movie.dim], kind: choice, values: [32, 64, 128]}
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, JsonValue, model_validator

from recsys.config.base import Config, Many
from recsys.config.load import load


class _Parameter(Config):
    keys: Annotated[Many[str], Field(min_length=1)]
    """Dotted keys of the experiment's YAML, which all get the same value; the first one names the parameter."""

    @property
    def name(self) -> str:
        """The first key."""
        return self.keys[0]

    def overrides(self, value: JsonValue) -> list[str]:
        """Of the YAML, of which JSON is a part."""
        return [f"{key}={json.dumps(value)}" for key in self.keys]


class FloatRange(_Parameter):
    """Any number between two."""

    kind: Literal["float"]
    low: FiniteFloat
    high: FiniteFloat
    log: bool = False
    """Whether equal ratios count as equal steps."""

    @property
    def ends(self) -> tuple[JsonValue, ...]:
        """The least and the greatest value."""
        return self.low, self.high

    @model_validator(mode="after")
    def _sound(self) -> Self:
        _check_range(self.low, self.high, self.log)
        return self


class IntRange(_Parameter):
    """Any whole number between two."""

    kind: Literal["int"]
    low: int
    high: int
    log: bool = False
    """Whether equal ratios count as equal steps."""

    @property
    def ends(self) -> tuple[JsonValue, ...]:
        """The least and the greatest value."""
        return self.low, self.high

    @model_validator(mode="after")
    def _sound(self) -> Self:
        _check_range(self.low, self.high, self.log)
        return self


class Choice(_Parameter):
    """One of several values, in no order."""

    kind: Literal["choice"]
    values: Annotated[Many[JsonValue], Field(min_length=2)]
    """Whatever the YAML takes there: numbers, texts, lists, mappings."""

    @property
    def ends(self) -> tuple[JsonValue, ...]:
        """All values."""
        return self.values


def _check_range(low: float, high: float, log: bool) -> None:
    if low >= high:
        raise ValueError(f"low is {low}, which is not below high, {high}")
    if log and low <= 0:
        raise ValueError(f"low is {low}, which has no logarithm; raise it, or leave log out")


Parameter = Annotated[FloatRange | IntRange | Choice, Field(discriminator="kind")]


class Space(Config):
    """What is tuned."""

    space: Annotated[Many[Parameter], Field(min_length=1)]
    """Each key once."""

    @model_validator(mode="after")
    def _once(self) -> Self:
        keys = [key for parameter in self.space for key in parameter.keys]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)}: named twice; name each key once")
        return self


def read_space(path: Path | str) -> Space:
    """From its YAML file.

    Raises:
        ConfigError: with one problem for each mistake.
    """
    return load(path, Space).config


def contains(parameter: FloatRange | IntRange | Choice, value: JsonValue) -> bool:
    """Whether a parameter may have a value."""
    if isinstance(parameter, Choice):
        return value in parameter.values
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return parameter.low <= value <= parameter.high
