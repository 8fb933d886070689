"""Groups of items, users or examples that are measured by themselves."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from recsys.data.dataset import MISSING, STAGES, CategoricalInfo, NumericInfo, Part, SequenceInfo
from recsys.data.prepared import Features, Prepared
from recsys.evaluation.baselines.category_match import CategoryMatch
from recsys.evaluation.categories import category_ids
from recsys.evaluation.config import (
    EvaluationConfig,
    FeatureSlices,
    InHistorySlices,
    ItemFrequencySlices,
    ReturningSlices,
    UserActivitySlices,
    slicing_name,
)
from recsys.ragged import Ragged
from recsys.schema.config import Role

Members = NDArray[np.bool_]
EXAMPLES = 8_192
"""Examples whose histories are held at once."""


@dataclass(frozen=True)
class Slicing:
    """Items, users or examples, divided by one property; they may be in several slices, or in none."""

    by: str
    """The property, as `slicing_name` calls it."""
    members: dict[str, Members]
    """Slice -> [n] whether each of the n items, users or examples is in it; no slice is empty."""

    def take(self, rows: NDArray[np.integer]) -> Slicing:
        """The same division of the items, users or examples `rows`, in this order."""
        return _slicing(self.by, {name: members[rows] for name, members in self.members.items()})


def item_slicings(prepared: Prepared, config: EvaluationConfig) -> list[Slicing]:
    """The divisions of the catalogue's N items."""
    found = []
    for each in config.slices:
        if isinstance(each, ItemFrequencySlices):
            found.append(_slicing(slicing_name(each), _by_frequency(prepared.train_count, each)))
        elif isinstance(each, FeatureSlices) and _role(prepared, each) == "item":
            found.append(_by_feature(prepared, each, prepared.values(each.feature)))
    return found


def user_slicings(prepared: Prepared, config: EvaluationConfig) -> list[Slicing]:
    """The divisions of all U users of the data set."""
    events = positive_training_events(prepared)
    found = []
    for each in config.slices:
        if isinstance(each, UserActivitySlices):
            found.append(_slicing(slicing_name(each), _by_activity(events, each.groups)))
        elif isinstance(each, ReturningSlices):
            found.append(_slicing(slicing_name(each), {"returning": events > 0, "new": events == 0}))
        elif isinstance(each, FeatureSlices) and _role(prepared, each) == "user":
            found.append(_by_feature(prepared, each, prepared.values(each.feature)))
    return found


def context_slicings(prepared: Prepared, config: EvaluationConfig, context: Features) -> list[Slicing]:
    """The divisions of n examples (or queries) by their `context` features, each [n] or [n, L]."""
    return [
        _by_feature(prepared, each, context[each.feature])
        for each in config.slices
        if isinstance(each, FeatureSlices) and _role(prepared, each) == "context"
    ]


def history_slicings(prepared: Prepared, part: Part, config: EvaluationConfig) -> list[Slicing]:
    """The divisions of a part's n examples, in the order of `Prepared.examples`, by what their histories hold."""
    wanted = [each for each in config.slices if isinstance(each, InHistorySlices)]
    if not wanted:
        return []
    table = prepared.examples(part, ["user_index", "item_index", "history_stop"])
    user, item, stop = (table[name].to_numpy() for name in ("user_index", "item_index", "history_stop"))
    start = prepared.event_start[user]
    lengths = [info.max_length for info in prepared.info.features.values() if isinstance(info, SequenceInfo)]
    if lengths:  # what no model reads is not in the history
        start = np.maximum(start, stop - max(lengths))
    found = []
    for each in wanted:
        ids = np.arange(len(prepared.train_count)) + 1 if each.feature is None else category_ids(prepared, each.feature)
        match, held = CategoryMatch.of(ids), np.empty(len(item), bool)
        for first in range(0, len(item), EXAMPLES):
            block = slice(first, first + EXAMPLES)
            histories = Ragged.from_slices(prepared.events.item_index, start[block], stop[block])
            held[block] = match.pairs(histories, item[block]) > 0
        known = stop > start
        members = {"present": held, "absent": known & ~held, "no history": ~known}
        found.append(_slicing(slicing_name(each), members))
    return found


def positive_training_events(prepared: Prepared) -> NDArray[np.int64]:
    """[U] how many each user has."""
    if not prepared.info.table_schema.has_histories:  # `events/` is empty, and every event is an example
        train = prepared.examples("train", ["user_index", "label"])
        users = train["user_index"].to_numpy()[train["label"].to_numpy() > 0]
        return np.bincount(users, minlength=prepared.info.counts.users)
    trained = np.concatenate([[0], np.cumsum(prepared.events.stage == STAGES["train"])])
    return np.diff(trained[prepared.event_start])


