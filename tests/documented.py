"""The commands that a page of documentation shows."""

from __future__ import annotations

import re
import shlex
from typing import Any

import typer.main

from recsys.cli.app import app

CLI: Any = typer.main.get_command(app)


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """Every `recsys ...` in inline code or at the start of a line of a shell block."""
    inline = re.findall(r"`(recsys [^`]+)`", text)
    shell = [
        line.partition(" #")[0].strip().removesuffix(" &")
        for block in blocks(text, "sh")
        for line in block.splitlines()
    ]
    return [*inline, *(line for line in shell if line.startswith("recsys "))]


def must_parse(command: str) -> None:
    """Parsed, not run; a mere name, such as `recsys config check`, need not have its arguments."""
    words, found = shlex.split(command)[1:], CLI
    while hasattr(found, "commands") and not words[0].startswith("-"):
        found = found.commands[words.pop(0)]
    if words and words != ["--help"]:
        found.make_context(found.name, words)
