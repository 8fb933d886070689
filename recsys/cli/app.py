"""The list of commands, and what becomes of their errors."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import recsys
from recsys.cli import (
    backtest,
    compare,
    config,
    data,
    doctor,
    evaluate,
    explain,
    export,
    features,
    init,
    inspect,
    items,
    plan,
    predict,
    prepare,
    quickstart,
    recommend,
    report,
    run,
    search,
    serve,
    train,
    tune,
)
from recsys.errors import Problem, RecsysError

app = typer.Typer(
    name="recsys",
    help="From raw interaction logs to served recommendations, by one YAML file.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"recsys {recsys.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


app.command()(quickstart.quickstart)
app.command()(init.init)
app.command()(prepare.prepare)
app.command()(train.train)
app.command()(evaluate.evaluate)
app.command()(backtest.backtest)
app.command()(compare.compare)
app.command()(export.export)
app.command()(run.run)
app.command()(inspect.inspect)
app.command()(explain.explain)
app.command()(tune.tune)
app.command()(report.report)
app.command()(search.search)
app.add_typer(plan.app, name="plan")
app.add_typer(items.app, name="items")
app.add_typer(features.app, name="features")
app.command()(recommend.recommend)
app.command()(predict.predict)
app.command()(serve.serve)
app.command()(serve.activate)
app.command()(serve.rollback)
app.add_typer(config.app, name="config")
app.add_typer(data.app, name="data")
app.command()(doctor.doctor)


_SURROUNDINGS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}
"""What the machine refuses: rights and room. Any other error of the operating system is a bug."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code.

    0 success; 1 a mistake the user can cure; 2 a command line that cannot be understood; 70 a bug; 130 interrupted.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    as_json = "--json" in arguments
    _hush_tensorflow()
    try:
        code = app(args=arguments, prog_name="recsys", standalone_mode=False)
    except RecsysError as error:
        _report(error.problems, as_json)
        return 1
    except typer.TyperException as error:
        if not as_json and "\n" in error.format_message():  # a group without a command: the message is its help
            typer.echo(error.format_message(), err=True)
            return error.exit_code
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "recsys"
        _report([Problem("command line", error.format_message().rstrip("."), cure=f"{command} --help")], as_json)
        return error.exit_code
    except typer.Abort:
        code = 130
    except Exception as error:
        if os.environ.get("RECSYS_DEBUG") == "1":
            raise
        if isinstance(error, OSError) and error.errno in _SURROUNDINGS:
            place, cure = str(error.filename or "files"), "choose another folder, or make room and rights"
            _report([Problem(place, str(error.strerror), cure=cure)], as_json)
            return 1
        found = f"{type(error).__name__}: {error}"
        _report([Problem("internal error", found, cure="please report; RECSYS_DEBUG=1 shows the trace")], as_json)
        return 70
    if code == 130:
        typer.echo("interrupted", err=True)
    return code if isinstance(code, int) else 0


def _hush_tensorflow() -> None:
    """Keeps TensorFlow's talk off the terminal: no GPU, retracing, ... (what goes wrong is raised as well).

    Before TensorFlow is loaded, which reads the level then; whoever has set it has their way.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


def _report(problems: Sequence[Problem], as_json: bool) -> None:
    if as_json:
        fields = ("place", "found", "expected", "cure")
        errors = [{name: getattr(problem, name) for name in fields} for problem in problems]
        typer.echo(json.dumps({"error": errors}, ensure_ascii=False, indent=2))
    else:
        for problem in problems:
            typer.echo(f"error: {problem}", err=True)
