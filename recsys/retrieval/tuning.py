"""From a promise to the cheapest index that keeps it.

A layout (leaves, hash codes) costs a build, a setting (leaves searched, candidates scored again) only a search: few
layouts are built, and of each many settings are measured. Which settings are measured depends on recall alone, so that
two runs differ in nothing but times, and in the choice that follows from them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count, takewhile
from math import ceil, log, sqrt
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys._scann import load_scann
from recsys.errors import ExportError
from recsys.metrics import bootstrap_intervals, recall_at_k
from recsys.ragged import Ragged
from recsys.retrieval.catalogue import Catalogue
from recsys.retrieval.config import MIN_POINTS_PER_LEAF, ScannConfig
from recsys.retrieval.curve import Between, Curve, Depth, Layout, Pairs, Point, Setting
from recsys.retrieval.exact import ExactIndex
from recsys.retrieval.index import Neighbours, Vectors, finite_vectors
from recsys.retrieval.near import Near
from recsys.retrieval.scann_index import ScannIndex

TIMED = 64
"""Queries that are timed one by one at each setting."""
FINER = 1.5
"""From one number of searched leaves to the next."""
DEEPEST = 64
"""Filtered searches go as deep as this many times the promise's cut-off before they are exact."""
TRUTH = 4_000_000
"""Neighbours of held-out queries that are held at once, for deep searches."""
FASTER = 0.9
"""A layout has to take at most this share of the best one's time to be preferred."""
LEAST = 64
"""Fewer than one in so many leaves are not tried."""
HOPELESS = 0.2
"""So far below the promise, fewer leaves are not tried again."""
REORDERED = (2, 4, 8, 16)
"""Candidates that are scored again, in multiples of the promise's cut-off."""
SATURATED = 0.001
"""So little more is found that further leaves are not tried."""
STEPS = 2
"""Steps to twice the depth of filtered searches: one is a fifth deeper than it needs to be, on average."""
MIN_QUERIES = 200
AT_ONCE = 1_024
"""Queries searched at once while recall is measured."""
NONE_OF = 3.689
"""-ln(0.025): a loss of more than this divided by the queries would have shown, but for 2.5 % of all samples."""
Shares = NDArray[np.float64]
Kept = tuple[ScannIndex, Point]


def tune(
    vectors: ArrayLike | Catalogue,
    queries: ArrayLike,
    config: ScannConfig,
    seed: int = 0,
    near: Near | None = None,
) -> ScannIndex:
    """The cheapest index over `vectors` [N, d] that keeps `config`'s promise for held-out `queries` [Q, d], and finds
    the items that are `near` some queries as often as it promises to.

    Raises:
        DataError: a value is NaN or infinite.
        ExportError: no setting keeps the promise; with the best that was reached.
        InstallError: ScaNN is missing or does not fit TensorFlow.
        ValueError: more leaves than N items can fill, no queries, or a prefix longer than the vectors.
    """
    catalogue = vectors if isinstance(vectors, Catalogue) else Catalogue(vectors)
    held_out = finite_vectors(queries, "queries")
    if not len(held_out):
        raise ValueError("an index is tuned by at least one query")
    exact = ExactIndex(catalogue)
    truth = exact.search(held_out, min(config.depth, len(catalogue.there))).ids
    tuning = _Tuning(catalogue, held_out, truth, config, seed, near)
    index, point = tuning.best()
    index.asked = config
    index.curve = Curve(
        queries=len(held_out),
        points=tuple(tuning.points),
        chosen=tuning.points.index(point),
        depths=tuple(_depths(index, exact, held_out, config, seed)),
    )
    return index


