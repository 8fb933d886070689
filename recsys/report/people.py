"""The sections that show single users and examples: what is recommended, and where a ranker looks."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsys.evaluation.showcase import Example, Named, Showcase, Shown
from recsys.report.charts import LineChart, Point, Series
from recsys.report.document import Block, Cell, Column, Person, Section, Suggestion, Table, Text

FIELDS = 12
"""Fields of a map of attention at most; of more, only what each is heeded."""


def example_section(showcase: Showcase) -> Section | None:
    """What real users are shown."""
    if not showcase.users:
        return None
    ranked = any(item.score is not None for user in showcase.users for item in user.shown)
    said = "Users are taken by their place in the data, not by how well the model does for them. "
    if ranked:
        said += (
            f"The examples of the {showcase.part} part in the order that the model gives them, with its probability."
        )
    else:
        said += (
            f"Checked items are those that the user went on to in the {showcase.part} part; what they had is left out."
        )
    people = tuple(_person(user, ranked) for user in showcase.users)
    return Section(id="examples", title="Real examples", blocks=(Text(text=said), *people))


def _person(user: Example, ranked: bool) -> Person:
    hits = sum(item.wanted for item in user.shown)
    if ranked:
        outcome = f"{hits} of these {len(user.shown)} were wanted."
    else:
        went = "; ".join(_name(item) for item in user.wanted)
        outcome = f"{hits} of {len(user.wanted)} found. Went on to: {went}."
    shown = tuple(
        Suggestion(name=_name(item), detail="" if item.score is None else f"{item.score:.3f}", wanted=item.wanted)
        for item in user.shown
    )
    return Person(name=user.user, liked=tuple(map(_name, user.liked)), shown=shown, outcome=outcome)


def _name(item: Named | Shown) -> str:
    return item.title or item.item


def explanation_section(explanation: dict[str, Any]) -> Section:
    """Where a ranker's layers look, in the mean; from `recsys explain`."""
    fields, mean = list(explanation["fields"]), explanation["mean"]
    blocks: list[Block] = [Text(text=f"In the mean over {explanation['examples']:,} {explanation['part']} examples.")]
    weights = mean.get("attention") or mean.get("gates")
    if weights is not None:
        blocks.append(_heeded(fields, np.asarray(weights, float)))
    if mean.get("attention") is not None and len(fields) <= FIELDS:
        blocks += [
            _map(f"Layer {n}: who heeds whom", fields, layer.mean(0))
            for n, layer in enumerate(np.asarray(mean["attention"], float), 1)
        ]
    if mean.get("history"):
        blocks.append(_places(mean["history"]))
    blocks.append(Text(text=explanation["caption"]))
    return Section(id="explanation", title="Where the ranker looks", blocks=tuple(blocks))


def _heeded(fields: list[str], weights: np.ndarray) -> Table:
    share = weights.reshape(-1, weights.shape[-1]).mean(0)
    order = np.argsort(-share, kind="stable")
    rows = tuple(
        (Cell(text=fields[n]), Cell(text=f"{share[n]:.3f}", shade=_shade(share[n], share.max()))) for n in order
    )
    columns = (Column(name="field"), Column(name="share of attention", number=True))
    return Table(caption="Fields that are heeded", columns=columns, rows=rows)


def _map(caption: str, fields: list[str], weights: np.ndarray) -> Table:
    """[F, F], mean over the heads."""
    rows = tuple(
        (Cell(text=name), *(Cell(text=f"{w:.2f}", shade=_shade(w, weights.max())) for w in row))
        for name, row in zip(fields, weights, strict=True)
    )
    columns = (Column(name="field that looks"), *(Column(name=name, number=True) for name in fields))
    return Table(caption=caption, columns=columns, rows=rows, note="Rows sum to 1; mean over the heads.")


def _shade(value: float, most: float) -> float:
    return round(float(value / most), 3) if most > 0 else 0.0


def _places(history: list[float]) -> LineChart:
    points = tuple(Point(x=n, y=weight) for n, weight in enumerate(history, 1))
    return LineChart(
        id="places-chart",
        title="What an event of the history weighs",
        description=f"Mean weight by place in the history, from {history[0]:.4f} for the newest event.",
        x_label="place in the history, 1 the newest",
        y_label="mean weight",
        series=(Series(name="mean weight", points=points),),
    )
