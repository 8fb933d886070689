"""The simulator: repeatable, and its logs show the truth that was planted."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from recsys.data import simulator
from recsys.data.config import FilesSource, SimulatedSource
from recsys.data.ground_truth import DAY, EPOCH, WEEK, GroundTruth
from recsys.data.simulator import TRUTH, simulate
from recsys.data.simulator_config import SimulatorConfig
from recsys.data.source import SourceFiles
from recsys.data.sources import resolve
from recsys.errors import DataError

SMALL = SimulatorConfig(users=50, items=80, events=1_000, seed=7)
LIVING = SimulatorConfig(
    users=700, items=400, events=40_000, repeats=True, item_turnover=0.2, user_turnover=0.1, cold_items=0.0, days=54
)
"""8 weeks, the last one short. Items alive: 400 / (1 + .2 * 7) = 166.7, a fifth of which is 33 births a week, rounded
down; 400 - 7 * 33 = 169 alive. Users likewise: 700 / 1.7 = 411.8, so 41 births beside 413 alive."""


def columns(source: SourceFiles) -> dict[str, NDArray[Any]]:
    table = pq.read_table(source.events[0])
    return {name: table[name].to_numpy() for name in table.column_names}


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the values (not of the files' bytes) of every table."""
    found = {}
    for path in sorted(folder.glob("*.parquet")):
        sink = pa.BufferOutputStream()
        table = pq.read_table(path).combine_chunks()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        found[path.name] = hashlib.sha256(sink.getvalue()).hexdigest()
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[GroundTruth, dict[str, NDArray[Any]]]:
    folder = tmp_path_factory.mktemp("simulated") / "out"
    source = simulate(SimulatorConfig(users=1_500, items=400, events=60_000, cold_items=0.2, drift=1.0), folder)
    return GroundTruth.load(folder / TRUTH), columns(source)


def test_the_same_config_gives_the_same_values_in_any_process(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from recsys.data.simulator import simulate; "
        "from recsys.data.simulator_config import SimulatorConfig; "
        f"simulate(SimulatorConfig(users=50, items=80, events=1_000, seed=7), Path({str(tmp_path / 'there')!r}))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONHASHSEED": "1"})
    simulate(SMALL, tmp_path / "here")
    assert digests(tmp_path / "here") == digests(tmp_path / "there")
    simulate(SMALL.model_copy(update={"seed": 8}), tmp_path / "other")
    other = digests(tmp_path / "other")
    assert all(other[name] != value for name, value in digests(tmp_path / "here").items())


def test_tables_are_whole(tmp_path: Path) -> None:
    source = simulate(SMALL, tmp_path / "out")
    assert source.items is not None
    assert source.users is not None
    events = columns(source)
    assert len(events["user_id"]) == SMALL.events
    assert pq.read_table(source.items[0])["item_id"].to_pylist() == list(range(SMALL.items))
    assert pq.read_table(source.users[0])["user_id"].to_pylist() == list(range(SMALL.users))
    assert set(events["item_id"]) <= set(range(SMALL.items))
    assert set(events["user_id"]) <= set(range(SMALL.users))
    assert events["timestamp"].min() >= EPOCH
    assert events["timestamp"].max() < EPOCH + SMALL.days * DAY
    assert (events["hour"] == events["timestamp"] // 3600 % 24).all()
    assert set(events["rating"]) == {1, 2, 3, 4, 5}
    assert all(len(set(tags)) == 2 for tags in pq.read_table(source.items[0])["tags"].to_pylist())


def test_no_item_twice_unless_repeats_are_asked_for(tmp_path: Path) -> None:
    pairs = [
        len(set(zip(events["user_id"], events["item_id"], strict=True))) / len(events["user_id"])
        for repeats in (False, True)
        for events in [columns(simulate(SMALL.model_copy(update={"repeats": repeats}), tmp_path / str(repeats)))]
    ]
    assert pairs[0] == 1.0
    assert pairs[1] < 0.9


def test_blocks_are_joined_without_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulator, "_BLOCK_FLOATS", 24 * 8 * 100)  # 100 events a block
    source = simulate(SMALL, tmp_path / "out")
    assert pq.ParquetFile(source.events[0]).num_row_groups > 5
    events = columns(source)
    order = np.lexsort((events["timestamp"], events["user_id"]))
    assert (order == np.arange(SMALL.events)).all()
    assert len(set(zip(events["user_id"], events["item_id"], strict=True))) == SMALL.events


