"""What a search may make smaller: the vocabularies of the full tables; and from what it decides to a plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.data.dataset import FeatureInfo
from recsys.embeddings.addressing import Offsets
from recsys.embeddings.collection import EmbeddingCollection
from recsys.embeddings.config import EmbeddingsConfig, FullTable, Precision
from recsys.embeddings.plan import Block, EmbeddingPlan, Origin, TablePlan, VocabularyPlan, vocabulary_digest
from recsys.embeddings.rows import FloatRows
from recsys.embeddings.tables import Vocabularies
from recsys.errors import ConfigError


@dataclass(frozen=True)
class Field:
    """One vocabulary of one full table."""

    table: str
    owner: str
    """The feature that has the vocabulary."""
    dim: int
    served: Precision
    """In which a bundle holds the table; its bytes count."""
    digest: str
    counts: NDArray[np.int64]
    """[ids] training rows that hold each id: 0 for the first ones (missing, OOV, buckets), then falling."""

    @property
    def ids(self) -> int:
        """How many."""
        return len(self.counts)


def fields_of(config: EmbeddingsConfig, features: Mapping[str, FeatureInfo], vocabularies: Vocabularies) -> list[Field]:
    """The fields of a config's full float32 tables, table by table, in the order of their rows.

    Raises:
        ConfigError: it has no such table.
    """
    found = []
    for name, table in config.tables.items():
        if isinstance(table, FullTable) and table.precision == "float32":
            for owner, ids in Offsets(config.readers(name), features).sizes.items():
                counts = vocabularies.frequencies(owner)
                assert len(counts) == ids
                digest = vocabulary_digest(features[owner], partial(vocabularies.values, owner))
                found.append(Field(name, owner, table.dim, table.served_precision or "float32", digest, counts))
    if not found:
        expected = "a table with `method: full` and `precision: float32`"
        raise ConfigError("embeddings.tables", "nothing that a plan could make smaller", expected)
    return found


def plan_of(
    origin: Origin,
    fields: Sequence[Field],
    blocks: Sequence[Sequence[Block]],
    rows: Sequence[NDArray[np.float32]] | None = None,
) -> EmbeddingPlan:
    """The plan that keeps of each field what its blocks say.

    Args:
        origin: of the plan.
        fields: all fields of each of their tables.
        blocks: of each field.
        rows: [ids, dim] of each field, where kept numbers start; None for where the full table's do.
    """
    vocabularies: dict[str, dict[str, VocabularyPlan]] = {}
    for number, field in enumerate(fields):
        plan = VocabularyPlan(digest=field.digest, blocks=tuple(blocks[number]))
        if rows is not None:
            plan = VocabularyPlan(
                digest=field.digest, blocks=plan.blocks, weights=rows[number][plan.mask(field.dim)].astype(np.float32)
            )
        vocabularies.setdefault(field.table, {})[field.owner] = plan
    dims = {field.table: field.dim for field in fields}
    tables = {name: TablePlan(dim=dims[name], vocabularies=own) for name, own in vocabularies.items()}
    return EmbeddingPlan(origin=origin, tables=tables)


def served_bytes(plan: EmbeddingPlan, fields: Sequence[Field]) -> int:
    """Of a plan of these fields, in a bundle."""
    return plan.bytes({field.table: field.served for field in fields})


def full_rows(fields: Sequence[Field], embeddings: EmbeddingCollection) -> list[NDArray[np.float32]]:
    """[ids, dim] a copy of each field's rows in a model that was built without a plan."""
    values = {
        name: np.array(tf.convert_to_tensor(store.embeddings).numpy()) for name, store in _stores(fields, embeddings)
    }
    starts = {name: _starts(name, embeddings) for name in values}
    return [values[f.table][starts[f.table][f.owner] :][: f.ids] for f in fields]


def set_rows(fields: Sequence[Field], embeddings: EmbeddingCollection, rows: Sequence[NDArray[np.float32]]) -> None:
    """Gives each field of such a model its rows [ids, dim]."""
    for name, store in _stores(fields, embeddings):
        starts = _starts(name, embeddings)
        own = {field.owner: values for field, values in zip(fields, rows, strict=True) if field.table == name}
        store.embeddings.assign(np.concatenate([own[owner] for owner in sorted(own, key=starts.__getitem__)]))


def unreachable(budget: int, smallest: int) -> ConfigError:
    """For a search that cannot get down to a budget."""
    return ConfigError("--budget", f"{budget:,} bytes", f"at least {smallest:,}, the smallest that this search reaches")


def _stores(fields: Sequence[Field], embeddings: EmbeddingCollection) -> Iterator[tuple[str, FloatRows]]:
    for name in dict.fromkeys(field.table for field in fields):
        store = embeddings.tables[name].store
        assert isinstance(store, FloatRows)
        yield name, store


def _starts(table: str, embeddings: EmbeddingCollection) -> Mapping[str, int]:
    addressing = embeddings.tables[table].addressing
    assert isinstance(addressing, Offsets)
    return addressing.starts
