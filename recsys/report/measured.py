"""The sections on what was measured: the headline, its rivals, slices, calibration, stages, windows, other policies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from recsys.evaluation.backtest_record import BacktestRecord
from recsys.evaluation.comparison import Difference
from recsys.evaluation.config import STAGES
from recsys.evaluation.record import Metrics, Range, Ranges, RunRecord, SliceRecord
from recsys.report import choice
from recsys.report.charts import LineChart, Point, Series
from recsys.report.choice import MODEL
from recsys.report.document import Block, Cell, Column, Interval, Section, Table, Text, Tone

PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000}
INTERVALS = "Intervals are at 95%, over users: they say how far other users might move a number, not other seeds."


def headline(record: RunRecord) -> str:
    """The result in two sentences."""
    metric = choice.shown(list(record.metrics[MODEL]))[0]
    found = record.ranges.get(MODEL, {}).get(metric)
    interval = choice.bounds(found)
    beside = f" (95% interval {interval})" if interval else ""
    value = f"{record.metrics[MODEL][metric]:.4f}{beside}"
    best = choice.rivals(record.metrics, metric)[:1]
    rivals = [each for each in record.differences if best == [each.against] and each.metric == metric]
    said = [f"{metric} is {value} on the {_evaluated(record)} of the test part."]
    said += [f"Its best rival, {each.against}, has {each.reference:.4f}: {_said(each)}." for each in rivals]
    return " ".join(said)


def metric_section(record: RunRecord) -> Section:
    """The model's metrics beside its baselines and its champion, and which differences are real."""
    names = choice.shown(list(record.metrics[MODEL]))
    blocks: list[Block] = [_rivals_table(record.metrics, record.ranges, names[0])]
    blocks.append(_metric_table(record.metrics, record.ranges, names))
    left_out = record.counts.get("users_without_relevant", 0)
    if left_out:
        who = "1 user" if left_out == 1 else f"{left_out:,} users"
        blocks.append(Text(text=f"{who} had nothing new in the test part, and no part in the means."))
    blocks += _difference_table(record.differences)
    return Section(id="result", title="Result", blocks=tuple(blocks))


def _evaluated(record: RunRecord) -> str:
    users = record.counts.get("users_evaluated")
    return f"{users:,} users" if users is not None else f"{record.counts.get('examples_evaluated', 0):,} examples"


def _rivals_table(metrics: Mapping[str, Metrics], ranges: Mapping[str, Ranges], metric: str) -> Table:
    """One metric, everybody in it, drawn on one scale."""
    rows = []
    for name in sorted((each for each in metrics if metric in metrics[each]), key=lambda each: -metrics[each][metric]):
        found = ranges.get(name, {}).get(metric)
        tone: Tone = "good" if name == MODEL else "plain"
        rows.append((Cell(text=name, tone=tone), Cell(text=f"{metrics[name][metric]:.4f}"), interval_cell(found)))
    columns = (Column(name="who"), Column(name=metric, number=True), Column(name="95% interval"))
    return Table(caption=f"{metric} of the model and its rivals", columns=columns, rows=tuple(rows))


def _metric_table(metrics: Mapping[str, Metrics], ranges: Mapping[str, Ranges], names: Sequence[str]) -> Table:
    others = choice.rivals(metrics, names[0])
    rows = []
    for name in names:
        interval = choice.bounds(ranges.get(MODEL, {}).get(name))
        values = [metrics[who].get(name) for who in (MODEL, *others)]
        own, *beside = (Cell(text="–" if value is None else f"{value:.4f}") for value in values)
        rows.append((Cell(text=name), own, Cell(text=interval or "–"), *beside))
    numbers = [Column(name=name, number=True) for name in (MODEL, "95% interval", *others)]
    note = INTERVALS + " A dash: it cannot be measured, or all users are alike."
    return Table(caption="All test metrics", columns=(Column(name="metric"), *numbers), rows=tuple(rows), note=note)