def test_seconds_are_shared(world: tuple[GroundTruth, dict[str, NDArray[Any]]]) -> None:
    _, events = world
    same = (np.diff(events["timestamp"]) == 0) & (np.diff(events["user_id"]) == 0)
    assert 0.1 < same.mean() < 0.4


@pytest.mark.parametrize(("zipf", "taste"), [(0.6, 0.0), (1.0, 0.0), (1.0, 1.0)])
def test_popularity_follows_zipf(tmp_path: Path, zipf: float, taste: float) -> None:
    config = SimulatorConfig(
        users=3_000, items=300, events=150_000, zipf=zipf, taste=taste, cold_items=0.0, repeats=True, seed=3
    )
    events = columns(simulate(config, tmp_path / "out"))
    truth = GroundTruth.of(config)
    counts = np.bincount(events["item_id"], minlength=config.items)
    rank = np.argsort(np.argsort(-truth.popularity)) + 1
    slope = np.polyfit(np.log(rank), np.log(counts), 1)[0]
    assert slope == pytest.approx(-zipf, abs=0.1)


def test_cold_items_appear_only_in_the_last_tenth(world: tuple[GroundTruth, dict[str, NDArray[Any]]]) -> None:
    truth, events = world
    assert truth.cold.sum() == 80
    late = events["timestamp"] >= EPOCH + 0.9 * truth.config.days * DAY
    cold = truth.cold[events["item_id"]]
    assert not cold[~late].any()
    assert set(np.flatnonzero(truth.cold)) == set(events["item_id"][cold])


def test_once_released_cold_items_are_picked_by_their_popularity(tmp_path: Path) -> None:
    config = SimulatorConfig(users=500, items=200, events=100_000, taste=0.0, cold_items=0.3, repeats=True)
    events = columns(simulate(config, tmp_path / "out"))
    truth = GroundTruth.of(config)
    late = events["timestamp"] >= truth.release
    share = truth.popularity[truth.cold].sum() / truth.popularity.sum()
    assert truth.cold[events["item_id"][late]].mean() == pytest.approx(share, rel=0.2)


def test_users_pick_what_they_like(world: tuple[GroundTruth, dict[str, NDArray[Any]]]) -> None:
    """The true affinity ranks a pick above another user's pick of the same moment, far more often than not."""
    truth, events = world
    users, items, times = (events[name] for name in ("user_id", "item_id", "timestamp"))
    picked = truth.affinity(users, items, times)
    others = truth.affinity(users, np.random.default_rng(0).permutation(items), times)
    assert (picked > others).mean() > 0.7
    assert others.mean() == pytest.approx(0.0, abs=0.2)
    assert np.corrcoef(picked, events["rating"])[0, 1] > 0.6


def test_without_taste_picks_tell_nothing(tmp_path: Path) -> None:
    config = SimulatorConfig(users=500, items=200, events=20_000, taste=0.0)
    events = columns(simulate(config, tmp_path / "out"))
    truth = GroundTruth.load(tmp_path / "out" / TRUTH)
    assert abs(truth.affinity(events["user_id"], events["item_id"], events["timestamp"]).mean()) < 0.1


def test_drift_turns_tastes(world: tuple[GroundTruth, dict[str, NDArray[Any]]]) -> None:
    """Early picks fit the first day's taste better than the last day's, and late picks the other way round."""
    truth, events = world
    users, items, times = (events[name] for name in ("user_id", "item_id", "timestamp"))
    first = truth.affinity(users, items, np.full_like(times, EPOCH))
    last = truth.affinity(users, items, np.full_like(times, truth.end))
    fifth = (truth.end - EPOCH) // 5
    early, late = times < EPOCH + fifth, times > truth.end - fifth
    assert (first - last)[early].mean() > 0.5
    assert (last - first)[late].mean() > 0.5


