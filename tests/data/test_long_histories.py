"""Simulated long histories: the planted truth tells the clicks, and nothing else does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError
from sklearn.metrics import log_loss, roc_auc_score

from recsys.data import long_histories
from recsys.data.config import SimulatedHistoriesSource
from recsys.data.dataset import PARTS
from recsys.data.long_histories import STEP, TRUTH, LongHistories, simulate
from recsys.data.long_histories_config import LongHistoriesConfig
from recsys.data.sources import resolve
from recsys.errors import DataError
from recsys.experiment import Experiment

CONFIG = LongHistoriesConfig(users=800, length=60, topics=12, topics_per_user=8, seed=3)
SMALL = LongHistoriesConfig(users=20, length=30, topics=5, topics_per_user=4)


class World:
    """Histories [n, T], and candidates and clicks [n] of the users, each candidate beside its user's history."""

    def __init__(self, config: LongHistoriesConfig, folder: Path) -> None:
        files = simulate(config, folder)
        self.truth = LongHistories.load(folder / TRUTH)
        events = pq.read_table(files.events[0])
        self.users, self.items, self.times, self.clicked = (
            events[name].to_numpy().reshape(config.users, -1) for name in events.column_names
        )
        self.config = config
        self.history = np.repeat(self.items[:, : config.length], config.topics_per_user, axis=0)
        self.target = self.items[:, config.length :].ravel()
        self.label = self.clicked[:, config.length :].ravel()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(CONFIG, tmp_path_factory.mktemp("long") / "out")


def auc(world: World, score: NDArray[Any]) -> float:
    return float(roc_auc_score(world.label, score))


def test_tables_are_whole(world: World) -> None:
    assert world.items.size == CONFIG.events
    assert (world.users == np.arange(CONFIG.users)[:, None]).all()
    assert set(world.items.ravel()) == set(range(CONFIG.items))
    assert (world.clicked[:, : CONFIG.length] == 1).all()
    np.testing.assert_array_equal(np.diff(world.times // STEP, axis=1), 1)


def test_best_predictions_are_calibrated_and_not_perfect(world: World) -> None:
    best = world.truth.click_probability(world.target, world.history)
    assert 0.93 < auc(world, best) < 0.96
    order = np.argsort(best)
    for part in np.array_split(order, 4):
        assert world.label[part].mean() == pytest.approx(best[part].mean(), abs=0.03)
    own = log_loss(world.label, best)
    for other in (best * 0.9 + 0.05, np.clip(best * 1.1 - 0.05, 0.01, 0.99), 1 - best):
        assert log_loss(world.label, other) > own


def test_best_predictions_are_bayes_rule_by_enumeration(world: World) -> None:
    """Every style that the user may prefer, weighed by what it would have made of the clicks and the candidate."""
    config, truth = CONFIG, world.truth
    for row in range(0, 200, 17):
        target, history = world.target[row], world.history[row].copy()
        history[row % 30 :: 3] = -1  # padding
        topic, style = truth.item_topic[target], truth.item_style[target]
        told = [truth.item_style[item] for item in history if item >= 0 and truth.item_topic[item] == topic]
        joint = []
        for preferred in range(config.styles):
            likely = [config.loyalty if s == preferred else (1 - config.loyalty) / (config.styles - 1) for s in told]
            shown = 0.5 if style == preferred else 0.5 / (config.styles - 1)
            joint.append(float(np.prod(likely)) * shown)
        match = joint[style] / sum(joint)
        expected = match * (1 - config.noise) + (1 - match) * config.noise
        found = truth.click_probability(world.target[row : row + 1], history[None])
        assert found[0] == pytest.approx(expected, rel=1e-9)


def test_clicks_are_those_of_the_planted_preferences(world: World) -> None:
    truth, rows = world.truth, np.arange(CONFIG.users)[:, None]
    topics = truth.item_topic[world.items]
    place = (truth.user_topics[:, None, :] == topics[:, :, None]).argmax(axis=2)
    assert (truth.user_topics[rows, place] == topics).all(), "a topic that the user does not read"
    preferred = truth.item_style[world.items] == truth.preferred[rows, place]
    assert preferred[:, : CONFIG.length].mean() == pytest.approx(CONFIG.loyalty, abs=0.01)
    matches = preferred[:, CONFIG.length :].ravel()
    assert matches.mean() == pytest.approx(0.5, abs=0.02)
    assert (matches == world.label).mean() == pytest.approx(1 - CONFIG.noise, abs=0.01)
    counts = (place[:, : CONFIG.length, None] == np.arange(CONFIG.topics_per_user)).sum(axis=1)
    assert counts.max() - counts.min() <= 1
    assert (np.sort(place[:, CONFIG.length :]) == np.arange(CONFIG.topics_per_user)).all(), "one candidate of each"


def test_nothing_else_tells_the_clicks(world: World) -> None:
    """Popularity in clicks or in all events, the item itself, its topic or style, the target's and the topic's
    presence, the user, the time. 6,400 labels: a standard deviation of .007.
    """
    truth, target, history = world.truth, world.target, world.history
    half = len(target) // 2

    def rates(keys: NDArray[Any], count: int) -> NDArray[Any]:
        """Click rates of the first half, to predict the second with."""
        clicks = np.bincount(keys[:half], world.label[:half], count) + 1
        return (clicks / (np.bincount(keys[:half], minlength=count) + 2))[keys]

    assert not (history == target[:, None]).any(), "a candidate stands in its own history"
    user = np.repeat(np.arange(CONFIG.users), CONFIG.topics_per_user)
    worthless = {
        "shown": np.bincount(world.items.ravel(), minlength=CONFIG.items)[target],
        "clicked in histories": np.bincount(history.ravel(), minlength=CONFIG.items)[target],
        "topic in history": truth.relevant(target, history).sum(axis=1),
        "time": world.times[:, CONFIG.length :].ravel() % STEP,
        "user": user,
    }
    for name, score in worthless.items():
        assert auc(world, score) == pytest.approx(0.5, abs=0.03), name
    for name, keys, count in (
        ("item", target, CONFIG.items),
        ("topic", truth.item_topic[target], CONFIG.topics),
        ("style", truth.item_style[target], CONFIG.styles),
    ):
        found = roc_auc_score(world.label[half:], rates(keys, count)[half:])
        assert found == pytest.approx(0.5, abs=0.04), name


def test_neither_topic_nor_style_alone_is_enough(world: World) -> None:
    """Events of the target's style, whatever their topic, tell little; those of its topic and style nearly all."""
    truth, target, history = world.truth, world.target, world.history
    style = truth.item_style[history] == truth.item_style[target][:, None]
    assert 0.55 < auc(world, style.sum(axis=1)) < 0.75
    both = style & truth.relevant(target, history)
    assert auc(world, both.sum(axis=1)) > 0.9


def test_the_same_config_gives_the_same_values_in_any_process(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from recsys.data.long_histories import simulate; "
        "from recsys.data.long_histories_config import LongHistoriesConfig; "
        "config = LongHistoriesConfig(users=20, length=30, topics=5, topics_per_user=4); "
        f"simulate(config, Path({str(tmp_path / 'a')!r}))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONHASHSEED": "1"})
    simulate(SMALL, tmp_path / "b")
    simulate(SMALL.model_copy(update={"seed": 1}), tmp_path / "c")
    for name in ("events", "items"):
        first, same, other = (pq.read_table(tmp_path / folder / f"{name}.parquet") for folder in "abc")
        assert first.equals(same)
        assert not first.equals(other)


def test_blocks_bound_the_memory_and_leave_no_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_histories, "_BLOCK_EVENTS", 3 * (SMALL.length + SMALL.topics_per_user))
    world = World(SMALL, tmp_path / "out")
    assert pq.ParquetFile(tmp_path / "out" / "events.parquet").num_row_groups == 7
    assert not (world.history == world.target[:, None]).any()
    assert len({row.tobytes() for row in world.items}) == SMALL.users, "no block repeats another"


