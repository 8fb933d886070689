"""YAML documents that remember where every key stands: includes, environment variables, overrides."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from recsys.config import dialect
from recsys.errors import ConfigError, Problem

_VARIABLE = re.compile(r"\$(?P<escape>\$)?\{(?P<body>[^}]*)(?P<close>\})?")
_BODY = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(:-(?P<default>.*))?", re.DOTALL)
_AFTER_FILES = 1_000_000
_TAGS = ("kind", "method")
"""Keys that say which config class a mapping is."""


@dataclass(frozen=True, order=True)
class Place:
    """Where a key stands. Places sort in the order of reading: a file, the files it includes, then overrides."""

    rank: int
    line: int
    source: str
    override: bool = False

    def __str__(self) -> str:
        return self.source if self.override else f"{self.source}:{self.line}"

    def at(self, line: int) -> Place:
        """The same file (or override) at another line."""
        return Place(self.rank, line, self.source, self.override)


@dataclass
class Node:
    """A value and the place of its key."""

    value: Any
    """`dict[str, Node]`, `list[Node]`, or a scalar."""
    place: Place

    @property
    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: child.plain for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain for child in self.value]
        return self.value

    def child(self, key: str | int) -> Node | None:
        """The node under a key of a mapping or an index of a list, or None."""
        if isinstance(self.value, dict):
            return self.value.get(str(key))
        if isinstance(self.value, list) and str(key).isdecimal() and int(key) < len(self.value):
            return self.value[int(key)]
        return None


def read(path: str | Path, overrides: Sequence[str], env: Mapping[str, str]) -> Node:
    """The document at `path` with its includes merged in and the overrides `a.b.c=value` applied.

    Raises:
        ConfigError: files that cannot be read, YAML errors, variables that are not set, overrides that do not fit.
    """
    reader = _Reader(env)
    root = reader.file(Path(path))
    for rank, override in enumerate(overrides, start=_AFTER_FILES):
        reader.override(root, override, rank)
    if reader.problems:
        raise ConfigError(reader.problems)
    return root


class _Reader:
    """Reads files, each with the ones it includes. What does not stop the reading is collected in `problems`."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = env
        self.problems: list[Problem] = []
        self.files_read = 0

    def file(self, path: Path, including: tuple[Path, ...] = ()) -> Node:
        start = Place(self.files_read, 1, str(path))
        self.files_read += 1
        root = self.compose(_text(path), start)
        if root.value is None:
            root.value = {}
        if not isinstance(root.value, dict):
            raise ConfigError(str(start), "the file does not hold keys", "a mapping (`key: value` lines)")
        include = root.value.pop("include", None)
        if include is None:
            return root
        base: Node | None = None
        for name in include.value if isinstance(include.value, list) else [include]:
            included = self.file(_included_path(path, name, (*including, path.resolve())), (*including, path.resolve()))
            base = included if base is None else _merged(base, included)
        return root if base is None else _merged(base, root)

    def compose(self, text: str, start: Place) -> Node:
        """Parses text; lines count from `start`."""
        try:
            node = dialect.parse(text)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = start if mark is None else start.at(mark.line + 1)
            line = "" if mark is None else text.splitlines()[mark.line : mark.line + 1]
            raise _syntax_error(place, error.problem or error.context or str(error), "".join(line)) from error
        except yaml.YAMLError as error:
            raise _syntax_error(start, str(error).splitlines()[0]) from error
        return Node(None, start) if node is None else self._node(node, start, ())

    def override(self, root: Node, override: str, rank: int) -> None:
        """Sets the value that `a.b.c=value` names; mappings on the way are made where they are missing."""
        dotted, equals, text = override.partition("=")
        place = Place(rank, 1, f"--set {dotted}", override=True)
        keys = dotted.split(".")
        if not equals or not all(keys):
            raise ConfigError(f"--set {override}", "not of the form KEY=VALUE", "--set dotted.key=value")
        value, node = self.compose(text, place), root
        for depth, key in enumerate(keys):
            child = value if depth == len(keys) - 1 else node.child(key) or Node({}, place)
            if isinstance(node.value, dict):
                node.value[key] = child
            elif node.child(key) is not None:
                node.value[int(key)] = child
            else:
                raise ConfigError([_no_way(place, node, ".".join(keys[:depth]), key)])
            node = child

    def _node(self, node: yaml.Node, place: Place, parents: tuple[yaml.Node, ...]) -> Node:
        if isinstance(node, yaml.ScalarNode):
            return Node(self._scalar(node, place), place)
        if node in parents:
            raise ConfigError(str(place), "an alias that contains itself", cure="write the value out")
        if node.tag not in (dialect.PREFIX + "map", dialect.PREFIX + "seq"):
            self._problem(place, f"the tag {node.tag}", "plain YAML without tags", "remove the tag")
        if isinstance(node, yaml.MappingNode):
            return Node(self._mapping(node, place, (*parents, node)), place)
        items = node.value
        return Node([self._node(item, place.at(item.start_mark.line + 1), (*parents, node)) for item in items], place)

    def _mapping(self, node: yaml.MappingNode, start: Place, parents: tuple[yaml.Node, ...]) -> dict[str, Node]:
        children: dict[str, Node] = {}
        for key, child in node.value:
            place = start.at(key.start_mark.line + 1)
            if not isinstance(key, yaml.ScalarNode):
                self._problem(place, "a list or mapping as a key", "a name")
            elif key.value == "<<" and key.style is None:
                self._problem(place, "a merge key `<<`", cure="put what is shared into a file and `include` it")
            elif key.value in children:
                also = children[key.value].place
                self._problem(f"{place}: {key.value}", f"the key stands twice (also {also})", cure="remove one of them")
            else:
                children[key.value] = self._node(child, place, parents)
        return children

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> Any:
        text = _VARIABLE.sub(lambda match: self._variable(match, place), node.value)
        whole = _VARIABLE.fullmatch(node.value)
        tag = dialect.plain_tag(text) if whole and not whole["escape"] and node.style is None else node.tag
        try:
            return dialect.construct(tag, text)
        except ValueError as error:
            self._problem(place, str(error), "plain YAML without tags", "remove the tag")
            return None

    def _variable(self, match: re.Match[str], place: Place) -> str:
        """`${VAR}`, or `${VAR:-default}` (the default also where VAR is empty); `$${` stands for `${`."""
        if match["escape"]:
            return match[0][1:]
        body = _BODY.fullmatch(match["body"])
        if body is None or not match["close"]:
            self._problem(place, match[0], "${VAR} or ${VAR:-default}", "for a literal `${` write `$${`")
            return ""
        name, default = body["name"], body["default"]
        value = self.env.get(name)
        if value is None and default is None:
            cure = f"export {name}=..., or give a default: ${{{name}:-default}}"
            self._problem(place, f"the environment variable {name} is not set", cure=cure)
        return value or default or ""

    def _problem(self, place: Place | str, found: str, expected: str = "", cure: str = "") -> None:
        self.problems.append(Problem(str(place), found, expected, cure))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(str(path), "no such file", "a YAML file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), f"byte {error.start} is not UTF-8", "a YAML file in UTF-8") from error
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read ({error.strerror})", "a YAML file") from error


def _included_path(path: Path, name: Node, chain: tuple[Path, ...]) -> Path:
    place = f"{name.place}: include"
    if not isinstance(name.value, str):
        raise ConfigError(place, f"{name.plain!r}", "a file name, or a list of file names")
    target = path.parent / name.value
    if target.resolve() in chain:
        raise ConfigError(place, f"{name.value} leads back to this file", cure="break the circle of includes")
    if not target.is_file():
        raise ConfigError(place, f"no file {target}", "a YAML file, relative to the one that includes it")
    return target


def _merged(base: Node, top: Node) -> Node:
    """`top` over `base`, mapping by mapping. Another `kind` is another thing: it replaces, and inherits no keys."""
    if not isinstance(base.value, dict) or not isinstance(top.value, dict):
        return top
    both = [tag for tag in _TAGS if tag in base.value and tag in top.value]
    if any(base.value[tag].plain != top.value[tag].plain for tag in both):
        return top
    value = dict(base.value)
    for key, node in top.value.items():
        value[key] = _merged(value[key], node) if key in value else node
    return Node(value, top.place)


def _no_way(place: Place, node: Node, parent: str, key: str) -> Problem:
    if isinstance(node.value, list):
        return Problem(str(place), f"`{parent}` is a list of {len(node.value)}, it has no {key!r}", "an index from 0")
    return Problem(str(place), f"`{parent}` is {node.value!r} ({node.place}) and has no keys", "a key under a mapping")


def _syntax_error(place: Place, problem: str, line: str = "") -> ConfigError:
    cure = "indent with spaces" if r"'\t'" in problem else "look at this line and the one before"
    if re.search(r"[{\[].*\$\{", line):
        cure = 'inside { } and [ ] write "${VAR}" in quotes'
    return ConfigError(str(place), f"not YAML: {problem}", cure=cure)
