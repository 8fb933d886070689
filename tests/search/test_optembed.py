"""From a supernet to a plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recsys._compat import tf
from recsys.data.dataset import CategoricalInfo, FeatureInfo
from recsys.embeddings.collection import EmbeddingCollection
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.optembed import Supernet
from recsys.embeddings.plan import Origin
from recsys.search.config import EvolutionConfig
from recsys.search.fields import Field, served_bytes
from recsys.search.optembed import kept_rows, plan_for, search_widths, set_widths

DIM = 8
FEATURES: dict[str, FeatureInfo] = {
    "user": CategoricalInfo(role="user", rows=40, oov_rows=1),
    "item": CategoricalInfo(role="item", rows=30, oov_rows=1),
    "genre": CategoricalInfo(role="item", rows=6, oov_rows=1),
}
TABLES = {"user": "ids", "item": "ids", "genre": "attributes"}
FIELDS = [
    Field(TABLES[name], name, DIM, "float32", "", np.zeros(info.rows, np.int64))  # type: ignore[union-attr]
    for name, info in FEATURES.items()
]
THRESHOLDS = {"user": 0.2, "item": 0.3, "genre": -1.0}


@pytest.fixture
def embeddings() -> EmbeddingCollection:
    table = {"method": "optembed", "dim": DIM, "initializer": {"kind": "uniform", "range": 0.08}}
    features = {name: {"table": table_name} for name, table_name in TABLES.items()}
    config = EmbeddingsConfig.model_validate({"tables": {"ids": table, "attributes": table}, "features": features})
    made = EmbeddingCollection(config, FEATURES, step=tf.Variable(0, False, dtype=tf.int64))
    for each in made.tables.values():
        each.build(None)
        assert isinstance(each.store, Supernet)
        each.store.thresholds.assign([THRESHOLDS[field] for field in each.store.fields])
    return made


def norms(embeddings: EmbeddingCollection, name: str) -> np.ndarray:
    """[ids] of the whole rows."""
    store = embeddings.tables[TABLES[name]].store
    assert isinstance(store, Supernet)
    start = embeddings.tables[TABLES[name]].addressing.starts[name]  # type: ignore[union-attr]
    return np.asarray(np.abs(store.embeddings.numpy()[start:][: FEATURES[name].rows]).sum(1))  # type: ignore[union-attr]


def test_a_plan_keeps_what_the_thresholds_do_at_the_widths_found(embeddings: EmbeddingCollection) -> None:
    kept = kept_rows(embeddings, FIELDS)
    for field, rows in zip(FIELDS, kept, strict=True):
        np.testing.assert_array_equal(rows, norms(embeddings, field.owner) > THRESHOLDS[field.owner])
    assert 0 < kept[0].sum() < 40
    assert 0 < kept[1].sum() < kept[0].sum()
    assert kept[2].all()
    plan = plan_for(FIELDS, kept, (3, 8, 1), Origin(method="optembed"))
    expected = [3 * kept[0].sum(), 8 * kept[1].sum(), 6]
    masks = [plan.tables[f.table].vocabularies[f.owner].mask(DIM) for f in FIELDS]
    assert [int(mask.sum()) for mask in masks] == expected
    # 20 bytes for every 128 ids of a table some of whose rows are pruned.
    assert plan.bytes() == 4 * sum(expected) + 20


def test_the_search_moves_no_weight_and_leaves_widths_whole(embeddings: EmbeddingCollection) -> None:
    before = [weight.numpy() for weight in embeddings.weights]

    def measure() -> float:
        """Half of each kept row's numbers are worth having."""
        total = 0.0
        for table in embeddings.tables.values():
            assert isinstance(table.store, Supernet)
            found = table.store.lookup(tf.range(table.store.rows)).numpy() != 0
            total += float(found[:, : DIM // 2].sum() - 0.3 * found[:, DIM // 2 :].sum())
        return total

    *_, population = search_widths(embeddings, FIELDS, measure, EvolutionConfig(generations=15), seed=0)
    for weight, values in zip(embeddings.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), values)
    best = population.best()
    assert best is not None
    assert best.candidate == (DIM // 2,) * 3, "the planted optimum"
    kept = kept_rows(embeddings, FIELDS)
    for each in population.scored:
        assert each.size == served_bytes(plan_for(FIELDS, kept, each.candidate, Origin(method="optembed")), FIELDS)
    set_widths(embeddings, FIELDS, best.candidate)
    assert measure() == best.quality, "scored again, it is what was logged"
    small = population.best(budget=best.size // 2)
    assert small is not None
    assert small.size <= best.size // 2


def test_no_width_is_beyond_its_table(embeddings: EmbeddingCollection) -> None:
    """Widths are drawn up to the widest table's, and one may be narrower."""
    narrow = [replace(field, dim=4) if field.owner == "genre" else field for field in FIELDS]
    kept = kept_rows(embeddings, FIELDS)
    plan = plan_for(narrow, kept, (3, 8, 7), Origin(method="optembed"))
    assert plan.tables["attributes"].dim == 4
    assert int(plan.tables["attributes"].vocabularies["genre"].mask(4).sum()) == 4 * kept[2].sum()
    set_widths(embeddings, narrow, (3, 8, 7))
    assert embeddings.tables["attributes"].store.widths.numpy().tolist() == [4]  # type: ignore[attr-defined]


def test_whatever_ends_a_search_leaves_widths_whole(embeddings: EmbeddingCollection) -> None:
    def measure() -> float:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        list(search_widths(embeddings, FIELDS, measure, EvolutionConfig(), seed=0))
    for table in embeddings.tables.values():
        assert isinstance(table.store, Supernet)
        assert (table.store.widths.numpy() == DIM).all()
