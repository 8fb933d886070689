"""Training with a plan: resumed bit for bit after a kill, and the same on two devices."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.data.prepared import Prepared
from recsys.embeddings.plan import ElementBlock, EmbeddingPlan, Origin, RowBlock, TablePlan, VocabularyPlan
from recsys.embeddings.plan import vocabulary_digest as digest_of
from tests.training.test_resume import kill_when
from tests.training.trainees import finish
from tests.worlds import write_world

OPTIONS = ("dropout=0", "epochs=2", "batch=64", "every=4")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world") / "prepared", users=48, per_user=12)


@pytest.fixture(scope="module")
def plan(world: Path) -> Path:
    """Of the movies single numbers; of the users narrow rows, some of which are shared."""
    prepared, rng = Prepared(world), np.random.default_rng(0)
    movies = ElementBlock(kept=rng.random((32, 8)) < 0.5)
    users = [
        RowBlock(ids=10, coordinates=(1, 2, 7)),
        RowBlock(ids=40, coordinates=4, kept=rng.random(40) < 0.6, pruned="shared"),
    ]
    tables = {}
    for table, owner, blocks in (("ids", "movie_id", [movies]), ("user", "user_id", users)):
        digest = digest_of(prepared.info.features[owner], partial(prepared.vocabulary, owner))
        own = {owner: VocabularyPlan(digest=digest, blocks=tuple(blocks))}
        tables[table] = TablePlan(dim=8, vocabularies=own)
    path = world.parent / "plan"
    EmbeddingPlan(origin=Origin(method="test"), tables=tables).save(path)
    return path


@pytest.fixture(scope="module")
def alone(world: Path, plan: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return finish(world, tmp_path_factory.mktemp("alone"), *OPTIONS, f"plan={plan}")


def test_what_is_pruned_stays_zero_and_what_is_kept_learns(alone: dict[str, Any], plan: Path) -> None:
    tables = EmbeddingPlan.load(plan).tables
    movies, users = np.array(alone["ids"]), np.array(alone["user"])
    mask = tables["ids"].vocabularies["movie_id"].mask(8)
    assert (movies[~mask] == 0).all()
    assert (np.abs(movies[2:][mask[2:]]) > 0).all()
    kept = tables["user"].vocabularies["user_id"].blocks[1].mask(8).any(1)
    pruned = users[10:][~kept]
    assert (pruned == pruned[0]).all(), "one row for all"
    assert (np.abs(pruned[0, :4]) > 0).all()
    assert (pruned[0, 4:] == 0).all()


def test_killed_and_resumed_it_ends_with_the_same_bits(
    world: Path, plan: Path, alone: dict[str, Any], tmp_path: Path
) -> None:
    options = (*OPTIONS, f"plan={plan}")
    assert kill_when(world, tmp_path, (tmp_path / "checkpoints" / "checkpoint").exists, *options)
    assert not (tmp_path / "result.json").exists()
    assert finish(world, tmp_path, *options) == alone


def test_two_mirrored_devices_are_one_process(world: Path, plan: Path, alone: dict[str, Any], tmp_path: Path) -> None:
    found = finish(world, tmp_path, *OPTIONS, f"plan={plan}", "strategy=mirrored", "devices=2")
    assert found["step"] == alone["step"] > 0
    for mine, theirs in zip(found["history"], alone["history"], strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    for table in ("ids", "user"):
        np.testing.assert_allclose(found[table], alone[table], rtol=1e-3, atol=1e-5)
