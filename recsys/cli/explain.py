"""`recsys explain`: where a trained ranker looks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from recsys.cli._output import JsonOption, Output
from recsys.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from recsys.evaluation.explanation import Explanation, Prediction

FOLDER, RECORD = "explain", "explanation.json"
"""In the run directory, and in that folder."""


def explain(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run directory of a trained ranker.")],
    examples: Annotated[int, typer.Option(min=1, help="How many examples to tell one by one.")] = 5,
    user: Annotated[str | None, typer.Option(help="Only this user's examples.")] = None,
    item: Annotated[str | None, typer.Option(help="Only examples on this item.")] = None,
    part: Annotated[Literal["valid", "test"], typer.Option(help="Whose examples.")] = "test",
    out_folder: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where to write; RUN/explain by default.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show where a ranker looks: which fields heed which, and which events of a history weigh.

    In the mean over the examples of a part, and for some of them one by one; as JSON and as pictures. For AutoInt,
    ARM-Net and sequence layers.
    """
    from recsys.experiment import Experiment
    from recsys.run_directory import RunDirectory

    out = Output(as_json)
    if not run.is_dir() or RunDirectory(run).origin() is None:
        raise ConfigError(str(run), "no run directory", "the run directory of a trained ranker: runs/NAME")
    if out_folder is not None and out_folder.exists() and not (out_folder.is_dir() and not any(out_folder.iterdir())):
        raise ConfigError(str(out_folder), "is there already", "a new or an empty folder", "name another by --out")
    folder = out_folder or run / FOLDER
    experiment = Experiment.from_yaml(run, ["training.strategy=default"])
    explanation = experiment.explain(part, examples=examples, user=user, item=item)
    written = _write(experiment.config.name, explanation, folder)
    _show(experiment.config.name, explanation, out)
    for path in written:
        out.wrote(path)
    out.result({"path": run, "written": written, **explanation.record()})


def _write(name: str, explanation: Explanation, folder: Path) -> list[Path]:
    """The record and the pictures, in place of an earlier explanation."""
    from recsys.files import new_folder

    with new_folder(folder) as draft:
        (draft / RECORD).write_text(json.dumps(explanation.record(), ensure_ascii=False), encoding="utf-8")
        files = [RECORD]
        for file, figure in _pictures(name, explanation):
            figure.savefig(draft / file)
            files.append(file)
        shutil.rmtree(folder, ignore_errors=True)
    return [folder / file for file in files]


def _pictures(name: str, explanation: Explanation) -> Iterator[tuple[str, Figure]]:
    from recsys.evaluation.explanation_picture import attention_picture, gates_picture, places_picture

    mean, over = explanation.mean, f"{name}: mean over {explanation.examples:,} {explanation.part} examples"
    if mean.attention is not None:
        yield "attention.png", attention_picture(over, explanation.fields, mean.attention)
    if mean.gates is not None:
        yield "gates.png", gates_picture(over, explanation.fields, mean.gates)
    if mean.history is not None:
        yield "history.png", places_picture(over, mean.history)
    for number, prediction in enumerate(explanation.predictions, 1):
        for what, figure in _pictures_of(prediction, explanation.fields):
            yield f"example-{number}-{what}.png", figure


def _pictures_of(prediction: Prediction, fields: tuple[str, ...]) -> Iterator[tuple[str, Figure]]:
    from recsys.evaluation.explanation_picture import attention_picture, events_picture, gates_picture

    looks = prediction.looks
    labels = [f"{name} = {_told(prediction.values[name])}" for name in fields]
    who = None if prediction.user is None else f"user {prediction.user}"
    lines = [", ".join(each for each in (who, prediction.title or prediction.item) if each is not None)]
    title = "\n".join(line for line in [*lines, f"score {prediction.score:.3f}, label {prediction.label:g}"] if line)
    if looks.attention is not None:
        yield "attention", attention_picture(title, labels, looks.attention)
    if looks.gates is not None:
        yield "gates", gates_picture(title, labels, looks.gates)
    if looks.history is not None:
        yield "history", events_picture(title, prediction)


def _told(value: object) -> str:
    if value is None or value == []:
        return "–"
    if isinstance(value, list):
        return ", ".join(_told(each) for each in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _show(name: str, explanation: Explanation, out: Output) -> None:
    from recsys.evaluation.explanation import CAPTION

    mean, predictions = explanation.mean, explanation.predictions
    over = f"the mean over {explanation.examples:,} {explanation.part} examples"
    heeded = mean.heeded()
    if heeded is not None:
        columns = {"field": list(explanation.fields), "heeded": heeded.tolist()}
        if mean.attention is not None:
            columns |= {f"layer {n}": each.mean((0, 1)).tolist() for n, each in enumerate(mean.attention, 1)}
        out.table(f"Fields that {name} heeds: shares in {over}", list(columns), zip(*columns.values(), strict=True))
    if mean.history is not None:
        places = list(enumerate(mean.history.tolist(), 1))[:10]
        out.table(f"What an event weighs by its place, 1 the newest: {over}", ("place", "weight"), places)
    rows = [(p.user, p.title or p.item, p.label, p.score) for p in predictions]
    out.table("Examples", ("user", "item", "label", "score"), rows, fraction=".3g")
    out.text(CAPTION)
