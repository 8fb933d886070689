"""Retrieve, then rank: a case worked out by hand, a slow second opinion, and whose features are scored with what."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.config.load import load
from recsys.data.dataset import Part
from recsys.data.prepared import Prepared
from recsys.embeddings.config import EmbeddingsConfig
from recsys.errors import ConfigError, DataError
from recsys.evaluation.config import STAGES, EvaluationConfig
from recsys.evaluation.recommenders import Nearest
from recsys.evaluation.retrieval import Task
from recsys.evaluation.two_stage import (
    RankerScorer,
    Reranked,
    TwoStageResult,
    evaluate_two_models,
    evaluate_two_stage,
    must_share_data,
)
from recsys.experiment import Experiment
from recsys.experiment_config import ExperimentConfig
from recsys.models.config import RankerConfig
from recsys.models.ranker import Ranker
from recsys.models.two_tower import TwoTower
from recsys.ragged import Ragged
from recsys.retrieval import ExactIndex, ScannConfig
from tests.trained import CONFIG
from tests.worlds import EMBEDDINGS, write_world

ITEMS = 8


@dataclass
class Lists:
    """Recommends what it was told to, and remembers what it was to leave out."""

    ids: list[list[int]]
    excluded: dict[int, list[int]] = field(default_factory=dict)
    items: int = ITEMS

    @property
    def users(self) -> int:
        return len(self.ids)

    def recommend(self, rows: NDArray[np.integer], k: int, exclude: Ragged) -> NDArray[np.int32]:
        self.excluded |= {int(row): exclude[at].tolist() for at, row in enumerate(rows)}
        return np.array(self.ids, np.int32)[rows, :k]


@dataclass
class Table:
    """Scores by user and item."""

    values: NDArray[np.floating]

    def scores(self, rows: NDArray[np.integer], items: NDArray[np.integer]) -> NDArray[np.floating]:
        assert rows.shape == items.shape
        assert (items >= 0).all()
        return self.values[rows, items]


def configured(ks: tuple[int, ...], block: int = 4_096) -> EvaluationConfig:
    return EvaluationConfig(ks=ks, monitor=f"ndcg@{ks[0]}", users_per_block=block, slices=())


def ranked(orders: dict[int, list[int]], users: int) -> Table:
    """Scores that put each user's items in this order."""
    values = np.zeros((users, ITEMS))
    for user, order in orders.items():
        values[user, order] = np.arange(len(order), 0, -1)
    return Table(values)


# User 0 has 3 relevant items, 2 of them among the candidates; user 1 none; user 2 has 2, gets 2 candidates, and the
# right one is ranked second; what user 3 wants is not retrieved.
RELEVANT = Ragged.from_lists([[6, 4, 3], [2], [7, 5], [0]])
SEEN = Ragged.from_lists([[0], [2], [], []])
TASK = Task(RELEVANT, SEEN, np.ones(ITEMS, np.int64))
RETRIEVED = [[1, 2, 3, 4], [0, 1, 3, 4], [5, 6, -1, -1], [1, 2, 3, 4]]
SCORES = ranked({0: [2, 4, 1, 3], 2: [6, 5], 3: [4, 3, 2, 1]}, 4)


