"""From a YAML file to a config object, or to one error that names everything that is wrong with the file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from recsys.config import document
from recsys.config.explain import problems, where
from recsys.errors import ConfigError

C = TypeVar("C", bound=BaseModel)


@dataclass(frozen=True)
class Loaded(Generic[C]):
    """A config and the file it came from."""

    config: C
    path: Path
    """The file. Paths inside the config are relative to its folder."""
    root: document.Node = field(repr=False)

    def where(self, key: str) -> str:
        """The place of a dotted key (or of the nearest key above it), as problems name it: `file:line: key`."""
        return where(self.root, key.split("."))


def load(
    path: str | Path, model: type[C], overrides: Sequence[str] = (), env: Mapping[str, str] = os.environ
) -> Loaded[C]:
    """Reads a YAML file as `model`.

    In the file, `include: other.yaml` (or a list, the later wins) puts other files beneath this one, relative to it;
    `${VAR}` and `${VAR:-default}` stand for environment variables. A plain scalar that is wholly one variable takes the
    type of its text; a quoted one stays text.

    Args:
        path: the file.
        model: the config class.
        overrides: `a.b.c=value`, the value in YAML; list items by index (`a.0.b`).
        env: the environment variables.

    Raises:
        ConfigError: with one problem for each mistake, in the file's order.
    """
    root = document.read(path, overrides, env)
    try:
        config = model.model_validate(root.plain)
    except ValidationError as error:
        raise ConfigError(problems(error, model, root)) from error
    return Loaded(config, Path(path), root)
