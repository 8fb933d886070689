"""The sections on what is stored: tables and their health, the frontier of a search."""

from __future__ import annotations

from collections.abc import Iterator

from recsys.embeddings.health_record import HealthRecord, TableHealth
from recsys.report.charts import LineChart, Point, Rule, Series, size
from recsys.report.document import Block, Cell, Column, Section, Table, Text, Tone
from recsys.report.doubts import has_collapsed
from recsys.search.config import CONTROLS
from recsys.search.frontier import FULL, SearchRecord, Trial


def table_section(health: HealthRecord) -> Section:
    """What has become of the embedding tables."""
    columns = {
        "rows": [f"{table.rows:,}" for table in health.tables],
        "dim": [str(table.dim) for table in health.tables],
        "on disk": [size(table.bytes) for table in health.tables],
        "optimizer": [_optional(table.optimizer_bytes, size) for table in health.tables],
        "untrained": [_optional(table.untrained, "{:.1%}".format) for table in health.tables],
        "effective rank": [_optional(table.effective_rank, "{:.3g}".format) for table in health.tables],
        "ids/row": [_optional(table.ids_per_row, "{:.3g}".format) for table in health.tables],
    }
    rows = []
    for n, table in enumerate(health.tables):
        cells = [Cell(text=column[n], tone=_tone(name, table)) for name, column in columns.items()]
        rows.append((Cell(text=table.name), Cell(text=_method(table)), *cells))
    headings = (Column(name="table"), Column(name="method"), *(Column(name=name, number=True) for name in columns))
    note = (
        "Untrained: share of ids (of hashed or multiplexed tables: of rows) that are as before training. "
        "Effective rank: RankMe of all rows, at most dim; 1 where all are multiples of one. "
        "ids/row: ids that read a row, in the mean."
    )
    blocks: list[Block] = [Table(caption="Embedding tables", columns=headings, rows=tuple(rows), note=note)]
    blocks += _collisions(health)
    return Section(id="tables", title="Health of the embedding tables", blocks=tuple(blocks))


def _tone(column: str, table: TableHealth) -> Tone:
    return "bad" if column == "effective rank" and has_collapsed(table) else "plain"


def _method(table: TableHealth) -> str:
    return table.method if table.precision == "float32" else f"{table.method}, {table.precision}"


def _optional(value: float | None, written: object) -> str:
    assert callable(written)
    return "–" if value is None else str(written(value))


def _collisions(health: HealthRecord) -> Iterator[Table]:
    found = [(each, table) for table in health.tables for each in table.vocabularies if each.colliding]
    if found:
        rows = tuple(
            (
                Cell(text=each.feature),
                Cell(text=table.name),
                Cell(text=f"{each.ids:,}"),
                Cell(text=f"{each.colliding:.1%}"),
            )
            for each, table in found
        )
        columns = (
            *(Column(name=name) for name in ("feature", "table")),
            *(Column(name=name, number=True) for name in ("ids", "colliding")),
        )
        caption = "Ids that share all their rows with another id of their feature"
        yield Table(caption=caption, columns=columns, rows=rows)


def frontier_section(record: SearchRecord) -> Section:
    """Bytes against quality: what a search for smaller tables found."""
    monitor = record.monitor
    full = next(trial for trial in record.trials if trial.method == FULL)
    series = tuple(
        Series(
            name=method,
            points=tuple(_trial_point(trial, monitor) for trial in sorted(trials, key=lambda each: each.bytes)),
            dashed=method in CONTROLS,
        )
        for method, trials in _by_method(record).items()
    )
    chosen = next((trial for trial in record.trials if trial.name == record.chosen), None)
    chart = LineChart(
        id="frontier-chart",
        title="Memory against quality",
        description=f"{monitor} on the test part against bytes of the searched tables, a line for each method.",
        x_label="bytes of the searched tables",
        y_label=f"{monitor} (test)",
        series=series or (Series(name=FULL, points=(_trial_point(full, monitor),)),),
        rules=(Rule(name=f"full, {size(full.bytes)}", y=full.mean(monitor, "test")),),
        ringed=None if chosen is None else _trial_point(chosen, monitor),
        log_x=True,
        bytes_x=True,
    )
    said = f"The full tables take {size(full.bytes)} and give {full.mean(monitor, 'test'):.4f}. "
    if chosen is None:
        said += "No plan keeps the promise."
    else:
        said += f"{chosen.name} was chosen by validation: {size(chosen.bytes)}, {chosen.mean(monitor, 'test'):.4f}."
    rows = tuple(
        (
            Cell(text=trial.name, tone="good" if trial.name == record.chosen else "plain"),
            Cell(text=size(trial.bytes)),
            Cell(text=f"{trial.mean(monitor):.4f}"),
            Cell(text=f"{trial.mean(monitor, 'test'):.4f}"),
            Cell(text=_optional(trial.margin(monitor), "± {:.4f}".format)),
        )
        for trial in sorted(record.trials, key=lambda each: each.bytes)
        if trial.trained
    )
    names = ("bytes", f"{monitor}, validation", f"{monitor}, test", "95% over seeds")
    columns = (Column(name="trial"), *(Column(name=name, number=True) for name in names))
    table = Table(caption="Trials", columns=columns, rows=rows)
    return Section(id="frontier", title="Memory against quality", blocks=(Text(text=said), chart, table))


def _by_method(record: SearchRecord) -> dict[str, list[Trial]]:
    found: dict[str, list[Trial]] = {}
    for trial in record.trials:
        if trial.method != FULL and trial.trained:
            found.setdefault(trial.method, []).append(trial)
    return found


def _trial_point(trial: Trial, monitor: str) -> Point:
    mean, margin = trial.mean(monitor, "test"), trial.margin(monitor)
    if margin is None:
        return Point(x=trial.bytes, y=mean)
    return Point(x=trial.bytes, y=mean, low=mean - margin, high=mean + margin)