def test_by_hand() -> None:
    retriever = Lists(RETRIEVED)
    result = evaluate_two_stage(retriever, SCORES, TASK, configured((1, 2)), candidates=4)
    assert retriever.excluded == {0: [0], 2: [], 3: []}
    assert result.two_stages.users.tolist() == result.retriever.users.tolist() == [0, 2, 3]
    assert result.two_stages.without_relevant == 1
    expected: dict[str, list[float]] = {
        "candidate_recall@4": [2 / 3, 1 / 2, 0],
        "reachable@1": [1 / 3, 1 / 2, 1],
        "reachable@2": [2 / 3, 1, 1],
        "lost_in_retrieval@1": [0, 0, 1],
        "lost_in_retrieval@2": [0, 1 / 2, 1],
        "lost_in_ranking@1": [1 / 3, 1 / 2, 0],
        "lost_in_ranking@2": [1 / 3, 0, 0],
        "recall@1": [0, 0, 0],
        "recall@2": [1 / 3, 1 / 2, 0],
        "precision@2": [1 / 2, 1 / 2, 0],
        "mrr@2": [1 / 2, 1 / 2, 0],
        "ndcg@2": [(1 / math.log2(3)) / (1 + 1 / math.log2(3)), (1 / math.log2(3)) / (1 + 1 / math.log2(3)), 0],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(result.two_stages.per_user[name], values, atol=1e-15, err_msg=name)
    assert result.retriever.per_user["recall@1"].tolist() == [0, 1 / 2, 0]
    assert result.retriever.per_user["recall@2"].tolist() == [0, 1 / 2, 0]
    assert result.two_stages.summary()["lost_in_ranking@2"] == pytest.approx(1 / 9)
    assert not any(name.startswith("lost_in_index") for name in result.two_stages.per_user)


def test_what_the_index_loses_and_what_it_finds_by_chance() -> None:
    """Exact search would find one item less for user 0, one more for user 2, and nothing either for user 3."""
    exact = Lists([[1, 2, 6, 5], [0, 1, 3, 4], [5, 7, 1, 2], [4, 3, 2, 1]])
    config = configured((1, 2))
    result = evaluate_two_stage(Lists(RETRIEVED), SCORES, TASK, config, candidates=4, exact=exact)
    lost = result.two_stages.per_user
    np.testing.assert_allclose(lost["lost_in_index@1"], [0, 0, 0])
    np.testing.assert_allclose(lost["lost_in_index@2"], [-1 / 3, 1 / 2, 0])
    assert {name.split("@")[0] for name in lost} >= set(STAGES)
    without = evaluate_two_stage(Lists(RETRIEVED), SCORES, TASK, config, candidates=4).two_stages.per_user
    np.testing.assert_equal({name: lost[name] for name in without}, without)


@dataclass
class World:
    """Random users who like, have seen and are scored at random; scores are small integers, so that many are equal."""

    task: Task
    retriever: Nearest
    scorer: Table
    config: EvaluationConfig
    candidates: int

    def evaluate(self, scorer: Any = None, config: EvaluationConfig | None = None, **more: Any) -> TwoStageResult:
        scorer, config = scorer or self.scorer, config or self.config
        return evaluate_two_stage(self.retriever, scorer, self.task, config, candidates=self.candidates, **more)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    users, items = draw(st.integers(1, 12)), draw(st.integers(2, 25))
    relevant, seen = rng.random((users, items)) < rng.random(), rng.random((users, items)) < 0.3
    relevant[0, 0], seen[0, 0] = True, False
    k = draw(st.integers(1, 9))
    return World(
        Task(_ragged(relevant), _ragged(seen), np.ones(items, np.int64)),
        Nearest(ExactIndex(np.eye(items)), rng.integers(-3, 3, (users, items)).astype(np.float32)),
        Table(rng.integers(0, 4, (users, items)).astype(np.float32)),
        configured((k, k + draw(st.integers(1, 9))), draw(st.integers(1, 13))),
        candidates=draw(st.integers(18, 40)),
    )


def _ragged(flags: NDArray[np.bool_]) -> Ragged:
    rows, items = np.nonzero(flags)
    return Ragged.from_pairs(rows, items, len(flags))


@settings(max_examples=40)
@given(world=worlds())
def test_every_loss_is_accounted_for(world: World) -> None:
    found = world.evaluate().two_stages.per_user
    for k in world.config.ks:
        parts = [found[f"{name}@{k}"] for name in ("recall", "lost_in_ranking", "lost_in_retrieval")]
        np.testing.assert_allclose(sum(parts), found[f"reachable@{k}"], atol=1e-15)
        assert min(part.min() for part in parts) >= 0
    for one, other in itertools.pairwise(world.config.ks):
        assert (found[f"lost_in_retrieval@{one}"] <= found[f"lost_in_retrieval@{other}"]).all()


@settings(max_examples=25)
@given(world=worlds())
def test_against_a_second_opinion(world: World) -> None:
    """Each user by himself, straight from the definitions."""
    result = world.evaluate().two_stages
    for at, user in enumerate(result.users):
        seen = set(world.task.seen[user].tolist())
        targets = set(world.task.relevant[user].tolist()) - seen
        near = world.retriever.queries[user]
        catalogue = sorted((item for item in range(len(near)) if item not in seen), key=lambda item: -near[item])
        candidates = catalogue[: world.candidates]
        order = sorted(candidates, key=lambda item: -world.scorer.values[user, item])
        among = len(targets & set(candidates))
        for k in world.config.ks:
            shown, size = len(targets & set(order[:k])), len(targets)
            for name, value in (
                ("recall", shown / size),
                ("lost_in_ranking", (min(k, among) - shown) / size),
                ("lost_in_retrieval", (min(k, size) - min(k, among)) / size),
            ):
                assert result.per_user[f"{name}@{k}"][at] == pytest.approx(value), (name, k)


@settings(max_examples=25)
@given(world=worlds())
def test_a_ranker_that_agrees_or_has_no_opinion_changes_nothing(world: World) -> None:
    for scorer in (Table(world.retriever.queries), Table(np.zeros_like(world.scorer.values))):
        result = world.evaluate(scorer)
        for name, values in result.retriever.per_user.items():
            np.testing.assert_array_equal(result.two_stages.per_user[name], values, err_msg=name)
        assert result.two_stages.exposure == result.retriever.exposure


@settings(max_examples=25)
@given(world=worlds())
def test_an_oracle_loses_nothing_in_ranking(world: World) -> None:
    oracle = np.zeros_like(world.scorer.values)
    oracle[world.task.relevant.row_of_value, world.task.relevant.values] = 1
    found = world.evaluate(Table(oracle)).two_stages.per_user
    for k in world.config.ks:
        assert (found[f"lost_in_ranking@{k}"] == 0).all()
    assert all((world.evaluate().two_stages.per_user[name] <= found[name]).all() for name in found if "recall@" in name)


@settings(max_examples=25)
@given(world=worlds(), block=st.integers(1, 13))
def test_blocks_change_nothing(world: World, block: int) -> None:
    whole, blocks = world.evaluate(), world.evaluate(config=configured(world.config.ks, block))
    for one, other in ((whole.two_stages, blocks.two_stages), (whole.retriever, blocks.retriever)):
        assert other.users.tolist() == one.users.tolist()
        assert other.exposure == one.exposure
        assert other.per_user.keys() == one.per_user.keys()
        for name, values in one.per_user.items():
            np.testing.assert_allclose(other.per_user[name], values, rtol=1e-12, err_msg=name)


@settings(max_examples=25)
@given(world=worlds())
def test_an_exact_index_loses_nothing_against_itself(world: World) -> None:
    found = world.evaluate(exact=world.retriever).two_stages.per_user
    assert all((found[f"lost_in_index@{k}"] == 0).all() for k in world.config.ks)


def test_mistakes() -> None:
    retriever, config = Lists(RETRIEVED), configured((1, 2))
    with pytest.raises(ConfigError, match=r"candidates: 1; expected at least 2, the largest of evaluation\.ks"):
        evaluate_two_stage(retriever, SCORES, TASK, config, candidates=1)
    for wrong in (np.nan, np.inf):
        unsound = Table(SCORES.values.copy())
        unsound.values[3, 2] = wrong
        with pytest.raises(DataError, match="the ranker's scores: 1 of 10 are NaN or infinite"):
            evaluate_two_stage(retriever, unsound, TASK, config, candidates=4)
    nothing = Task(RELEVANT, RELEVANT, np.ones(ITEMS, np.int64))
    with pytest.raises(DataError, match=r"none of 4 users"):
        evaluate_two_stage(retriever, SCORES, nothing, config, candidates=4)
    for short in (Lists(RETRIEVED[:3]), Lists(RETRIEVED, items=7)):
        with pytest.raises(ValueError, match="the task has 4 users and 8 items"):
            evaluate_two_stage(short, SCORES, TASK, config, candidates=4)
        with pytest.raises(ValueError, match="the task has 4 users and 8 items"):
            evaluate_two_stage(retriever, SCORES, TASK, config, candidates=4, exact=short)
    with pytest.raises(ValueError, match="the best 5 of 4 candidates"):
        Reranked(retriever, SCORES, 4).recommend(np.arange(1), 5, SEEN.slice(0, 1))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(write_world(tmp_path_factory.mktemp("two_stage") / "world"))


class Fingerprinting:
    """In place of a ranker: a score in which every feature of user, context and item shows."""

    def __init__(self, served: object) -> None:
        self.served = served
        self.sizes: list[int] = []

    def score(self, batch: dict[str, dict[str, NDArray]], served: object) -> tf.Tensor:
        assert served is self.served
        assert set(batch) == {"query", "item"}
        self.sizes.append(len(batch["item"]["movie_id"]))
        return tf.constant(sum(_print(part) * weight for part, weight in zip(batch.values(), (1, 1_000), strict=True)))


def _print(features: dict[str, NDArray]) -> NDArray[np.float64]:
    """[n] another number for each other row."""
    tables = [column.reshape(len(column), -1) for _, column in sorted(features.items())]
    wide = np.concatenate(tables, axis=1).astype(np.float64)
    return wide @ np.sqrt(np.arange(2, 2 + wide.shape[1]))


def test_each_user_is_scored_with_his_own_features_and_each_item_with_its_own(prepared: Prepared) -> None:
    held_out = prepared.held_out("test")
    served: dict[str, Any] = {}
    ranker = Fingerprinting(served)
    scorer = RankerScorer(ranker, held_out.query, prepared.item_features, served, pairs_at_once=7)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    rows, items = rng.integers(0, 40, 50), rng.integers(0, 30, 50)
    users, things = _print(held_out.query), _print(prepared.item_features)
    assert len(np.unique(users)) == 40
    assert len(np.unique(things)) == 30
    np.testing.assert_allclose(scorer.scores(rows, items), users[rows] + 1_000 * things[items], rtol=1e-6)
    assert ranker.sizes == [7] * 7 + [1]
    assert scorer.scores(rows[:0], items[:0]).shape == (0,)


def test_a_rankers_logits_are_those_of_the_pairs(prepared: Prepared) -> None:
    ranker = Ranker(
        RankerConfig(kind="ranker"), EmbeddingsConfig.model_validate(EMBEDDINGS), prepared.info.inputs, seed=3
    )
    held_out = prepared.held_out("test")
    rows, items = np.repeat(np.arange(40), 30), np.tile(np.arange(30), 40)
    found = RankerScorer(ranker, held_out.query, prepared.item_features, pairs_at_once=256).scores(rows, items)
    query = {name: tf.constant(column[rows]) for name, column in held_out.query.items()}
    item = {name: tf.constant(column[items]) for name, column in prepared.item_features.items()}
    np.testing.assert_allclose(found, ranker.logits({"query": query, "item": item}), rtol=1e-4, atol=1e-6)
    assert np.ptp(found.reshape(40, 30), axis=0).min() > 0
    assert np.ptp(found.reshape(40, 30), axis=1).min() > 0


def test_runs_that_were_prepared_otherwise_are_refused(prepared: Prepared) -> None:
    other = prepared.info.model_copy(update={"digest": "other"})
    must_share_data("runs/ranker", prepared.info, prepared.info.model_copy(update={"name": "another"}))
    with pytest.raises(DataError, match=r"runs/ranker: its data .* \(other, world-40-30-\); .*same data and schema"):
        must_share_data("runs/ranker", prepared.info, other)


def test_a_retriever_and_a_ranker_share_one_prepared_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "both.yaml").write_text(CONFIG)
    shared = (
        "data.source={kind: simulated, users: 60, items: 40, events: 1200, seed: 3}",
        "data.negatives={column: rating, at_most: 2}",
        "training.batch_size=64",
    )
    config = load(tmp_path / "both.yaml", ExperimentConfig, shared).config
    retriever = Experiment(config, tmp_path, tmp_path / "runs")
    ranking = load(tmp_path / "both.yaml", ExperimentConfig, (*shared, "name=ranker", "model={kind: ranker}")).config
    ranker = Experiment(ranking, tmp_path, tmp_path / "runs")
    prepared = retriever.prepared
    assert ranker.prepared.path == prepared.path
    must_share_data("ranker", prepared.info, ranker.prepared.info)
    labels = prepared.examples("train", ["label"])["label"].to_numpy()
    assert 0 < labels.mean() < 1
    assert retriever._examples.steps_per_epoch == int(labels.sum()) // 64
    assert ranker._examples.steps_per_epoch == len(labels) // 64
    for batch in retriever._examples.batches(0):
        assert (batch["label"].numpy() == 1).all()
    towers, model = retriever.model, ranker.model
    assert isinstance(towers, TwoTower)
    assert isinstance(model, Ranker)
    part: Part = "test"
    index = ScannConfig(promise={"recall@10": 0.5})
    evaluated = evaluate_two_models(towers, model, prepared, part, configured((5, 20)), index, candidates=25)
    mean = evaluated.metrics["model"]
    total = mean["recall@20"] + mean["lost_in_ranking@20"] + mean["lost_in_retrieval@20"]
    assert mean["reachable@20"] == pytest.approx(total)
    # Rows are served as they were trained here, so that exact search is what the index is compared with.
    held_out = prepared.held_out(part)
    nearest = Nearest(ExactIndex(towers.item_vectors(prepared.item_features)), towers.query_vectors(held_out.query))
    exactly = evaluate_two_stage(
        nearest,
        RankerScorer(model, held_out.query, prepared.item_features),
        Task(held_out.relevant, held_out.seen, prepared.train_count),
        configured((5, 20)),
        candidates=25,
    )
    lost = mean["lost_in_retrieval@5"] - mean["lost_in_index@5"]
    assert lost == pytest.approx(exactly.two_stages.summary()["lost_in_retrieval@5"])
    assert evaluated.counts["users_evaluated"] == len(exactly.two_stages.users)
    whole, alone = (evaluated.measured[name].whole for name in ("model", "retriever"))
    assert whole.values["lost_in_index@20"].mean() == pytest.approx(mean["lost_in_index@20"])
    assert whole.users.tolist() == alone.users.tolist()
