"""Off-policy estimates of recommenders: by hand, against known truth, and of a two-tower model on a prepared part."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import ArrayLike, NDArray

from recsys.data.catalogue import Catalogue
from recsys.data.prepared import Prepared
from recsys.embeddings.config import EmbeddingsConfig
from recsys.evaluation.config import EvaluationConfig
from recsys.evaluation.off_policy import Bounds, Log, OffPolicyRecord, estimate, estimate_of, two_tower_off_policy
from recsys.metrics import off_policy
from recsys.models.config import TwoTowerConfig
from recsys.models.two_tower import TwoTower
from recsys.ragged import Ragged
from tests.worlds import EMBEDDINGS, write_world

WHOLE = ("user_index", "item_index", "label", "propensity", "history_stop", "time", "device")


@dataclass(frozen=True)
class Ranked:
    """A recommender whose rankings are given: [E, N]."""

    ranking: NDArray[np.int32]

    @property
    def users(self) -> int:
        return len(self.ranking)

    @property
    def items(self) -> int:
        return self.ranking.shape[1]

    def recommend(self, rows: NDArray[np.integer], k: int, exclude: Ragged) -> NDArray[np.int32]:
        assert len(exclude) == len(rows)
        assert not len(exclude.values)
        top = np.full((len(rows), k), -1, np.int32)
        top[:, : self.items] = self.ranking[rows, :k]
        return top


def settings(k: int, clip: float | None = None, block: int = 4_096) -> EvaluationConfig:
    return EvaluationConfig(ks=(k, 100), monitor=f"ndcg@{k}", clip=clip, users_per_block=block)


def log(users: ArrayLike, items: ArrayLike, rewards: ArrayLike, propensities: ArrayLike) -> Log:
    return Log(np.array(users), np.array(items), np.array(rewards, np.float32), np.array(propensities, np.float64))


# The recommender shows 0 or 1, 2 or 0, 1 or 2, 0 or 1: weights 1/2 / propensity for the first, none, third, fourth.
RANKED = Ranked(np.array([[0, 1, 2], [2, 0, 1], [1, 2, 0], [0, 1, 2]], np.int32))
LOG = log([7, 7, 3, 9], [1, 1, 2, 0], [1.0, 1.0, 0.0, 1.0], [0.5, 0.5, 0.25, 0.125])  # weights 1, 0, 2, 4


def test_by_hand() -> None:
    for block in (1, 3, 4):
        found = estimate(RANKED, LOG, settings(2, block=block))
        assert found.ips == pytest.approx((1 + 4) / 4)
        assert found.snips == pytest.approx((1 + 4) / (1 + 2 + 4))
        assert found.mean_weight == pytest.approx(7 / 4)
        assert found.effective_samples == pytest.approx(7**2 / (1 + 4 + 16))
        assert (found.events, found.users, found.clipped) == (4, 3, 0.0)


def test_clipping_by_hand() -> None:
    found = estimate(RANKED, LOG, settings(2, clip=1.5))  # weights 1, 0, 1.5, 1.5
    assert found.ips == pytest.approx(2.5 / 4)
    assert found.snips == pytest.approx(2.5 / 4)
    assert found.mean_weight == pytest.approx(1.0)
    assert found.effective_samples == pytest.approx(4**2 / (1 + 2.25 + 2.25))
    assert found.clipped == 0.5


def test_more_slots_than_items() -> None:
    """Three items in five slots: each is shown with probability 1/3."""
    found = estimate(RANKED, LOG, settings(5))
    assert found.mean_weight == pytest.approx((2 + 2 + 4 + 8) / 3 / 4)


def test_users_are_drawn_not_events() -> None:
    """Copies of all events of each user say nothing new."""
    rng = np.random.default_rng(0)
    users, rewards, target = np.arange(60), rng.integers(0, 2, 60), rng.uniform(0.1, 0.5, 60)
    once = estimate_of(target, log(users, users, rewards, [0.25] * 60))
    again = estimate_of(
        np.tile(target, 9), log(np.tile(users, 9), np.tile(users, 9), np.tile(rewards, 9), [0.25] * 540)
    )
    assert (once.users, again.users, again.events) == (60, 60, 540)
    for found, expected in ((again.ips_bounds, once.ips_bounds), (again.snips_bounds, once.snips_bounds)):
        assert found is not None
        assert expected is not None
        assert [found.low, found.high] == pytest.approx([expected.low, expected.high])


def test_nothing_in_common_with_the_log() -> None:
    found = estimate_of(np.zeros(4), LOG)
    assert (found.ips, found.snips, found.effective_samples, found.mean_weight) == (0.0, None, 0.0, 0.0)
    assert found.ips_bounds is found.snips_bounds is None
    assert found.warning == "none of 4 logged items would have been shown: the log says nothing of this policy"


def test_one_user_has_no_interval() -> None:
    found = estimate_of(np.full(300, 0.5), log(np.zeros(300, int), np.zeros(300, int), np.ones(300), np.full(300, 0.5)))
    assert (found.ips, found.snips, found.warning) == (1.0, 1.0, None)
    assert found.ips_bounds is found.snips_bounds is None


@pytest.mark.parametrize(
    ("weights", "warned"),
    [
        ([1.0] * 100, False),
        ([1.0] * 99, True),
        ([1.0] * 200 + [0.0] * 19_800, False),
        ([1.0] * 200 + [0.0] * 20_000, True),
        ([1.0] * 150 + [60.0], True),
    ],
    ids=["100", "99", "1%", "below 1%", "one event decides"],
)
def test_a_small_effective_sample_is_warned_of(weights: list[float], warned: bool) -> None:
    count = len(weights)
    found = estimate_of(
        np.array(weights) / 64, log(np.arange(count), np.zeros(count), np.ones(count), [1 / 64] * count)
    )
    assert (found.warning is not None) == warned
    if found.warning is not None:
        assert f"{count:,} logged events say as much as {found.effective_samples:,.0f} of" in found.warning
        assert "evaluation.clip" in found.warning


class World:
    """Two sorts of moments, six items: in sort 0 the last item is best, in sort 1 the first; a few events of each user.

    It is logged with probabilities in proportion to exp(2 x reward) of the *other* sort: mostly the wrong items.
    """

    def __init__(self, seed: int, users: int = 500, each: int = 4) -> None:
        rng = np.random.default_rng(seed)
        reward = np.array([[0.05, 0.1, 0.2, 0.3, 0.5, 0.8], [0.8, 0.5, 0.3, 0.2, 0.1, 0.05]])
        logging = np.exp(2 * reward[::-1])
        logging /= logging.sum(1, keepdims=True)
        sort = rng.integers(0, 2, users * each)
        self.best = np.argsort(-reward, axis=1).astype(np.int32)[sort]
        items = (rng.random((len(sort), 1)) > logging[sort].cumsum(1)).sum(1)
        got = rng.random(len(sort)) < reward[sort, items]
        self.log = log(np.repeat(np.arange(users), each), items, got, logging[sort, items])
        self.truth = (0.8 + 0.5) / 2
        """Of whoever shows one of the best two."""


def holds(bounds: Bounds | None, value: float) -> bool:
    assert bounds is not None
    return bounds.low <= value <= bounds.high


def test_the_intervals_hold_the_truth_where_the_logs_own_mean_does_not() -> None:
    hits = {"ips": 0, "snips": 0, "logged": 0}
    for seed in range(25):
        world = World(seed)
        found, logged = (
            estimate(Ranked(world.best), world.log, settings(2)),
            estimate_of(world.log.propensities, world.log),
        )
        hits["ips"] += holds(found.ips_bounds, world.truth)
        hits["snips"] += holds(found.snips_bounds, world.truth)
        hits["logged"] += holds(logged.ips_bounds, world.truth)
        assert found.mean_weight == pytest.approx(1.0, abs=0.2)
        assert found.warning is None
    assert hits["ips"] >= 22
    assert hits["snips"] >= 22
    assert hits["logged"] == 0


def test_clipping_trades_spread_for_bias() -> None:
    plain = [estimate(Ranked(World(seed).best), World(seed).log, settings(2)) for seed in range(6)]
    cut = [estimate(Ranked(World(seed).best), World(seed).log, settings(2, clip=2.0)) for seed in range(6)]
    assert np.std([each.ips for each in cut]) < np.std([each.ips for each in plain])
    assert np.mean([each.ips for each in cut]) < np.mean([each.ips for each in plain]) - 0.1
    assert all(each.clipped > 0.1 for each in cut)
    assert all(a.effective_samples > b.effective_samples for a, b in zip(cut, plain, strict=True))


def test_the_logging_policy_earns_what_was_logged() -> None:
    logged = World(0).log
    found = estimate_of(logged.propensities, logged)
    assert found.ips == found.snips == pytest.approx(float(logged.rewards.mean()))
    assert found.ips_bounds == found.snips_bounds
    assert found.effective_samples == pytest.approx(len(logged.users))
    assert found.mean_weight == 1.0


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A test part of several events for each user, half of them without reward, each with a propensity."""
    folder = write_world(tmp_path_factory.mktemp("prepared") / "world", users=20, items=30, per_user=12)
    table = pa.concat_tables([pq.read_table(folder / part / "part-00000.parquet") for part in ("train", "test")])
    rng = np.random.default_rng(3)
    table = table.take(pa.array(rng.permutation(len(table))))
    label = table.column_names.index("label")
    table = table.set_column(label, "label", pa.array(rng.integers(0, 2, len(table)), pa.float32()))
    table = table.append_column("propensity", pa.array(rng.uniform(0.02, 1.0, len(table))))
    pq.write_table(table, folder / "test" / "part-00000.parquet", row_group_size=50)
    return Prepared(folder)