def _difference_table(differences: Sequence[Difference]) -> Iterator[Table]:
    if not differences:
        return
    told = any(each.rela_impr is not None for each in differences)
    rows = []
    for each in differences:
        tone: Tone = "faint" if not each.real else "good" if choice.is_better(each) else "bad"
        rows.append(
            (
                Cell(text=each.metric),
                Cell(text=each.against),
                Cell(text=f"{each.difference:+.4f}"),
                Cell(text=f"{each.low:+.4f}, {each.high:+.4f}"),
                *([Cell(text=choice.relative(each) or "–")] if told else []),
                Cell(text=f"{each.p:.2g}"),
                Cell(text=_verdict(each), tone=tone),
            )
        )
    names = ["difference", "95% interval", *(["RelaImpr"] if told else []), "p"]
    columns = (
        *(Column(name=name) for name in ("metric", "against")),
        *(Column(name=name, number=True) for name in names),
        Column(name="verdict"),
    )
    note = (
        "Paired, user by user; p by a sign-flip test, corrected for all of these comparisons (Holm). "
        "Maybe noise: users drawn anew could turn it round."
    )
    caption = "The model against its baselines and its champion"
    yield Table(caption=caption, columns=columns, rows=tuple(rows), note=note)


def _verdict(difference: Difference) -> str:
    if not difference.real:
        return choice.verdict(difference)
    return f"{'better' if choice.is_better(difference) else 'worse'}, {choice.verdict(difference)}"


def _said(difference: Difference) -> str:
    if not difference.real:
        return f"the difference {difference.difference:+.4f} may be noise"
    word = "better" if choice.is_better(difference) else "worse"
    return f"the model is {word} by {abs(difference.difference):.4f}, and that is real (p {difference.p:.2g})"


def interval_cell(found: Range | None) -> Cell:
    """A range, drawn; a dash where it is not known."""
    text = choice.bounds(found)
    if found is None or text is None:
        return Cell(text="–")
    return Cell(text=text, interval=Interval(low=found.low, value=found.value, high=found.high))


def slice_section(record: RunRecord) -> Section | None:
    """The headline's metric, slice by slice, beside the best baseline."""
    chosen = choice.sliced_by(record)
    if chosen is None:
        return None
    metric, best = chosen
    rows = [_slice_row(each, metric, best) for each in record.slices]
    columns = (
        *(Column(name=name) for name in ("by", "slice")),
        *(Column(name=name, number=True) for name in ("users", MODEL)),
        Column(name="95% interval"),
        *([Column(name=best, number=True)] if best != MODEL else []),
    )
    note = "Small slices say little, whatever their number; those are the ones with few users."
    table = Table(caption=f"{metric} by slice", columns=columns, rows=tuple(rows), note=note)
    return Section(id="slices", title="For whom", blocks=(table,))


def _slice_row(each: SliceRecord, metric: str, best: str) -> tuple[Cell, ...]:
    own, rival = (each.metrics.get(who, {}).get(metric) for who in (MODEL, best))
    tone: Tone = "faint" if each.small else "plain"
    return (
        Cell(text=each.by.replace("_", " "), tone=tone),
        Cell(text=f"{each.name} (small)" if each.small else each.name, tone=tone),
        Cell(text=f"{each.users:,}", tone=tone),
        Cell(text="–" if own is None else f"{own.value:.4f}", tone=tone),
        interval_cell(own),
        *([Cell(text="–" if rival is None else f"{rival.value:.4f}", tone=tone)] if best != MODEL else []),
    )


def calibration_section(record: RunRecord) -> Section | None:
    """What a ranker's probabilities came to."""
    curve = record.calibration
    if curve is None:
        return None
    points = [Point(x=x, y=y) for x, y in zip(curve.predicted, curve.observed, strict=True)]
    chart = LineChart(
        id="calibration-chart",
        title="Calibration",
        description=f"Observed share of label 1 against the predicted probability, in {len(points)} bins; "
        "on the diagonal both are the same.",
        x_label="predicted probability",
        y_label="observed share",
        series=(Series(name=MODEL, points=tuple(points)),),
        diagonal=True,
    )
    ece = record.metrics[MODEL].get("ece")
    said = "Each point is a bin of examples, from the lowest probabilities to the highest."
    if ece is not None:
        said += f" In the mean a probability is off by {ece:.4f} (expected calibration error)."
    return Section(id="calibration", title="Calibration", blocks=(Text(text=said), chart))


