"""From OptEmbed's trained supernet to a plan: its thresholds say which rows stay, evolution says how wide they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.embeddings.collection import EmbeddingCollection
from recsys.embeddings.optembed import Supernet
from recsys.embeddings.plan import EmbeddingPlan, Origin, RowBlock
from recsys.search.config import EvolutionConfig
from recsys.search.evolution import Candidate, Population, evolve
from recsys.search.fields import Field, plan_of, served_bytes

Kept = NDArray[np.bool_]


def kept_rows(embeddings: EmbeddingCollection, fields: Sequence[Field]) -> list[Kept]:
    """[ids] of each field, whether its rows are above the field's threshold."""
    by_table = {name: store.kept() for name, store in _supernets(embeddings)}
    return [by_table[field.table][field.owner] for field in fields]


def plan_for(fields: Sequence[Field], kept: Sequence[Kept], widths: Candidate, origin: Origin) -> EmbeddingPlan:
    """The kept rows of each field at its width, or its table's where that is less; pruned ids are zero."""
    blocks = []
    for field, rows, width in zip(fields, kept, _fitted(widths, fields), strict=True):
        scattered = None if rows.all() else rows
        blocks.append([RowBlock(ids=field.ids, coordinates=width if rows.any() else 0, kept=scattered)])
    return plan_of(origin, fields, blocks)


def search_widths(
    embeddings: EmbeddingCollection,
    fields: Sequence[Field],
    measure: Callable[[], float],
    config: EvolutionConfig,
    seed: int,
    population: Population | None = None,
) -> Iterator[Population]:
    """Evolves the widths of a trained supernet's fields; no weight moves, and its widths are whole again at the end.

    Args:
        embeddings: of the supernet.
        fields: those of its tables.
        measure: the model's quality on validation data, at the widths that the supernet has at the time.
        config: of the evolution.
        seed: of its draws.
        population: to resume from.

    Yields:
        The population after each generation.
    """
    kept, origin = kept_rows(embeddings, fields), Origin(method="optembed")
    dims = tuple(field.dim for field in fields)

    def quality(candidate: Candidate) -> float:
        set_widths(embeddings, fields, candidate)
        return measure()

    def size(candidate: Candidate) -> int:
        return served_bytes(plan_for(fields, kept, candidate, origin), fields)

    try:
        yield from evolve(quality, size, len(fields), max(dims), config, seed, population)
    finally:
        set_widths(embeddings, fields, dims)


def set_widths(embeddings: EmbeddingCollection, fields: Sequence[Field], widths: Candidate) -> None:
    """Gives the supernet's fields their widths outside of training, or their tables' where those are less."""
    widths = _fitted(widths, fields)
    for name, store in _supernets(embeddings):
        own = {field.owner: width for field, width in zip(fields, widths, strict=True) if field.table == name}
        store.set_widths([own[owner] for owner in store.fields])


def _fitted(widths: Candidate, fields: Sequence[Field]) -> Candidate:
    """No wider than the fields' tables."""
    return tuple(min(width, field.dim) for width, field in zip(widths, fields, strict=True))


def _supernets(embeddings: EmbeddingCollection) -> Iterator[tuple[str, Supernet]]:
    for name, table in embeddings.tables.items():
        if isinstance(table.store, Supernet):
            yield name, table.store
