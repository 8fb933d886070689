"""A new model's vectors turned to those of the bundle before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from recsys.bundle import Bundle
from recsys.errors import ExportError
from recsys.export import exporter
from recsys.export.alignment import align, rotation_to
from recsys.export.config import RetrievalConfig
from recsys.retrieval import ExactConfig
from tests.export.conftest import Exported
from tests.tiny_bundle import write

CONFIG = RetrievalConfig(index=ExactConfig(), retriever_k=7)


def turn(seed: int, d: int) -> NDArray[np.float32]:
    """A random orthogonal matrix."""
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0].astype(np.float32)


def test_a_planted_rotation_is_found() -> None:
    rng = np.random.default_rng(0)
    new, planted = rng.normal(size=(200, 8)).astype(np.float32), turn(1, 8)
    found = rotation_to(new, new @ planted)
    np.testing.assert_allclose(found, planted, atol=1e-5)
    noisy = rotation_to(new, new @ planted + 0.1 * rng.normal(size=(200, 8)))
    np.testing.assert_allclose(noisy.T @ noisy, np.eye(8), atol=1e-6)
    np.testing.assert_allclose(noisy, planted, atol=0.1)


def test_no_orthogonal_matrix_is_nearer() -> None:
    rng = np.random.default_rng(0)
    new, old = rng.normal(size=(2, 60, 4))
    best = np.linalg.norm(new @ rotation_to(new, old) - old)
    assert best <= min(np.linalg.norm(new @ turn(seed, 4) - old) for seed in range(300))


class Turned:
    """The shared model, as another training might have ended: in a space that is turned."""

    def __init__(self, model: Any, planted: NDArray[np.float32]) -> None:
        self._model, self._planted = model, planted
        self.embeddings = model.embeddings
        self.query_tower, self.item_tower = (
            lambda batch, training, served, tower=tower: tower(batch, training=training, served=served) @ planted
            for tower in (model.query_tower, model.item_tower)
        )

    def item_vectors(self, *arguments: Any) -> NDArray[np.float32]:
        return self._model.item_vectors(*arguments) @ self._planted

    def query_vectors(self, *arguments: Any) -> NDArray[np.float32]:
        return self._model.query_vectors(*arguments) @ self._planted


@pytest.fixture(scope="module")
def aligned(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle]:
    """The old bundle, and one of a turned model that is aligned to it."""
    folder, old = tmp_path_factory.mktemp("aligned") / "bundle", Bundle.load(exported.bundle)
    model: Any = Turned(exported.model, turn(3, 8))
    made = exporter.export_two_tower(
        model, exported.prepared, CONFIG, folder, exporter.Provenance("new", "0" * 64, {}), align_to=old
    )
    return old, Bundle.load(made)


def test_mixed_recall_rises_to_that_of_one_model(aligned: tuple[Bundle, Bundle]) -> None:
    _, new = aligned
    facts = new.manifest.alignment
    assert facts is not None
    assert (facts.bundle, facts.shared_items) == ("small 1", 60)
    assert facts.cosine == pytest.approx(1, abs=1e-4)
    assert facts.cosine_before < 0.7
    assert facts.users > 20
    assert facts.k == 60  # no cut-off is above the catalogue
    assert facts.new_query_new_index == facts.old_query_old_index == 1.0


def test_mixed_recall_of_few_items(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a cut-off at which something is missed: the mixed recalls are those of one model with the rotation alone."""
    from recsys.evaluation.tuned_index import Queries, held_out_queries
    from recsys.export import alignment

    monkeypatch.setattr(alignment, "K", 10)
    old, prepared, planted = Bundle.load(exported.bundle), exported.prepared, turn(3, 8)
    queries = held_out_queries(exported.model, prepared, exported.model.embeddings.serve())
    turned = Queries(queries.users, queries.vectors @ planted)
    vectors = exported.model.item_vectors(prepared.item_features)
    facts = align(vectors @ planted, turned, prepared, old).facts
    one = facts.old_query_old_index
    assert one is not None
    assert 0.1 < one < 0.9
    for mixed in (facts.new_query_old_index, facts.old_query_new_index, facts.new_query_new_index):
        assert mixed == pytest.approx(one, abs=0.03)
    for before in (facts.new_query_old_index_before, facts.old_query_new_index_before):
        assert before is not None
        assert abs(before - one) > 0.02
    # By hand: the share of each user's held-out items among the ten best that she had not had before.
    held_out = prepared.held_out("valid")
    targets, shares = held_out.relevant.difference(held_out.seen), []
    for row in np.flatnonzero(targets.lengths):
        scores = vectors @ queries.vectors[row]
        scores[held_out.seen[row]] = -np.inf
        best = set(np.argsort(-scores, kind="stable")[:10].tolist())
        shares.append(len(best & set(targets[row].tolist())) / len(targets[row]))
    assert one == pytest.approx(np.mean(shares), abs=0.02)
    assert facts.users == len(shares)


def test_no_score_changes_within_the_new_model(aligned: tuple[Bundle, Bundle], exported: Exported) -> None:
    old, new = aligned
    users = pq.read_table(new.folder / "queries.parquet")["user"].to_pylist()[:5]
    requests = [old.users.features(old.users.row(user)) for user in users]
    scores = [bundle.embed(requests) @ bundle.index.vectors.T for bundle in (old, new)]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-3, atol=1e-4)
    items = [{name: row[f"raw.{name}"] for name in new.manifest.item} for row in new.items.to_pylist()[:4]]
    np.testing.assert_allclose(new.embed_items(items), new.index.vectors[:4], rtol=1e-4, atol=1e-5)


def test_what_cannot_be_aligned_to_is_refused(exported: Exported, tmp_path: Path) -> None:
    from recsys.evaluation.tuned_index import Queries

    queries = Queries(np.empty(0, np.int32), np.empty((0, 8), np.float32))
    vectors = exported.model.item_vectors(exported.prepared.item_features)
    tiny = Bundle.load(write(tmp_path / "tiny"))
    with pytest.raises(ExportError, match=r"align_to: .*two_tower bundle of width 4; expected a two_tower of width 8"):
        align(vectors, queries, exported.prepared, tiny)
    with pytest.raises(ExportError, match=r"align_to: 0 items in common .*expected at least 4"):
        align(vectors[:, :4], queries, exported.prepared, tiny)
