"""The sections on what was trained on what, and how it went."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isclose

from recsys.data.config import DataConfig, FilesSource, PublicSource, ServedSource
from recsys.evaluation.record import Metrics, RunRecord
from recsys.experiment_config import ExperimentConfig
from recsys.models.config import RankerConfig, TwoTowerConfig
from recsys.report.charts import LineChart, Point, Series, size
from recsys.report.document import Block, Cell, Code, Column, Facts, Section, Table, Text
from recsys.report.found import Found
from recsys.tuning.record import TuningRecord

SHORT = 12
"""Characters of a digest that people are shown."""
NAMES = {
    "users": "users",
    "items": "items",
    "events": "positive events",
    "train": "training examples",
    "valid": "validation examples",
    "test": "test examples",
    "dropped": "events left out",
    "held_back": "later events held back",
    "candidates": "candidates for each user",
}


def trained_section(found: Found) -> Section:
    """Config, data, counts, seed, versions and cost."""
    facts = [*_model(found), *_data(found), *_identity(found), *_cost(found)]
    blocks: list[Block] = [Facts(facts=tuple(facts))]
    if found.config_text:
        blocks.append(Code(title="The whole config", code=found.config_text.rstrip(), folded=True))
    return Section(id="trained", title="What was trained on what", blocks=tuple(blocks))


def learning_section(record: RunRecord, monitor: str | None) -> Section | None:
    """The logs of the epochs: losses, and what was validated."""
    history = record.history
    if not history:
        return None
    charts = list(_charts(history, monitor))
    epochs = len(history)
    said = f"{epochs} epoch{'s' if epochs != 1 else ''}."
    watched = [(epoch[f"val_{monitor}"], n) for n, epoch in enumerate(history, 1) if f"val_{monitor}" in epoch]
    if watched:
        value, best = max(watched, key=lambda pair: (pair[0], -pair[1]))
        said += f" The weights are those after epoch {best}, where validation {monitor} was highest: {value:.4f}."
        if best == watched[-1][1] and len(watched) > 1:
            said += " It was still rising when training stopped: more epochs may help."
    else:
        said += " Nothing was validated on the way; the weights are the last ones."
    return Section(id="learning", title="Learning curves", blocks=(Text(text=said), *charts))


def tuning_section(record: TuningRecord) -> Section:
    """What was tried for the hyper-parameters, and which of them mattered."""
    qualities = [(each.number, each.quality) for each in record.trials if each.quality is not None]
    found = dict(qualities)
    as_it_is, best = found.get(0), found[record.best]
    said = f"{len(record.trials)} trials by validation {record.monitor}. The best, number {record.best}, has {best:.4f}"
    said += "." if as_it_is is None else f"; the experiment as it stands has {as_it_is:.4f}."
    chart = LineChart(
        id="tuning-chart",
        title=f"Trials: validation {record.monitor}",
        description=f"Validation {record.monitor} of {len(qualities)} trials, in the order in which they were made.",
        x_label="trial, 0 the experiment as it stands",
        y_label=record.monitor,
        series=(Series(name="trial", points=tuple(Point(x=n, y=value) for n, value in qualities), line=False),),
        ringed=Point(x=record.best, y=best),
    )
    blocks: list[Block] = [Text(text=said), chart]
    if record.importance:
        most = max(record.importance.values())
        rows = tuple(
            (Cell(text=name), Cell(text=f"{share:.3f}", shade=round(share / most, 3) if most else 0.0))
            for name, share in record.importance.items()
        )
        columns = (Column(name="parameter"), Column(name="importance", number=True))
        blocks.append(Table(caption="What mattered", columns=columns, rows=rows, note="Shares of PED-ANOVA; sum 1."))
    if record.changed:
        blocks.append(Facts(facts=tuple((key, str(value)) for key, value in record.changed.items())))
    return Section(id="tuning", title="Tuning", blocks=tuple(blocks))


def _charts(history: tuple[Metrics, ...], monitor: str | None) -> Iterator[LineChart]:
    """The loss, and each metric that is validated or watched in training: both on one picture."""
    chosen = ["loss", *(name for name in ("auc", "logloss") if any(name in epoch for epoch in history))]
    if monitor is not None and monitor not in chosen:
        chosen.append(monitor)
    if all("logloss" in epoch and isclose(epoch["loss"], epoch["logloss"], rel_tol=1e-3) for epoch in history):
        chosen.remove("loss")  # the same: a ranker without further heads
    for name in chosen:
        lines = {"training": _line(history, name), "validation": _line(history, f"val_{name}")}
        series = tuple(Series(name=part, points=points) for part, points in lines.items() if points)
        if not series:
            continue
        best = max(lines["validation"], key=lambda point: point.y, default=None) if name == monitor else None
        yield LineChart(
            id=f"learning-{name.replace('@', '-at-').replace('_', '-')}",
            title=name,
            description=f"{name} by epoch: " + "; ".join(_told(each) for each in series) + ".",
            x_label="epoch",
            y_label=name,
            series=series,
            ringed=best,
        )


def _line(history: tuple[Metrics, ...], name: str) -> tuple[Point, ...]:
    return tuple(Point(x=n, y=epoch[name]) for n, epoch in enumerate(history, 1) if name in epoch)


def _told(series: Series) -> str:
    return f"{series.name} from {series.points[0].y:.4f} to {series.points[-1].y:.4f}"


def _model(found: Found) -> Iterator[tuple[str, str]]:
    config = found.config
    if config is None:
        return
    yield "model", describe_model(config)
    tables = [f"{name}: {table.method}" for name, table in config.embeddings.tables.items()]
    yield "embedding tables", ", ".join(tables)
    training = config.training
    yield (
        "training",
        f"batches of {training.batch_size:,}, at most {training.epochs} epochs, {training.strategy} strategy",
    )
    if training.warm_start is not None:
        yield "warm start", training.warm_start


def describe_model(config: ExperimentConfig) -> str:
    """In a line."""
    match config.model:
        case TwoTowerConfig() as model:
            return f"two_tower: a query tower and an item tower, trained by {model.loss.kind.replace('_', ' ')}"
        case RankerConfig() as model:
            parts = [part.kind for part in (model.sequence, model.interaction) if part is not None]
            heads = f", heads {', '.join(model.heads)}" if model.heads else ""
            return f"ranker: {' and '.join([*parts, 'MLP'])}{heads}, trained by {model.loss.kind.replace('_', ' ')}"


def describe_source(data: DataConfig) -> str:
    """Where the events come from, in a line."""
    match data.source:
        case PublicSource(name=name):
            return f"the public data set {name}"
        case FilesSource() as files:
            return ", ".join(path for path in (files.events, files.items, files.users) if path is not None)
        case ServedSource(folder=folder):
            return f"what a server has shown, and what came of it: {folder}"
        case _:
            return "simulated users, whose tastes are known"


def _data(found: Found) -> Iterator[tuple[str, str]]:
    config, record = found.config, found.record
    if config is not None:
        yield "data", describe_source(config.data)
        yield "split", config.data.split.kind.replace("_", " ")
    counts = record.counts if record is not None else _counts(found)
    told = [f"{counts[key]:,} {name}" for key, name in NAMES.items() if counts.get(key)]
    if told:
        yield "counts", ", ".join(told)
    parameters = counts.get("table_parameters")
    if parameters is not None:
        dense, stored = counts.get("dense_parameters", 0), counts.get("table_bytes", 0)
        yield "size", f"{parameters:,} numbers in tables ({size(stored)}), {dense:,} elsewhere"


def _counts(found: Found) -> Mapping[str, int]:
    return {} if found.dataset is None else found.dataset.counts.model_dump()


def _identity(found: Found) -> Iterator[tuple[str, str]]:
    known = found.record or found.backtest
    if known is not None:
        yield "config digest", known.config_digest[:SHORT]
        yield "data digest", known.data_digest[:SHORT]
    elif found.origin is not None:
        yield "data digest", found.origin.data_digest[:SHORT]
    if found.record is not None:
        yield "seed", str(found.record.seed)
    elif found.config is not None:
        yield "seed", str(found.config.seed)
    if found.record is not None:
        here = found.record.environment
        yield "versions", ", ".join([f"Python {here.python}", *(f"{n} {v}" for n, v in here.versions.items())])
        yield "machine", f"{here.cores} cores, {here.memory_gib:.3g} GiB, {here.platform}"


def _cost(found: Found) -> Iterator[tuple[str, str]]:
    if found.seconds:
        yield "cost", ", ".join(f"{stage} {_duration(seconds)}" for stage, seconds in found.seconds.items())
    if found.record is not None:
        yield "peak memory", f"{found.record.cost.peak_memory_mib / 1024:.2f} GiB"


def _duration(seconds: float) -> str:
    """For people.

    >>> _duration(515.5), _duration(4.2), _duration(7300)
    ('8 min 36 s', '4.2 s', '2 h 01 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