def _role(prepared: Prepared, config: FeatureSlices) -> Role:
    return prepared.info.features[config.feature].role


def _slicing(by: str, members: dict[str, Members]) -> Slicing:
    return Slicing(by, {name: chosen for name, chosen in members.items() if chosen.any()})


def _by_frequency(train_count: NDArray[np.int64], config: ItemFrequencySlices) -> dict[str, Members]:
    """Equal counts are told apart by the item's index, so that the shares are exact."""
    order = np.argsort(-train_count, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    trained = int((train_count > 0).sum())
    head, tail = round(trained * config.head), trained - round(trained * config.tail)
    return {
        "head": rank < head,
        "torso": (rank >= head) & (rank < tail),
        "tail": (rank >= tail) & (rank < trained),
        "cold": rank >= trained,
    }


def _by_activity(events: NDArray[np.int64], groups: int) -> dict[str, Members]:
    """Users with equally many events stay together, so that groups may differ in size."""
    active = events[events > 0]
    if len(active) == 0:
        return {"0": events == 0}
    cuts = np.quantile(active, np.arange(1, groups) / groups, method="inverted_cdf")
    edges = [1, *np.unique(cuts + 1).tolist(), int(active.max()) + 1]
    members = {"0": events == 0}
    for low, high in pairwise(edges):
        if low < high:
            members[str(low) if high == low + 1 else f"{low}-{high - 1}"] = (events >= low) & (events < high)
    return members


def _by_feature(prepared: Prepared, config: FeatureSlices, values: NDArray) -> Slicing:
    """Of encoded `values`."""
    info = prepared.info.features[config.feature]
    if isinstance(info, NumericInfo):
        edges = _quartiles(prepared, config) if config.edges is None else config.edges
        return _slicing(config.feature, _by_range(values, edges))
    assert isinstance(info, CategoricalInfo)
    return _slicing(config.feature, _by_value(values, info, prepared.vocabulary(config.feature), config.top))


def _quartiles(prepared: Prepared, config: FeatureSlices) -> tuple[float, ...]:
    """Of the items, users or examples that training saw."""
    match _role(prepared, config):
        case "item":
            values = prepared.values(config.feature)[prepared.train_count > 0]
        case "user":
            values = prepared.values(config.feature)[positive_training_events(prepared) > 0]
        case "context":
            values = prepared.examples("train", [config.feature])[config.feature].to_numpy()
    known = values[~np.isnan(values)]
    return tuple(np.unique(np.quantile(known, (0.25, 0.5, 0.75))).tolist()) if len(known) else ()


def _by_range(values: NDArray[np.floating], edges: tuple[float, ...]) -> dict[str, Members]:
    """Ranges take their lower edge in."""
    known = ~np.isnan(values)
    if not edges:
        return {"known": known, "missing": ~known}
    # In the numbers' own precision: else 19.99 would lie below 19.99.
    cuts = np.unique(np.asarray(edges, np.float32))
    place = np.searchsorted(cuts, values, side="right")
    texts = [np.format_float_positional(cut, trim="-") for cut in cuts]
    names = [f"< {texts[0]}", *(f"{a} to {b}" for a, b in pairwise(texts)), f">= {texts[-1]}"]
    return {name: known & (place == number) for number, name in enumerate(names)} | {"missing": ~known}


def _by_value(
    ids: NDArray[np.integer], info: CategoricalInfo, vocabulary: NDArray[np.object_], top: int
) -> dict[str, Members]:
    """Values of a set each have their slice; `other` holds who has none but rare values."""
    table = ids if ids.ndim == 2 else ids[:, None]
    first = 1 + info.oov_rows
    named = {str(value): (table == first + at).any(1) for at, value in enumerate(vocabulary[:top])}
    missing = (table == MISSING).all(1)
    other = (table != MISSING).any(1) & ~np.logical_or.reduce([*named.values(), np.zeros(len(table), bool)])
    # A value may be called like one of these: the rest then keeps its own name.
    rest = {_free(name, named): chosen for name, chosen in (("other", other), ("missing", missing))}
    return named | rest


def _free(name: str, taken: dict[str, Members]) -> str:
    return name if name not in taken else _free(f"({name})", taken)