@pytest.fixture(scope="module")
def model(prepared: Prepared) -> TwoTower:
    """Untrained, but with rows so large that users and moments differ."""
    plain = json.loads(json.dumps(EMBEDDINGS))
    for table in plain["tables"].values():
        table["initializer"] = {"range": 1.0}
    config = TwoTowerConfig.model_validate(
        {"kind": "two_tower", "query": {"output_dim": 8}, "item": {"output_dim": 8}, "normalize": False}
    )
    embeddings = EmbeddingsConfig.model_validate(plain)
    return TwoTower(config, embeddings, prepared.info.inputs, Catalogue.of(prepared), seed=3)


def test_a_two_tower_is_asked_at_the_moment_of_each_event(prepared: Prepared, model: TwoTower) -> None:
    """Event by event, with all scores sorted."""
    rows = prepared.examples("test", WHOLE)
    items = model.item_vectors(prepared.item_features)
    target = []
    for n in range(len(rows)):
        row = {name: rows[name].to_numpy()[n : n + 1] for name in WHOLE}
        context = {"device": row["device"]}
        query = prepared.query_features(row["user_index"], row["history_stop"], context, row["time"])
        top = np.argsort(-(model.query_vectors(query) @ items.T)[0], kind="stable")[:5]
        target.append(0.2 if row["item_index"][0] in top else 0.0)
    assert 0.05 < np.mean(np.array(target) > 0) < 0.95
    expected = off_policy(rows["label"].to_numpy(), rows["propensity"].to_numpy(), target)
    found = two_tower_off_policy(model, prepared, "test", settings(5, block=64))
    assert list(found) == ["model", "popularity", "logged"]
    assert found["model"].ips == pytest.approx(expected.ips)
    assert found["model"].snips == pytest.approx(expected.snips)
    assert found["model"].events == len(rows) == 220

    popular = np.argsort(-prepared.train_count, kind="stable")[:5]
    shown = np.isin(rows["item_index"].to_numpy(), popular) / 5
    expected = off_policy(rows["label"].to_numpy(), rows["propensity"].to_numpy(), shown)
    assert found["popularity"].ips == pytest.approx(expected.ips)
    assert found["logged"].ips == pytest.approx(float(rows["label"].to_numpy().mean()))


def test_the_clip_is_for_policies_that_are_not_the_logs_own(prepared: Prepared, model: TwoTower) -> None:
    plain = two_tower_off_policy(model, prepared, "test", settings(5))
    cut = two_tower_off_policy(model, prepared, "test", settings(5, clip=0.5))
    assert cut["model"].clipped > 0
    assert cut["model"].ips < plain["model"].ips
    assert cut["logged"] == plain["logged"]


def test_a_record_survives_json() -> None:
    found = estimate(RANKED, LOG, settings(2))
    assert OffPolicyRecord.model_validate_json(found.model_dump_json()) == found


def test_a_record_is_read_without_tensorflow() -> None:
    code = "import sys, recsys.evaluation.off_policy; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
