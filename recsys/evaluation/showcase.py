"""What a model shows to a few real users, with the items' names: `evaluation/examples.json` of a run, for people.

Users are taken by their place among those who were evaluated, never by how well the model does for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.config.base import Config, Many

if TYPE_CHECKING:
    from recsys.data.dataset import Part
    from recsys.data.prepared import HeldOut, Prepared
    from recsys.evaluation.recommenders import Recommender

USERS, SHOWN, LIKED = 3, 10, 8
"""How many users, items shown to each, and of their own items."""
SHOWCASE = "evaluation/examples.json"
"""In the run directory."""


class Named(Config):
    """An item."""

    item: str
    title: str | None = None
    """None where the data have no titles."""


class Shown(Named):
    """An item that the model puts before a user, or has scored for them."""

    score: float | None = None
    """A ranker's probability of label 1."""
    wanted: bool
    """Whether the held-out data say that the user wanted it."""


class Example(Config):
    """One user."""

    user: str
    liked: Many[Named]
    """Positive items of earlier parts, the newest first."""
    shown: Many[Shown]
    """The best first."""
    wanted: Many[Named]
    """Of a two_tower: what the user went on to, in the held-out data."""


class Showcase(Config):
    """`evaluation/examples.json`."""

    format: Literal[1] = 1
    part: str
    users: Many[Example]


def recommended(recommender: Recommender, held_out: HeldOut, prepared: Prepared, part: Part, most: int) -> Showcase:
    """What a recommender shows to held-out users who have something to be found: `most` items, but no more than fit."""
    targets = held_out.relevant.difference(held_out.seen)
    rows = _spread(np.flatnonzero(targets.lengths))
    seen = held_out.seen.take(rows)
    found = recommender.recommend(rows, min(SHOWN, most), seen)
    names = prepared.users["user"].take(pa.array(held_out.user_index[rows])).to_pylist()
    users = []
    for n, (row, name) in enumerate(zip(rows, names, strict=True)):
        ids = found[n][found[n] >= 0]
        told = zip(_named(prepared, ids), np.isin(ids, targets[row]), strict=True)
        shown = tuple(Shown(item=each.item, title=each.title, wanted=bool(wanted)) for each, wanted in told)
        wanted = tuple(_named(prepared, targets[row][:SHOWN]))
        users.append(Example(user=name, liked=_newest(prepared, seen[n]), shown=shown, wanted=wanted))
    return Showcase(part=part, users=tuple(users))


def scored_examples(probabilities: NDArray[np.float64], prepared: Prepared, part: Part) -> Showcase | None:
    """How a ranker orders the examples of users who have both labels; None where the log names no users or items.

    Args:
        probabilities: [n] of label 1, of the examples of the part in their order.
        prepared: the data.
        part: whose examples.
    """
    if not {"user", "item"} <= set(prepared.info.table_schema.ids):
        return None
    table = prepared.examples(part, ["user_index", "item_index", "label"])
    user_index, item_index, label = (table[name].to_numpy() for name in ("user_index", "item_index", "label"))
    both = np.intersect1d(user_index[label == 1], user_index[label == 0])
    chosen = _spread(both if len(both) else np.unique(user_index))
    seen = prepared.seen_before(part).take(chosen)
    names = prepared.users["user"].take(pa.array(chosen)).to_pylist()
    users = []
    for n, (user, name) in enumerate(zip(chosen, names, strict=True)):
        own = np.flatnonzero(user_index == user)
        best = own[np.argsort(-probabilities[own], kind="stable")][:SHOWN]
        told = zip(_named(prepared, item_index[best]), probabilities[best], label[best], strict=True)
        shown = tuple(
            Shown(item=each.item, title=each.title, score=float(score), wanted=bool(wanted == 1))
            for each, score, wanted in told
        )
        users.append(Example(user=name, liked=_newest(prepared, seen[n]), shown=shown, wanted=()))
    return Showcase(part=part, users=tuple(users))


def _spread(rows: NDArray[np.integer]) -> NDArray[np.integer]:
    """A few of them, at equal distances."""
    count = min(USERS, len(rows))
    return rows[len(rows) * (2 * np.arange(count) + 1) // (2 * max(count, 1))]


def _newest(prepared: Prepared, items: NDArray[np.integer]) -> tuple[Named, ...]:
    return tuple(_named(prepared, items[::-1][:LIKED]))


def _named(prepared: Prepared, items: NDArray[np.integer]) -> Iterator[Named]:
    table = prepared.items.take(pa.array(items, pa.int64()))
    titles = table["title"].to_pylist() if "title" in table.column_names else [None] * len(table)
    for item, title in zip(table["item"].to_pylist(), titles, strict=True):
        yield Named(item=item, title=title)
