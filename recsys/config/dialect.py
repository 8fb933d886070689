"""The YAML dialect of configs: YAML 1.2's core schema, on PyYAML (which speaks 1.1).

Only `true` and `false` are booleans (`yes`, `no`, `on`, `off` are text), `1e-3` is a number, dates are text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import yaml

PREFIX = "tag:yaml.org,2002:"
_SCALARS: dict[str, tuple[str, str, Callable[[str], Any]]] = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF", lambda text: text.lower() == "true"),
    "int": (
        r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
        "-+0123456789",
        lambda text: int(text, 0 if text[:2] in ("0o", "0x") else 10),
    ),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
        lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
    ),
    "null": (r"~|null|Null|NULL|", "~nN", lambda _: None),
}
"""What a plain scalar may be besides text: pattern, first characters, reading. The first that fits wins."""


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (PyYAML's own name and form)


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # PyYAML loses NEL and the Unicode line separators unless they are escaped; a plain `<<` would be a merge key.
        quoted = data == "<<" or not data.isprintable()
        return self.represent_scalar(PREFIX + "str", data, style='"' if quoted else None)


_Dumper.add_representer(str, _Dumper.represent_str)


class _Resolving(Protocol):
    @classmethod
    def add_implicit_resolver(cls, tag: str, regexp: Any, first: Any) -> None: ...


def _speak(dialect: type[_Resolving]) -> None:
    for name, (pattern, first, _) in _SCALARS.items():
        dialect.add_implicit_resolver(PREFIX + name, re.compile(rf"^(?:{pattern})$"), [*first, ""])


_speak(_Loader)
_speak(_Dumper)


def parse(text: str) -> yaml.Node | None:
    """The document's node, or None for an empty one.

    Raises:
        yaml.YAMLError: the text is not YAML.
    """
    return yaml.compose(text, Loader=_Loader)


def plain_tag(text: str) -> str:
    """The tag of a plain (unquoted) scalar."""
    return next(
        (PREFIX + name for name, (pattern, _, _) in _SCALARS.items() if re.fullmatch(pattern, text)), PREFIX + "str"
    )


def construct(tag: str, text: str) -> Any:
    """A scalar's value.

    Raises:
        ValueError: a tag outside the core schema, or text that does not fit the tag.
    """
    name = tag.removeprefix(PREFIX)
    if name == "str":
        return text
    if name not in _SCALARS:
        raise ValueError(f"the tag {tag.replace(PREFIX, '!!')}")
    pattern, _, read = _SCALARS[name]
    if not re.fullmatch(pattern, text):
        raise ValueError(f"the tag !!{name} on {text!r}")
    return read(text)


def dump(data: Any) -> str:
    """YAML text of plain data; reading it gives the same data (a `${` in text comes back as text)."""
    return yaml.dump(_escaped(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def _escaped(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {key: _escaped(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_escaped(value) for value in data]
    return data.replace("${", "$${") if isinstance(data, str) else data
