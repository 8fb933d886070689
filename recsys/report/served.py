"""The section on what is served: a bundle's sizes, its index and what it was measured to do, a mixed fleet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from recsys.bundle.manifest import AlignmentFacts, IndexFacts, Manifest, TableFacts
from recsys.report.charts import LineChart, Point, Series, size
from recsys.report.document import Block, Cell, Column, Facts, Section, Table
from recsys.retrieval import curve as curves
from recsys.retrieval.curve import Curve


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
    if manifest.alignment is not None:
        blocks.append(_fleet_table(manifest.alignment))
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
    near = curve.point.near
    beside = "" if near is None else f"; of {near.all:,} queries near new items {near.found:,} find them"
    series = (Series(name=name, points=tuple(sorted(found, key=_x))) for name, found in by_layout.items())
    return LineChart(
        id="index-chart",
        title=f"Index: {metric} against time",
        description=f"{metric} against exact search, of {len(curve.points)} settings, by milliseconds for one query; "
        f"over {curve.queries:,} held-out queries{beside}.",
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


def _fleet_table(facts: AlignmentFacts) -> Table:
    """Whether queries of one model find what they should in the other's index."""
    after = {
        "both new": facts.new_query_new_index,
        "new queries, old index": facts.new_query_old_index,
        "old queries, new index": facts.old_query_new_index,
        "both old": facts.old_query_old_index,
    }
    before = {
        "new queries, old index": facts.new_query_old_index_before,
        "old queries, new index": facts.old_query_new_index_before,
    }
    rows = [
        [name, _recall(value), _recall(before.get(name, value))] for name, value in after.items() if facts.k is not None
    ]
    rows.append(["cosine of an item's two vectors", f"{facts.cosine:.4f}", f"{facts.cosine_before:.4f}"])
    said = "" if facts.k is None else f"; recall@{facts.k} of held-out positives of {facts.users:,} users"
    return Table(
        caption=f"While the fleet is mixed with {facts.bundle}",
        columns=(Column(name=""), Column(name="turned to it", number=True), Column(name="as trained", number=True)),
        rows=tuple(tuple(Cell(text=text) for text in row) for row in rows),
        note=f"Among the {facts.shared_items:,} items that both have{said}.",
    )


def _recall(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