def stage_section(record: RunRecord) -> Section | None:
    """Of two stages: where recall is lost."""
    model = record.metrics[MODEL]
    ks = [name.split("@")[1] for name in model if name.startswith("reachable@")]
    if not ks:
        return None
    found = [name for name in STAGES if f"{name}@{ks[0]}" in model]
    rows = tuple(
        (Cell(text=name.replace("_", " ")), *(Cell(text=f"{model[f'{name}@{k}']:.4f}") for k in ks)) for name in found
    )
    candidates = record.counts["candidates"]
    share = model[f"candidate_recall@{candidates}"]
    said = (
        f"{candidates:,} candidates for each user, put in order by the ranker, hold {share:.4f} of the relevant items."
    )
    columns = (Column(name="share of relevant items"), *(Column(name=f"@{k}", number=True) for k in ks))
    table = Table(caption="Where recall is lost", columns=columns, rows=rows)
    return Section(id="stages", title="Two stages", blocks=(Text(text=said), table))


def off_policy_section(record: RunRecord) -> Section | None:
    """What would have been earned on the logged events."""
    if not record.off_policy:
        return None
    rows = []
    for name, each in record.off_policy.items():
        snips = "–" if each.snips is None else f"{each.snips:.4f}"
        cells = (name, f"{each.ips:.4f}", choice.bounds(each.ips_bounds), snips, choice.bounds(each.snips_bounds))
        rows.append(tuple(Cell(text=cell or "–") for cell in cells))
    names = ("ips", "95% interval", "snips", "95% interval")
    columns = (Column(name="policy"), *(Column(name=name, number=True) for name in names))
    events = max(each.events for each in record.off_policy.values())
    caption = f"Mean reward that would have been earned on {events:,} logged events"
    return Section(
        id="off-policy",
        title="Other policies on the same log",
        blocks=(Table(caption=caption, columns=columns, rows=tuple(rows)),),
    )


def window_headline(record: BacktestRecord) -> str:
    """Of a backtest, in a sentence or two."""
    metric = record.monitor
    found = record.ranges[MODEL][metric]
    values = [each.metrics[MODEL][metric] for each in record.windows if metric in each.metrics[MODEL]]
    interval = choice.bounds(found) or "not known"
    by_window = f"from {min(values):.4f} to {max(values):.4f} by window"
    return f"{metric} is {found.value:.4f} (95% interval {interval}) over {len(record.windows)} windows, {by_window}."


def window_section(record: BacktestRecord) -> Section:
    """A backtest, window by window, and pooled."""
    metric = record.monitor
    names = [MODEL, *(name for name in record.ranges if name != MODEL)]
    series = []
    for name in names:
        found = [(n, each.metrics.get(name, {}).get(metric)) for n, each in enumerate(record.windows, 1)]
        points = tuple(Point(x=n, y=value) for n, value in found if value is not None)
        if points:
            series.append(Series(name=name, points=points, dashed=name != MODEL))
    chart = LineChart(
        id="windows-chart",
        title=f"{metric} by window",
        description=f"{metric} of the model and its baselines in each of {len(record.windows)} windows, oldest first.",
        x_label="window, oldest first",
        y_label=metric,
        series=tuple(series),
    )
    rows = tuple(
        (
            Cell(text=str(n)),
            Cell(text=_day(each.first, record.timestamp_unit)),
            Cell(text=_day(each.last, record.timestamp_unit)),
            Cell(text=f"{each.users:,}"),
            *(Cell(text=_number(each.metrics.get(name, {}).get(metric))) for name in names),
        )
        for n, each in enumerate(record.windows, 1)
    )
    columns = (
        *(Column(name=name) for name in ("window", "from", "to")),
        *(Column(name=name, number=True) for name in ("users", *names)),
    )
    start = "starts with the weights of the one before" if record.warm_start else "is trained from scratch"
    said = f"The same experiment at {len(record.windows)} moments of the past; each window {start}."
    pooled = {name: {metric: each[metric].value} for name, each in record.ranges.items() if metric in each}
    blocks: list[Block] = [
        Text(text=said),
        chart,
        Table(caption=f"{metric} by window", columns=columns, rows=rows),
        _rivals_table(pooled, record.ranges, metric),
    ]
    blocks += _difference_table(record.differences)
    return Section(id="windows", title="Windows of the past", blocks=tuple(blocks))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _day(time: int, unit: str) -> str:
    seconds = time / PER_SECOND[unit]
    try:
        return datetime.fromtimestamp(seconds, UTC).date().isoformat()
    except (OverflowError, OSError, ValueError):  # a log may count from anywhere
        return str(time)