@pytest.mark.parametrize(("drift", "cosine"), [(0.0, 1.0), (0.5, np.cos(np.pi / 4)), (1.0, 0.0)])
def test_how_far_tastes_turn(drift: float, cosine: float) -> None:
    truth = GroundTruth.of(SimulatorConfig(users=4_000, drift=drift))
    users = np.arange(4_000)
    start = truth.taste(users, np.full(4_000, EPOCH))
    end = truth.taste(users, np.full(4_000, truth.end))
    assert np.corrcoef(start.ravel(), end.ravel())[0, 1] == pytest.approx(cosine, abs=0.02)
    assert end.std() == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_category_and_tags_explain_the_stated_share(share: float) -> None:
    config = SimulatorConfig(items=5_000, attribute_share=share)
    truth = GroundTruth.of(config)
    tags = np.eye(3 * config.categories)[truth.item_tags].sum(axis=1)
    design = np.hstack([np.eye(config.categories)[truth.item_category], tags])
    fitted = design @ np.linalg.lstsq(design, truth.item_vectors, rcond=None)[0]
    residual = truth.item_vectors - fitted
    assert 1 - residual.var() / truth.item_vectors.var() == pytest.approx(share, abs=0.02)
    assert truth.item_vectors.var() * config.latent_dim == pytest.approx(1.0, abs=0.01)


def test_age_and_country_go_with_taste() -> None:
    truth = GroundTruth.of(SimulatorConfig(users=5_000))
    design = np.hstack([np.eye(6)[truth.user_age], np.eye(8)[truth.user_country]])
    fitted = design @ np.linalg.lstsq(design, truth.user_start, rcond=None)[0]
    assert fitted.var() / truth.user_start.var() == pytest.approx(0.3, abs=0.03)


def test_affinity_is_the_product_of_taste_and_item_and_scores_agree() -> None:
    truth = GroundTruth.of(SMALL)
    users, times = np.array([3, 4]), np.array([EPOCH, truth.end - 1])
    by_hand = [float(truth.taste([u], [t])[0] @ truth.item_vectors[9]) for u, t in zip(users, times, strict=True)]
    assert truth.affinity(users, [9, 9], times) == pytest.approx(by_hand, rel=1e-5)
    scores = truth.scores(users, times)
    assert scores.shape == (2, SMALL.items)
    assert np.isneginf(scores[0]).tolist() == truth.cold.tolist()
    assert np.isfinite(scores[1]).all()
    warm = int(np.flatnonzero(~truth.cold)[0])
    expected = 2.0 * truth.affinity([3], [warm], [EPOCH])[0] + np.log(truth.popularity[warm])
    assert scores[0, warm] == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def living(tmp_path_factory: pytest.TempPathFactory) -> tuple[GroundTruth, dict[str, NDArray[Any]]]:
    folder = tmp_path_factory.mktemp("living") / "out"
    source = simulate(LIVING, folder)
    return GroundTruth.load(folder / TRUTH), columns(source)


def test_every_week_the_stated_share_is_new_and_as_many_retire(
    living: tuple[GroundTruth, dict[str, NDArray[Any]]],
) -> None:
    truth, _ = living
    for life, births, active in ((truth.item_life, 33, 169), (truth.user_life, 41, 413)):
        born, gone = life.T
        for week, start in enumerate(range(EPOCH, truth.end, WEEK)):
            assert ((born <= start) & (start < gone)).sum() == active
            assert (born == start).sum() == (births if week else active)
            assert (gone == start).sum() == (births if week else 0)
        assert (born < gone).all()
        assert gone.max() == truth.end
        assert (np.diff(born) >= 0).all()


def test_old_and_young_retire_alike() -> None:
    """An even draw over the living: ages at death are geometric, not one fixed lifetime, nor the oldest first."""
    config = LIVING.model_copy(update={"items": 40_000, "days": 70})
    born, gone = GroundTruth.of(config).item_life.T // WEEK
    second = born - born.min() == 1
    share = config.item_births / config.active_items
    left = [(gone[second] - born[second] > age).mean() for age in range(5)]
    assert left == pytest.approx([(1 - share) ** age for age in range(5)], abs=0.03)


def test_no_event_before_birth_or_after_death(living: tuple[GroundTruth, dict[str, NDArray[Any]]]) -> None:
    truth, events = living
    times = events["timestamp"]
    assert len(times) == LIVING.events
    for name, life in (("user_id", truth.user_life), ("item_id", truth.item_life)):
        born, gone = life[events[name]].T
        assert (born <= times).all()
        assert (times < gone).all()


def test_a_session_ends_with_its_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulator, "_MEAN_GAP", 6 * 3_600)  # so that sessions would last for days
    events = columns(simulate(LIVING, tmp_path / "out"))
    born, gone = GroundTruth.of(LIVING).user_life[events["user_id"]].T
    assert ((born <= events["timestamp"]) & (events["timestamp"] < gone)).all()
    assert (events["timestamp"] == gone - 1).any()


