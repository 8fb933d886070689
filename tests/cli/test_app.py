"""The command line's base: what loads, what is printed where, which exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import recsys
from recsys.cli import app as application
from recsys.cli._output import JsonOption, Output, SetOption
from recsys.errors import DataError, Problem

HEAVY = {"tensorflow", "tf_keras", "pydantic", "numpy", "pandas", "pyarrow", "duckdb", "ibis", "yaml", "rich"}


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """`recsys` with one command, which does as it is told."""
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)

    @app.callback()
    def _group() -> None:
        pass

    @app.command()
    def act(how: str, overrides: SetOption, as_json: JsonOption = False) -> None:
        match how:
            case "mistake":
                raise DataError([Problem("a.csv: é", "2 NaN", "none", "drop them"), Problem("b.csv", "is\nempty")])
            case "bug":
                raise ZeroDivisionError("no such luck")
            case "interrupt":
                raise KeyboardInterrupt
            case "refuse":
                raise typer.Exit(1)
        out = Output(as_json)
        out.note("working")
        out.table("[b]Table[/b]", ["name", "n"], [("[red]x", 1), ("y" * 300, 22)])
        out.text(f"set {overrides}")
        out.wrote(Path("runs/x"))
        out.result({"path": Path("a"), "loss": float("nan"), "set": overrides})

    monkeypatch.setattr(application, "app", app)


Streams = pytest.CaptureFixture[str]


def test_help_and_version_load_nothing_heavy() -> None:
    for option in ("--help", "--version"):
        code = (
            f"import sys; from recsys.cli import main; main([{option!r}]); "
            f"heavy = {HEAVY!r} & set(sys.modules); sys.exit(f'loaded {{heavy}}' if heavy else 0)"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr


def test_help_names_the_commands(capsys: Streams) -> None:
    assert application.main([]) == application.main(["-h"]) == 0
    out = capsys.readouterr().out
    assert out.count("Usage: recsys ") == 2
    commands = (
        "init",
        "prepare",
        "train",
        "evaluate",
        "backtest",
        "compare",
        "inspect",
        "export",
        "run",
        "recommend",
        "serve",
        "doctor",
        "config",
        "data",
    )
    for command in commands:
        assert out.count(f"\n  {command} ") == 2, command


def test_version(capsys: Streams) -> None:
    assert application.main(["--version"]) == 0
    assert capsys.readouterr().out == f"recsys {recsys.__version__}\n"


def test_a_mistake_is_one_line_each_on_stderr(demo: None, capsys: Streams) -> None:
    assert application.main(["act", "mistake"]) == 1
    assert capsys.readouterr() == (
        "",
        "error: a.csv: é: 2 NaN; expected none; drop them\nerror: b.csv: is empty\n",
    )


def test_a_mistake_for_programs_is_one_object_on_stdout(demo: None, capsys: Streams) -> None:
    assert application.main(["act", "mistake", "--json"]) == 1
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out) == {
        "error": [
            {"place": "a.csv: é", "found": "2 NaN", "expected": "none", "cure": "drop them"},
            {"place": "b.csv", "found": "is\nempty", "expected": "", "cure": ""},
        ]
    }


def test_a_bug_is_one_line_unless_debugging(demo: None, capsys: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECSYS_DEBUG", raising=False)
    assert application.main(["act", "bug"]) == 70
    assert capsys.readouterr().err == (
        "error: internal error: ZeroDivisionError: no such luck; please report; RECSYS_DEBUG=1 shows the trace\n"
    )
    monkeypatch.setenv("RECSYS_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        application.main(["act", "bug"])


def test_an_interrupt_is_130(demo: None, capsys: Streams) -> None:
    assert application.main(["act", "interrupt"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_commands_own_exit_code_counts(demo: None) -> None:
    assert application.main(["act", "refuse"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["atc"], "error: command line: No such command 'atc'"),
        (["act"], "error: command line: Missing argument 'how'; recsys act --help"),
        (["act", "--sett", "x"], "error: command line: No such option"),
        (["act", "go", "more"], "error: command line: Got unexpected extra argument(s) (more); recsys act --help"),
    ],
)
def test_a_command_line_that_is_not_understood(demo: None, capsys: Streams, arguments: list[str], message: str) -> None:
    assert application.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(message)
    assert err.count("\n") == 1
    assert application.main([*arguments, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"][0]["place"] == "command line"


def test_output_for_people(demo: None, capsys: Streams) -> None:
    assert application.main(["act", "go", "--set", "a.b=1", "--set", "c=[2]"]) == 0
    out, err = capsys.readouterr()
    assert err == "working\n"
    assert out.endswith("set ['a.b=1', 'c=[2]']\nwrote runs/x\n")
    assert "[b]Table[/b]" in out
    assert "[red]x" in out
    assert out.count("y") == 300


def test_output_for_programs(demo: None, capsys: Streams) -> None:
    assert application.main(["act", "go", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == "working\n"
    assert json.loads(out) == {"path": "a", "loss": None, "set": []}