def test_a_source_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path))
    source = SimulatedHistoriesSource(kind="simulated_histories", **SMALL.model_dump())
    files = resolve(source, tmp_path)
    before = files.events[0].stat().st_mtime_ns
    assert resolve(source, tmp_path) == files
    assert files.events[0].stat().st_mtime_ns == before
    assert LongHistories.load(files.events[0].with_name(TRUTH)).config == SMALL
    with pytest.raises(DataError, match="is already there"):
        simulate(SMALL, files.events[0].parent)


@pytest.mark.parametrize(
    ("wrong", "key"),
    [({"topics": 5, "topics_per_user": 6}, "topics_per_user"), ({"length": 10, "topics_per_user": 12}, "length")],
)
def test_what_does_not_fit_is_said_at_its_key(wrong: dict[str, int], key: str) -> None:
    with pytest.raises(ValidationError) as error:
        LongHistoriesConfig(**wrong)
    assert [each["loc"] for each in error.value.errors()] == [(key,)]


def test_the_example_config_trains_on_candidates_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its shares cut time where histories end: every example has at least 200 events before it, and half are clicks."""
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    config = Path(__file__).parents[2] / "configs" / "simulated-long-histories.yaml"
    prepared = Experiment.from_yaml(config, ["data.source.users=60"], tmp_path / "runs").prepare()
    found = prepared.info.counts
    assert (found.train + found.valid + found.test) == pytest.approx(60 * 20, abs=60)
    assert found.valid == pytest.approx(180, abs=30)
    assert found.test == pytest.approx(180, abs=30)
    for part in PARTS:
        examples = prepared.examples(part, ["user_index", "history_stop", "label"])
        before = examples["history_stop"].to_numpy() - prepared.event_start[examples["user_index"].to_numpy()]
        assert before.min() >= 200
        assert examples["label"].to_numpy().mean() == pytest.approx(0.5, abs=0.12)
