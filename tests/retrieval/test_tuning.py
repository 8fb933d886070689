"""A promise is kept by the cheapest setting, or refused; by planted curves and by ScaNN itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.errors import BundleError, ExportError
from recsys.retrieval import Catalogue, ExactIndex, ScannConfig, ScannIndex, recall_of, tune, tuning
from recsys.retrieval.curve import CURVE, Between, Curve, Layout, Point, Setting
from recsys.retrieval.tuning import _between, _milliseconds

N, D, Q = 3_000, 8, 300
FIXED = ScannConfig(leaves=40, dimensions_per_block=2, anisotropic_threshold=0.2, promise={"recall@20": 0.9})
"""One layout, so that one build is enough."""


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)


@pytest.fixture(scope="module")
def queries() -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(Q, D)).astype(np.float32)


@pytest.fixture(scope="module")
def tuned(vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> ScannIndex:
    return tune(vectors, queries, FIXED)


def curve_of(index: ScannIndex) -> Curve:
    assert index.curve is not None
    return index.curve


def test_the_promise_is_kept_for_queries_that_tuned_nothing(tuned: ScannIndex, vectors: NDArray[np.float32]) -> None:
    others = np.random.default_rng(2).normal(size=(500, D)).astype(np.float32)
    recall = recall_of(tuned, ExactIndex(vectors), others, 20)
    assert 0.9 <= recall < 0.999, "kept, and not by scoring everything"
    assert recall == pytest.approx(curve_of(tuned).point.recall["recall@20"].estimate, abs=0.02)


def test_the_chosen_setting_is_the_cheapest_that_keeps_the_promise(tuned: ScannIndex) -> None:
    curve = curve_of(tuned)
    keeping = [point for point in curve.points if point.recall["recall@20"].low >= 0.9]
    assert curve.point in keeping
    assert len(keeping) < len(curve.points), "the curve shows settings that find too little, too"
    assert curve.point.milliseconds.estimate == min(point.milliseconds.estimate for point in keeping)
    assert tuned.setting == curve.point.setting
    for point in curve.points:
        for each in (*point.recall.values(), point.milliseconds):
            assert each.low <= each.estimate <= each.high


def test_a_curve_is_what_searching_at_its_settings_gives(
    tuned: ScannIndex, vectors: NDArray[np.float32], queries: NDArray[np.float32]
) -> None:
    truth = ExactIndex(vectors).search(queries, 20).ids
    for point in curve_of(tuned).points[::5]:
        found = tuned.candidates(queries, 20, point.setting).ids
        by_hand = np.mean([len(set(a) & set(b)) / 20 for a, b in zip(found.tolist(), truth.tolist(), strict=True)])
        assert point.recall["recall@20"].estimate == pytest.approx(by_hand)


def test_the_curve_is_the_same_in_every_run_but_for_times(
    tuned: ScannIndex,
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Given the same leaves and codes, which ScaNN trains by draws of its own."""
    same = ScannIndex(tuned.searcher, Catalogue(vectors), FIXED.for_size(N))
    monkeypatch.setattr(ScannIndex, "build", lambda *_: same)
    again = curve_of(tune(vectors, queries, FIXED))
    told = [[(p.layout, p.setting, p.recall) for p in curve.points] for curve in (curve_of(tuned), again)]
    assert told[0] == told[1]