def test_lives_are_filled_with_events(living: tuple[GroundTruth, dict[str, NDArray[Any]]]) -> None:
    """Weeks have events in proportion to their days, and the new of a week their fair share of them."""
    truth, events = living
    week = (events["timestamp"] - EPOCH) // WEEK
    counts = np.bincount(week)
    assert counts / LIVING.events == pytest.approx([7 / 54] * 7 + [5 / 54], rel=0.15)
    for name, life, share in (("user_id", truth.user_life, 41 / 413), ("item_id", truth.item_life, 33 / 169)):
        born = (life[events[name], 0] - EPOCH) // WEEK
        assert (born == week)[week > 0].mean() == pytest.approx(share, rel=0.35)


def test_scores_are_those_of_the_living(living: tuple[GroundTruth, dict[str, NDArray[Any]]]) -> None:
    truth, _ = living
    start = EPOCH + 3 * WEEK
    scores = truth.scores(np.array([0, 0]), np.array([start - 1, start]))
    born, gone = truth.item_life.T
    for row, moment in zip(scores, (start - 1, start), strict=True):
        assert (np.isfinite(row) == ((born <= moment) & (moment < gone))).all()
    assert (np.isfinite(scores[0]) != np.isfinite(scores[1])).sum() == 66


def test_turnover_needs_enough_ids_and_no_cold_items() -> None:
    with pytest.raises(ValidationError, match=r"item_turnover(.|\n)*less than one a week: ask for more items"):
        SimulatorConfig(items=10, item_turnover=0.05, cold_items=0.0, events=100)
    with pytest.raises(ValidationError, match=r"user_turnover(.|\n)*ask for more users"):
        SimulatorConfig(users=10, user_turnover=0.05, events=100)
    with pytest.raises(ValidationError, match="set cold_items: 0"):
        SimulatorConfig(item_turnover=0.1)


def test_without_turnover_the_events_are_those_of_version_2(tmp_path: Path) -> None:
    """The digest of the events before there was turnover; whoever changes it must raise `simulator.VERSION`."""
    events = columns(simulate(SMALL, tmp_path / "out"))
    values = np.stack([events[name] for name in ("user_id", "item_id", "timestamp", "rating")]).astype("<i8")
    assert hashlib.sha256(values.tobytes()).hexdigest()[:16] == "c3b02b070824327a"


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(DataError, match="is already there; expected a new or an empty folder"):
        simulate(SMALL, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_killed_simulation_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(simulator, "_choose", broken)
    with pytest.raises(KeyboardInterrupt):
        simulate(SMALL, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_more_events_than_pairs_are_refused() -> None:
    with pytest.raises(ValidationError, match="repeats: true"):
        SimulatorConfig(users=10, items=10, events=51)


def test_simulated_source_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path))
    source = SimulatedSource(kind="simulated", users=50, items=80, events=1_000, seed=7)
    first = resolve(source, Path())
    assert len(columns(first)["user_id"]) == 1_000
    monkeypatch.setattr(simulator, "simulate", None)  # a second making would fail
    assert resolve(source, Path()) == first
    with pytest.raises(TypeError):
        resolve(source.model_copy(update={"seed": 8}), Path())


def test_file_sources_are_relative_to_the_yaml(tmp_path: Path) -> None:
    for name in ("log/b.csv", "log/a.csv", "odd[1].csv", "items.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = resolve(FilesSource(kind="files", events="log/*.csv", items="items.parquet"), tmp_path)
    assert found == SourceFiles((tmp_path / "log/a.csv", tmp_path / "log/b.csv"), (tmp_path / "items.parquet",), None)
    assert resolve(FilesSource(kind="files", events="odd[1].csv"), tmp_path).events == (tmp_path / "odd[1].csv",)


@pytest.mark.parametrize("pattern", ["nothing.csv", "log/*.tsv"])
def test_a_missing_file_is_named(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(DataError, match=r"data.source.events: no file .*; correct the path"):
        resolve(FilesSource(kind="files", events=pattern), tmp_path)
    (tmp_path / "log").mkdir()
    with pytest.raises(DataError, match=r"for all files of a folder write log/\*"):
        resolve(FilesSource(kind="files", events="log"), tmp_path)
