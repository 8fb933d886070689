"""The sections on what is stored: tables and their health, the frontier of a search, the index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from recsys.bundle.manifest import IndexFacts, Manifest, TableFacts
from recsys.embeddings.health_record import HealthRecord, TableHealth
from recsys.report.charts import LineChart, Point, Rule, Series, size
from recsys.report.document import Block, Cell, Column, Facts, Section, Table, Text, Tone
from recsys.report.doubts import has_collapsed
from recsys.retrieval import curve as curves
from recsys.retrieval.curve import Curve
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


def bundle_section(manifest: Manifest, folder: Path, curve: Curve | None) -> Section:
    """What is served: sizes, tables, index, and what the index was measured to do."""
    facts = [
        ("bundle", f"{folder}, written {manifest.created:%Y-%m-%d %H:%M} UTC"),
        ("on disk", size(sum(each.bytes for each in manifest.files.values()))),
        ("catalogue", f"{manifest.catalogue_size:,} items"),
        ("tables, each copy", _tables(manifest.tables)),
        ("the ranker's tables", _tables(() if manifest.ranking is None else manifest.ranking.tables)),
    ]
    blocks: list[Block] = [Facts(facts=tuple((name, text) for name, text in facts if text))]
    if manifest.index is not None:
        blocks.append(Facts(facts=tuple(_index_facts(manifest.index, manifest.embedding_dim))))
    if curve is not None and curve.points:
        blocks.append(_curve_chart(curve))
    return Section(id="served", title="What is served", blocks=tuple(blocks))


def _tables(facts: Sequence[TableFacts]) -> str:
    return ", ".join(f"{each.name} {size(each.bytes)} ({each.precision})" for each in facts)


def _curve_chart(curve: Curve) -> LineChart:
    """Recall against time, a line for each layout."""
    metric = max(curve.point.recall, key=lambda name: int(name.partition("@")[2]))
    by_layout: dict[str, list[Point]] = {}
    for each in curve.points:
        layout = f"{each.layout.leaves} leaves" if each.layout.leaves else "all items scored"
        name = f"{layout}, {each.layout.dimensions_per_block} dimensions a code"
        by_layout.setdefault(name, []).append(_curve_point(each, metric))
    series = (Series(name=name, points=tuple(sorted(found, key=_x))) for name, found in by_layout.items())
    return LineChart(
        id="index-chart",
        title=f"Index: {metric} against time",
        description=f"{metric} against exact search, of {len(curve.points)} settings, by milliseconds for one query; "
        f"over {curve.queries:,} held-out queries.",
        x_label="milliseconds for one query",
        y_label=metric,
        series=tuple(series),
        ringed=_curve_point(curve.point, metric),
    )


def _curve_point(point: curves.Point, metric: str) -> Point:
    recall = point.recall[metric]
    return Point(x=point.milliseconds.estimate, y=recall.estimate, low=recall.low, high=recall.high)


def _x(point: Point) -> float:
    return point.x


def _index_facts(index: IndexFacts, dim: int | None) -> Iterator[tuple[str, str]]:
    yield "index", f"{index.kind}, vectors of width {dim}"
    found = "exact search finds all" if index.kind == "exact" else f"{index.recall:.4f} of exact search"
    yield f"recall@{index.k}", found
    if index.promise:
        yield "promised", ", ".join(f"{name} of {value:g}" for name, value in index.promise.items())
    if index.milliseconds is not None:
        yield "time", f"{index.milliseconds:.3g} ms for one query by itself, where it was exported"