@dataclass
class _Tuning:
    catalogue: Catalogue
    queries: Vectors
    truth: NDArray[np.int32]
    config: ScannConfig
    seed: int
    near: Near | None = None
    points: list[Point] = field(default_factory=list)
    _hopeless: float = 0.0
    """Share of the leaves of which fewer have found far too little."""

    def best(self) -> tuple[ScannIndex, Point]:
        """The index at its cheapest setting that keeps the promise."""
        start = self._start()
        best = self._try(start)
        if start.leaves and self.config.leaves is None:
            best = self._better(best, start, "leaves", lambda leaves: 2 * leaves) or best
            if best is None or best[0].config.leaves == start.leaves:
                best = self._better(best, start, "leaves", lambda leaves: leaves // 2) or best
        if start.leaves and self.config.dimensions_per_block is None:
            best = self._better(best, start, "dimensions_per_block", lambda dimensions: 2 * dimensions) or best
        if start.leaves and self.config.anisotropic_threshold is None:
            best = self._better(best, start, "anisotropic_threshold", lambda threshold: threshold / 2) or best
        if best is None:
            raise self.refusal()
        return best

    def _better(self, best: Kept | None, start: ScannConfig, key: str, step: Callable[[Any], Any]) -> Kept | None:
        """`best` with one key of its layout moved as long as that makes it faster; None if it never does."""
        found = None
        while True:
            base = start if best is None else best[0].config
            moved = base.model_copy(update={key: step(getattr(base, key))})
            if not 0 < (moved.leaves or 0) * MIN_POINTS_PER_LEAF <= len(self.catalogue.there):
                return found
            other = self._try(moved)
            if other is None or (best is not None and _time(other[1]) >= FASTER * _time(best[1])):
                return found
            best = found = other

    def _start(self) -> ScannConfig:
        """The given layout, filled up with ScaNN's own suggestion."""
        size = len(self.catalogue.there)
        start = self.config.for_size(size)
        if self.config.leaves is None and start.leaves:
            suggested = _autopilot(size, self.catalogue.vectors.shape[1], self.config.depth)
            start = self.config.model_copy(update={"leaves": suggested or start.leaves}).for_size(size)
        return start

    def _try(self, config: ScannConfig) -> tuple[ScannIndex, Point] | None:
        """Builds a layout and measures its settings; the cheapest that keeps the promise, if any does."""
        index = ScannIndex.build(self.catalogue, config)
        measured = list(self._measured(index))
        recalls = _between([shares for _, shares, _ in measured], self.seed)
        found = []
        for (setting, _, near), recall in zip(measured, recalls, strict=True):
            if _is_exhaustive(index, setting):
                recall = [Between(estimate=1.0, low=1.0, high=1.0)] * len(recall)
            found.append(
                Point(
                    layout=Layout.of(index.config),
                    setting=setting,
                    recall={f"recall@{k}": each for k, each in zip(self.config.promised, recall, strict=True)},
                    near=near,
                    milliseconds=_milliseconds(index, self.queries[:TIMED], self.config.depth, setting),
                )
            )
        self.points += found
        kept = [point for point in found if point.keeps(self.config)]
        if not kept:
            return None
        point = min(kept, key=_time)
        index.config = index.config.model_copy(update=point.setting.model_dump())
        return index, point

    def _measured(self, index: ScannIndex) -> Iterator[tuple[Setting, Shares, Pairs | None]]:
        """Settings by rising cost, with each query's recalls and the near items found: no dearer ones than are
        needed, and once it is known how many leaves are too few, none with those.
        """
        promised = np.array(list(self.config.promised.values()))
        fewest, hopeless = None, self._hopeless * (index.config.leaves or 1)
        for reorder in self._reorders(index):
            before = np.zeros(len(promised))
            for leaves in self._searched(index):
                if leaves < hopeless:
                    continue
                setting = Setting(leaves_to_search=leaves, reorder=reorder)
                shares = _shares(index, self.queries, self.truth, list(self.config.promised), setting)
                near = None if self.near is None else self.near.found(partial(self._candidates, index, setting))
                yield setting, shares, near
                mean, finds_near = shares.mean(axis=0), near is None or near.keep(self.config)
                if (mean < promised - HOPELESS).any():
                    hopeless = max(hopeless, leaves)
                if finds_near and ((mean >= (1 + promised) / 2).all() or (mean - before < SATURATED).all()):
                    break
                before = mean
            keeps = finds_near and (mean >= promised).all()
            if keeps and fewest is not None and leaves >= fewest:
                break  # scoring more candidates again spares no leaves
            fewest = leaves if keeps else None
        self._hopeless = hopeless / (index.config.leaves or 1) / 2

    def _candidates(self, index: ScannIndex, setting: Setting, queries: Vectors) -> Neighbours:
        return index.candidates(queries, self.truth.shape[1], setting)

    def _searched(self, index: ScannIndex) -> list[int]:
        leaves = index.config.leaves
        if not leaves:
            return [1]
        if self.config.leaves_to_search:
            return [self.config.leaves_to_search]
        steps = ceil(log(leaves, FINER))
        return sorted({min(leaves, ceil(FINER**step)) for step in range(steps + 1) if FINER**step * LEAST >= leaves})

    def _reorders(self, index: ScannIndex) -> list[int]:
        if self.config.reorder or (not index.config.leaves and index.config.prefix is None):
            assert index.config.reorder is not None
            return [index.config.reorder]
        return sorted({min(len(index.rows), factor * self.config.depth) for factor in REORDERED})

    def refusal(self) -> ExportError:
        """What to say where no setting keeps the promise."""
        best = max(self.points, key=self._margin)
        reached = ", ".join(
            f"{name} is {each.estimate:.4f} ({each.low:.4f} at least)" for name, each in best.recall.items()
        )
        promise = ", ".join(f"{name} {recall}" for name, recall in self.config.promise.items())
        if best.near is not None:
            promise += ", near new items too"
            reached += f", and of {best.near.all} queries near something new {best.near.found} find it"
        cure = "leave out leaves, leaves_to_search and reorder, or lower the promise"
        in_time = [point for point in self.points if self._margin(point) >= 0]
        if in_time:
            best = min(in_time, key=_time)
            reached = f"{best.milliseconds.estimate:.3g} ms ({best.milliseconds.high:.3g} at most)"
            promise += f", and {self.config.milliseconds} milliseconds"
            cure = "allow more milliseconds, or lower the promised recall"
        elif best.finds_near(self.config) and all(
            each.estimate >= self.config.promise[name] for name, each in best.recall.items()
        ):
            cure = "hold out more users, so that the interval is narrower, or lower the promise"
        place, setting = "retrieval.index.promise", best.setting
        how = f"{setting.leaves_to_search} of {best.layout.leaves} leaves searched, {setting.reorder} scored again"
        return ExportError(
            place, f"at best {reached} with {how}, by {len(self.queries)} held-out queries", promise, cure
        )

    def _margin(self, point: Point) -> float:
        """How far the recalls are above what is promised, at the lower ends of their intervals, and new items."""
        margin = min(point.recall[name].low - promised for name, promised in self.config.promise.items())
        if point.near is None or point.near.keep(self.config):
            return margin
        return min(margin, point.near.found / point.near.all - self.config.promised_there)


def _time(point: Point) -> float:
    return point.milliseconds.estimate


def _shares(index: ScannIndex, queries: Vectors, truth: NDArray[np.int32], ks: list[int], setting: Setting) -> Shares:
    """[Q, len(ks)] of each query the share of its best k (the first of `truth` [Q, K]) that are found among k."""
    found = np.concatenate(
        [
            index.candidates(queries[at : at + AT_ONCE], truth.shape[1], setting).ids
            for at in range(0, len(queries), AT_ONCE)
        ]
    )
    columns = []
    for k in ks:
        best = Ragged.from_lists(list(truth[:, :k]))
        columns.append(recall_at_k(best.contains(found[:, :k]), best.lengths, min(k, truth.shape[1])))
    return np.stack(columns, axis=1)


def _between(shares: list[Shares], seed: int) -> list[list[Between]]:
    """The means over queries, with intervals; a miss in the sample promises no more than a sample without any could."""
    losses = 1 - np.concatenate(shares, axis=1)
    found = []
    for lost, interval in zip(losses.T, bootstrap_intervals(losses, seed=seed), strict=True):
        if interval is None:
            found.append(Between(estimate=1 - float(lost.mean()), low=0.0, high=1.0))
            continue
        most = max(interval.high, min(1.0, NONE_OF / len(lost)))
        found.append(Between(estimate=1 - interval.estimate, low=1 - most, high=1 - interval.low))
    width = shares[0].shape[1]
    return [found[at : at + width] for at in range(0, len(found), width)]


def _is_exhaustive(index: ScannIndex, setting: Setting) -> bool:
    """Whether every item is scored exactly."""
    all_again = setting.reorder >= len(index.rows)
    if not index.config.leaves:
        return index.config.prefix is None or all_again
    return all_again and setting.leaves_to_search >= index.config.leaves


def _milliseconds(index: ScannIndex, queries: Vectors, k: int, setting: Setting) -> Between:
    """The median, and the order statistics around it that hold it in 95 % of all samples."""
    index.candidates(queries[:1], k, setting)
    times = []
    for query in queries:
        start = perf_counter()
        index.candidates(query[np.newaxis], k, setting)
        times.append(1_000 * (perf_counter() - start))
    rising, count = np.sort(times), len(times)
    away = 1.96 * sqrt(count) / 2
    low, high = max(0, int(count / 2 - away)), min(count - 1, ceil(count / 2 + away))
    return Between(estimate=float(np.median(rising)), low=float(rising[low]), high=float(rising[high]))


def _depths(index: ScannIndex, exact: ExactIndex, queries: Vectors, config: ScannConfig, seed: int) -> Iterator[Depth]:
    """For ever deeper searches, what finds as much as was promised, or as its queries can tell; none beyond what ScaNN
    can reach.
    """
    if not index.config.leaves:
        return
    setting, needed = index.setting, max(config.promise.values())
    yield Depth(depth=config.depth, **setting.model_dump())
    deepest = min(DEEPEST * config.depth, len(index.rows) // 2)
    deeper = (ceil(config.depth * 2 ** (step / STEPS)) for step in count(1))
    depths = list(dict.fromkeys(takewhile(lambda depth: depth <= deepest, deeper)))
    if not depths:
        return
    some = queries[: max(MIN_QUERIES, TRUTH // depths[-1])]
    needed = min(needed, 1 - NONE_OF / len(some))  # so few could not tell more, if they missed nothing
    truth = exact.search(some, depths[-1]).ids
    for depth in depths:

        def recall(setting: Setting, best: NDArray[np.int32] = truth[:, :depth]) -> Between:
            return _between([_shares(index, some, best, [best.shape[1]], setting)], seed)[0][0]

        setting = setting.model_copy(update={"reorder": max(setting.reorder, min(depth * 3 // 2, len(index.rows)))})
        found = recall(setting)
        while found.low < needed:
            wider = {each: recall(each) for each in _wider(index, setting, config)}
            if not wider:
                return
            setting, found = max(wider.items(), key=lambda each: each[1].estimate)
        yield Depth(depth=depth, **setting.model_dump())


def _wider(index: ScannIndex, setting: Setting, config: ScannConfig) -> list[Setting]:
    """The next dearer settings: more leaves, more candidates scored again."""
    assert index.config.leaves is not None
    leaves = min(index.config.leaves, ceil(FINER * setting.leaves_to_search))
    steps = {"reorder": min(len(index.rows), ceil(FINER * setting.reorder))}
    if not config.leaves_to_search:
        steps["leaves_to_search"] = leaves
    wider = [setting.model_copy(update={key: value}) for key, value in steps.items()]
    return [each for each in wider if each != setting]


def _autopilot(size: int, dim: int, k: int) -> int | None:
    """Leaves that ScaNN's autopilot suggests; none for small catalogues. It looks at the shape alone."""
    shape = np.broadcast_to(np.zeros((1, dim), np.float32), (size, dim))
    config = load_scann().scann_ops_pybind.builder(shape, min(k, size), "dot_product").autopilot().create_config()
    found = re.search(r"num_children: (\d+)", config)
    return int(found[1]) if found else None
