"""Random plans of a table, for tests that go through many."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.embeddings.plan import (
    ElementBlock,
    EmbeddingPlan,
    Origin,
    RowBlock,
    TablePlan,
    VocabularyPlan,
)

Blocks = tuple[RowBlock | ElementBlock, ...]


def random_table(seed: int, dim: int = 6, fields: int = 3, most: int = 40, elements: bool = True) -> TablePlan:
    """Blocks of every sort: whole, empty, scattered, sharing, of any coordinates, of single numbers."""
    rng = np.random.default_rng(seed)
    vocabularies = {
        f"f{number}": VocabularyPlan(digest="0", blocks=_blocks(rng, dim, most, elements)) for number in range(fields)
    }
    return TablePlan(dim=dim, vocabularies=vocabularies)


def _blocks(rng: np.random.Generator, dim: int, most: int, elements: bool) -> Blocks:
    found: list[RowBlock | ElementBlock] = []
    for _ in range(int(rng.integers(1, 4))):
        ids, density = int(rng.integers(1, most)), rng.choice([0.0, 0.3, 0.8, 1.0])
        if elements and rng.random() < 0.4:
            found.append(ElementBlock(kept=rng.random((ids, dim)) < density))
            continue
        scattered: NDArray[np.bool_] | None = rng.random(ids) < density if rng.random() < 0.6 else None
        chosen = np.sort(rng.choice(dim, int(rng.integers(1, dim + 1)), replace=False)).tolist()
        found.append(
            RowBlock(
                ids=ids,
                coordinates=int(rng.integers(0, dim + 1)) if rng.random() < 0.5 else tuple(chosen),
                kept=scattered,
                pruned="shared" if rng.random() < 0.4 else "zero",
            )
        )
    return tuple(found)


def plan_of_table(table: TablePlan, name: str = "t") -> EmbeddingPlan:
    return EmbeddingPlan(origin=Origin(method="random"), tables={name: table})


def mask_of(table: TablePlan) -> NDArray[np.bool_]:
    """[V, D] all vocabularies, one after the other."""
    return np.concatenate([vocabulary.mask(table.dim) for vocabulary in table.vocabularies.values()])
