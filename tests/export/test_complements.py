"""The second index, from the prepared events into a bundle and out again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recsys.bundle import Bundle
from recsys.errors import ExportError
from recsys.export import export_two_tower
from recsys.export.complements import make_complements
from recsys.export.config import RetrievalConfig
from recsys.models.config import ComplementsConfig
from serving import Pipeline
from serving.messages import BesideRequest
from tests.export.conftest import PROVENANCE, Exported

CONFIG = ComplementsConfig(dim=8, epochs=2, batch_size=64, min_count=3)


def test_a_bundle_answers_what_goes_with_an_item(exported: Exported, tmp_path: Path) -> None:
    made = make_complements(exported.prepared, CONFIG, seed=1)
    retrieval = RetrievalConfig.model_validate({"index": {"kind": "exact"}, "retriever_k": 7})
    folder = export_two_tower(exported.model, exported.prepared, retrieval, tmp_path / "bundle", PROVENANCE, made)
    pipeline = Pipeline(Bundle.load(folder))
    names = exported.prepared.items["item"].to_pylist()
    known = np.flatnonzero(made.inputs.any(1))
    assert len(known) > 20
    item = int(known[3])
    found = pipeline.beside(BesideRequest(item=names[item], k=5, kind="complement")).items
    scores = made.index.vectors @ made.inputs[item]
    legal = np.ones(len(names), bool)
    alive = made.index.alive
    if alive is not None:
        legal = np.isin(np.arange(len(names)), alive.ids)
    legal[item] = False
    expected = np.flatnonzero(legal)[np.argsort(-scores[legal])[:5]]
    assert [each.item for each in found] == [names[n] for n in expected]
    np.testing.assert_allclose([each.score for each in found], scores[expected], rtol=1e-5)
    like = pipeline.beside(BesideRequest(item=names[item], k=5)).items
    vectors = pipeline.bundle.index.vectors
    near = np.argsort(-(vectors @ vectors[item]))
    assert [each.item for each in like] == [names[n] for n in near if n != item][:5]


def test_too_little_is_known(exported: Exported) -> None:
    with pytest.raises(ExportError, match=r"lower complements\.min_count"):
        make_complements(exported.prepared, CONFIG.model_copy(update={"min_count": 10_000}), seed=1)