def test_what_is_given_is_not_touched(vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> None:
    given = FIXED.model_copy(update={"leaves_to_search": 30, "reorder": 150})
    index = tune(vectors, queries, given)
    assert [point.setting for point in curve_of(index).points] == [Setting(leaves_to_search=30, reorder=150)]
    assert index.config == given.for_size(N)


def test_several_layouts_are_tried_where_they_are_left_open(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With planted times, by which a search takes what 96 leaves would, more or fewer: 96 of 24, 48, 96, ... win."""

    def milliseconds(index: ScannIndex, *_: object) -> Between:
        took = abs(np.log2((index.config.leaves or 1) / 96)) + (index.config.dimensions_per_block or 0)
        return Between(estimate=took, low=took, high=took)

    monkeypatch.setattr(tuning, "_milliseconds", milliseconds)
    monkeypatch.setattr(tuning, "_autopilot", lambda *_: 24)
    monkeypatch.setattr("recsys.retrieval.config.BRUTE_FORCE_BELOW", 1)
    index = tune(vectors, queries, ScannConfig(promise={"recall@20": 0.8}))
    assert index.config.leaves == 96
    tried = {(point.layout.leaves, point.layout.dimensions_per_block) for point in curve_of(index).points}
    assert tried == {(24, 2), (48, 2), (96, 2), (192, 2), (96, 4)}
    assert {point.layout.anisotropic_threshold for point in curve_of(index).points} == {0.2, 0.1}


def test_a_promise_that_cannot_be_kept_is_refused_with_the_best_that_was_reached(
    vectors: NDArray[np.float32], queries: NDArray[np.float32]
) -> None:
    poor = FIXED.model_copy(update={"leaves_to_search": 2})
    message = (
        r"promise: at best recall@20 is 0\.\d+ \(0\.\d+ at least\) with 2 of 40 .*expected recall@20 0\.9; leave out"
    )
    with pytest.raises(ExportError, match=message):
        tune(vectors, queries, poor)


def test_few_queries_cannot_promise_much(vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> None:
    """All of 10 find everything at 40 of 40 leaves, but as many as 3 in 10 might not."""
    promise = FIXED.model_copy(update={"promise": {"recall@20": 0.9}, "leaves_to_search": 40, "reorder": 400})
    with pytest.raises(ExportError, match=r"hold out more users, so that the interval is narrower"):
        tune(vectors, queries[:10], promise)
    assert tune(vectors, queries, promise).setting.leaves_to_search == 40


def test_a_time_that_cannot_be_kept_is_refused(vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> None:
    with pytest.raises(ExportError, match=r"ms \(.* at most\) with .*, and 1e-06 milliseconds; allow more"):
        tune(vectors, queries, FIXED.model_copy(update={"milliseconds": 1e-6}))


def test_every_promise_counts(vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> None:
    both = FIXED.model_copy(update={"promise": {"recall@5": 0.97, "recall@20": 0.5}})
    point = curve_of(tune(vectors, queries, both)).point
    assert point.recall["recall@5"].low >= 0.97
    assert list(point.recall) == ["recall@5", "recall@20"]


def test_small_catalogues_are_scored_whole(queries: NDArray[np.float32]) -> None:
    index = tune(np.eye(D), queries[:1], ScannConfig())
    assert curve_of(index).point.recall["recall@100"] == Between(estimate=1.0, low=1.0, high=1.0)
    assert curve_of(index).depths == ()


def test_deeper_searches_find_as_much_as_was_promised(tuned: ScannIndex, vectors: NDArray[np.float32]) -> None:
    others = np.random.default_rng(3).normal(size=(300, D)).astype(np.float32)
    depths = curve_of(tuned).depths
    assert [each.depth for each in depths] == [20, 29, 40, 57, 80, 114, 160, 227, 320, 453, 640, 906, 1280]
    for each in depths:
        truth = ExactIndex(vectors).search(others, each.depth).ids
        found = tuned.candidates(others, each.depth, each).ids
        shares = [len(set(a) & set(b)) / each.depth for a, b in zip(found.tolist(), truth.tolist(), strict=True)]
        assert np.mean(shares) >= 0.89
    shallow, deep = depths[0], depths[-1]
    assert deep.leaves_to_search > shallow.leaves_to_search, "the first setting would find too little so deep"
    assert tuned.setting_for(20) == shallow
    assert tuned.setting_for(21) == tuned.setting_for(29) == depths[1]
    assert tuned.setting_for(30) == depths[2]
    assert tuned.setting_for(2_000) is None


def test_depths_ask_no_more_than_so_many_queries_can_tell(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 queries that miss nothing rule out a loss of .018: a promise of .99 is kept as well as they can tell."""
    monkeypatch.setattr(tuning, "TRUTH", 0)
    config = FIXED.model_copy(update={"promise": {"recall@1": 0.99}})
    index, exact = ScannIndex.build(vectors, config), ExactIndex(vectors)
    monkeypatch.setattr(ScannIndex, "candidates", lambda _, some, count, setting: exact.search(some, count))
    found = list(tuning._depths(index, exact, queries, config, seed=0))
    assert [each.depth for each in found] == [1, 2, 3, 4, 6, 8, 12, 16, 23, 32, 46, 64]
    assert len({each.leaves_to_search for each in found}) == 1, "none was widened"


def test_intervals_of_recall() -> None:
    (perfect, some), (again, _) = _between([np.ones((100, 2)) - [0, 0.1] * np.eye(100, 2)[::-1], np.ones((100, 2))], 0)
    assert perfect == again == Between(estimate=1.0, low=1 - 0.03689, high=1.0)
    assert some.low < some.estimate <= some.high
    one_of_ten = np.ones((10, 1)) - 0.05 * np.eye(10, 1)
    ((nearly,),), ((whole,),) = _between([one_of_ten], 0), _between([np.ones((10, 1))], 0)
    assert nearly.low == whole.low == pytest.approx(1 - 0.3689), "a small miss does not make ten queries tell more"
    ((alone,),) = _between([np.array([[0.7]])], 0)
    assert (alone.low, alone.high) == (0.0, 1.0)
    spread = np.random.default_rng(0).random((400, 1))
    ((mean,),) = _between([spread], 0)
    assert mean.high - mean.low == pytest.approx(2 * 1.96 * spread.std() / 20, rel=0.1)


def test_a_time_is_a_median_with_order_statistics(
    tuned: ScannIndex, queries: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(np.cumsum([0, *np.ravel([(n / 1_000, 0.5) for n in range(1, 65)])]).tolist())
    monkeypatch.setattr(tuning, "perf_counter", lambda: next(clock))
    found = _milliseconds(tuned, queries[:64], 5, tuned.setting)
    assert found.estimate == pytest.approx(32.5)
    assert (found.low, found.high) == (pytest.approx(25), pytest.approx(41))


def test_a_curve_is_saved_with_its_index(tuned: ScannIndex, tmp_path: Path) -> None:
    tuned.save(tmp_path / "index")
    loaded = ScannIndex.load(tmp_path / "index")
    assert loaded.curve == tuned.curve
    assert loaded.setting == tuned.setting
    (tmp_path / "index" / CURVE).write_text("{}")
    with pytest.raises(BundleError, match=r"curve\.json: cannot be read"):
        ScannIndex.load(tmp_path / "index")


def test_a_point_keeps_a_promise_by_the_ends_of_its_intervals() -> None:
    layout = Layout(leaves=1, dimensions_per_block=2, anisotropic_threshold=0.2)
    recall, time = Between(estimate=0.95, low=0.93, high=0.97), Between(estimate=2.0, low=1.0, high=3.0)
    setting = Setting(leaves_to_search=1, reorder=1)
    point = Point(layout=layout, setting=setting, recall={"recall@10": recall}, milliseconds=time)
    assert point.keeps(ScannConfig(promise={"recall@10": 0.93}))
    assert not point.keeps(ScannConfig(promise={"recall@10": 0.94}))
    assert point.keeps(ScannConfig(promise={"recall@10": 0.93}, milliseconds=3.0))
    assert not point.keeps(ScannConfig(promise={"recall@10": 0.93}, milliseconds=2.5))


def test_it_takes_at_least_one_query(vectors: NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match="at least one query"):
        tune(Catalogue(vectors), np.empty((0, D)), FIXED)


def test_autopilot_suggests_leaves_for_large_catalogues_alone() -> None:
    assert tuning._autopilot(1_000, 64, 100) is None
    suggested = tuning._autopilot(1_000_000, 64, 100)
    assert suggested is not None
    assert 100 < suggested < 2_000
