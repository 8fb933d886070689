"""The command line, one file per command. Heavy imports happen inside the commands: `recsys --help` loads none."""

from recsys.cli.app import main

__all__ = ["main"]
