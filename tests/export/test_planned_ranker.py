"""A ranker with attention over histories and between fields, its tables under a plan: the bundle against the full model
under a mask, in a process of its own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recsys.bundle import Bundle
from recsys.data.catalogue import Catalogue
from recsys.data.prepared import Prepared
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.plan import Block, ElementBlock, EmbeddingPlan, Origin, RowBlock
from recsys.embeddings.tables import Vocabularies
from recsys.export import export_ranker
from recsys.export.exporter import served_items
from recsys.models.build import make_model
from recsys.models.config import RankerConfig
from recsys.models.ranker import Ranker
from recsys.search.fields import Field, fields_of, full_rows, plan_of, set_rows
from tests.export.conftest import EMBEDDINGS, ITEMS, PROVENANCE, Exported
from tests.export.raw_requests import encode, in_a_fresh_process, random_requests, raw_items
from tests.export.test_ranker import batch_of

PAIRS, DIM = 400, 8
CONFIG = RankerConfig.model_validate(
    {
        "kind": "ranker",
        "sequence": {"kind": "din", "hidden": [8]},
        "interaction": {"kind": "autoint", "layers": 2, "heads": 2, "head_dim": 4},
        "mlp": {"hidden": [16]},
    }
)


def embeddings(plan: Path | None) -> EmbeddingsConfig:
    """Tables of one width, with rows of a size that shows; numbers in their space."""
    plain = EMBEDDINGS.model_dump(exclude_unset=True)
    for table in plain["tables"].values():
        table |= {"dim": DIM, "initializer": {"kind": "uniform", "range": 1.0}}
    plain["features"]["recent"] |= {"pooling": "none"}
    plain["features"] |= {name: {"projection": DIM} for name in ("taste", "price", "hour", "hours")}
    return EmbeddingsConfig.model_validate(plain | {"plan": None if plan is None else str(plan)})


def ranker(prepared: Prepared, plan: Path | None) -> Ranker:
    known = Vocabularies(prepared.frequencies, prepared.vocabulary)
    model = make_model(CONFIG, embeddings(plan), prepared.info.inputs, Catalogue.of(prepared), 3, known)
    assert isinstance(model, Ranker)
    return model


def fields(prepared: Prepared) -> list[Field]:
    return fields_of(embeddings(None), prepared.info.inputs, Vocabularies(prepared.frequencies, prepared.vocabulary))


def planned(prepared: Prepared) -> EmbeddingPlan:
    """Films as single numbers, members as narrow rows here and there, genres whole, devices not at all; of what is
    missing and never seen some is kept, some not.
    """
    rng, blocks = np.random.default_rng(0), []
    for field in fields(prepared):
        own: list[Block] = [RowBlock(ids=field.ids, coordinates=DIM)]
        if field.owner == "film":
            own = [ElementBlock(kept=rng.random((field.ids, DIM)) < 0.4)]
        elif field.owner == "member":
            own = [RowBlock(ids=field.ids, coordinates=3, kept=np.arange(field.ids) % 2 == 0)]
        elif field.owner == "device":
            own = [RowBlock(ids=field.ids, coordinates=0)]
        blocks.append(own)
    return plan_of(Origin(method="test"), fields(prepared), blocks)


def test_a_fresh_process_says_what_the_masked_model_says(exported: Exported, tmp_path: Path) -> None:
    prepared, plan = exported.prepared, planned(exported.prepared)
    plan.save(tmp_path / "plan")
    full, small = ranker(prepared, None), ranker(prepared, tmp_path / "plan")
    items = np.random.default_rng(5).integers(0, ITEMS, PAIRS)
    catalogue = raw_items(served_items(prepared), prepared)
    pairs = random_requests(prepared, PAIRS) | {name: column[items] for name, column in catalogue.items()}
    pairs["film"][:20] = "never seen"
    batch = batch_of(exported, pairs)
    whole = full.score(batch).numpy()
    small.score(batch)
    own = fields(prepared)
    masks = [plan.tables[each.table].vocabularies[each.owner].mask(DIM) for each in own]
    rows = [values * mask for values, mask in zip(full_rows(own, full.embeddings), masks, strict=True)]
    set_rows(own, full.embeddings, rows)
    masked = full.score(batch).numpy()

    members = encode(prepared, pairs)["member"]
    pruned = ~masks[[each.owner for each in own].index("member")].any(1)
    assert 0.2 < pruned[members].mean() < 0.8, "both are asked"
    assert np.abs(whole - masked).max() > 0.1, "a mask that changes nothing would show nothing"
    bundle = export_ranker(small, prepared, tmp_path / "bundle", PROVENANCE)
    found = in_a_fresh_process(bundle, pairs, tmp_path)
    for size in (1_000, 7, 1):
        np.testing.assert_allclose(found[f"logit_{size}"], masked, rtol=0, atol=1e-5)
    facts = {table.name: table.bytes for table in Bundle.load(bundle).ranking.tables}
    assert {name: facts[name] for name in plan.tables} == {name: each.bytes() for name, each in plan.tables.items()}


@pytest.mark.parametrize("name", ["ids", "few"])
def test_the_file_is_as_large_as_the_formula_says(exported: Exported, name: str) -> None:
    """Rows, single numbers and the pages of bits, to the byte."""
    table = planned(exported.prepared).tables[name]
    numbers = sum(int(own.mask(DIM).sum()) for own in table.vocabularies.values())
    pages = 0
    for owner, own in table.vocabularies.items():
        if owner == "member":
            pages += -(-own.ids // 128)
        if owner == "film":
            pages += -(-own.ids * DIM // 128)
    assert table.bytes() == 4 * numbers + 20 * pages
