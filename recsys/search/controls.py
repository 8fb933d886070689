"""Plans that need no search: what every search has to beat at equal bytes.

Each makes the largest plan of its kind that keeps to a budget: bytes of the tables as a bundle holds them, indices
included. Ids that nobody counts (missing, OOV, buckets of numbers) are few and often frequent: what goes by frequency
keeps them as it keeps the most frequent.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.embeddings.frequencies import uncounted
from recsys.embeddings.mixed_dim import id_widths
from recsys.embeddings.plan import SIZES, Block, ElementBlock, EmbeddingPlan, Origin, RowBlock, bitmap_bytes
from recsys.errors import ConfigError
from recsys.search.fields import Field, plan_of, served_bytes, unreachable

STEEPEST = 16.0
"""Largest alpha of `mixed_dim`: only the most frequent ids have more than one number then."""


def uniform(fields: Sequence[Field], budget: int, origin: Origin) -> EmbeddingPlan:
    """Every id the same width, a prefix of the full row.

    Raises:
        ConfigError: the budget is smaller than one number an id.
    """
    plan = uniform_width(fields, 1, origin)
    if served_bytes(plan, fields) > budget:
        raise unreachable(budget, served_bytes(plan, fields))
    for width in range(2, max(field.dim for field in fields) + 1):
        wider = uniform_width(fields, width, origin)
        if served_bytes(wider, fields) > budget:
            break
        plan = wider
    return _named(plan, "uniform", budget)


def uniform_width(fields: Sequence[Field], width: int, origin: Origin) -> EmbeddingPlan:
    """Every id this width, or its table's where that is less."""
    blocks = [[RowBlock(ids=field.ids, coordinates=min(width, field.dim))] for field in fields]
    return plan_of(origin, fields, blocks)


def frequency_cut(fields: Sequence[Field], budget: int, origin: Origin) -> EmbeddingPlan:
    """The most frequent ids of all fields at full width, the others zero. It needs no index: ids go by frequency.

    Raises:
        ConfigError: the budget is smaller than the rows of the ids that nobody counts.
    """
    special = [uncounted(field.counts) for field in fields]
    smallest = served_bytes(_first(fields, special, origin), fields)
    if smallest > budget:
        raise unreachable(budget, smallest)
    number = np.concatenate([np.full(f.ids - s, n) for n, (f, s) in enumerate(zip(fields, special, strict=True))])
    counts = np.concatenate([field.counts[s:] for field, s in zip(fields, special, strict=True)])
    order = np.argsort(-counts, kind="stable")  # ties: by field, then by id
    row_bytes = np.array([_row_bytes(field, field.dim) for field in fields])
    fitting = int(np.searchsorted(np.cumsum(row_bytes[number[order]]), budget - smallest, side="right"))
    kept = np.bincount(number[order[:fitting]], minlength=len(fields))
    plan = _first(fields, [s + int(k) for s, k in zip(special, kept, strict=True)], origin)
    return _named(plan, "frequency_cut", budget)


def mixed_dim(fields: Sequence[Field], budget: int, origin: Origin) -> EmbeddingPlan:
    """Widths by frequency, a power of two each: dim (count / largest count of the table)^alpha (Ginart et al. 2019), as
    prefixes of the full row, without the paper's projections. The smallest alpha that keeps to the budget.

    Raises:
        ConfigError: even the steepest fall of widths is larger than the budget.
    """
    flattest, steepest = 0.0, STEEPEST
    smallest = _mixed(fields, steepest, origin)
    if served_bytes(smallest, fields) > budget:
        raise unreachable(budget, served_bytes(smallest, fields))
    plan = _mixed(fields, flattest, origin)
    if served_bytes(plan, fields) > budget:
        plan = smallest
        for _ in range(40):
            middle = (flattest + steepest) / 2
            tried = _mixed(fields, middle, origin)
            if served_bytes(tried, fields) <= budget:
                steepest, plan = middle, tried
            else:
                flattest = middle
    return _named(plan, "mixed_dim", budget)


def magnitude(
    fields: Sequence[Field], rows: Sequence[NDArray[np.float32]], budget: int, origin: Origin
) -> EmbeddingPlan:
    """The numbers of largest magnitude over all fields, with their values. Zeros are never kept.

    Args:
        fields: what is pruned.
        rows: [ids, dim] of each field.
        budget: in bytes.
        origin: of the plan.

    Raises:
        ConfigError: the budget is smaller than the bits that say which numbers are kept; or a table is served in int8.
    """
    total = sum(int(np.count_nonzero(values)) for values in rows)
    # At least so many fit; more do where fields keep all or nothing, which need no bits.
    counts = range(min(numbers_within(fields, budget), total), total + 1)

    def size(count: int) -> int:
        return served_bytes(_largest(fields, rows, count, origin), fields)

    return _named(
        _largest(fields, rows, counts[bisect_right(counts, budget, key=size) - 1], origin), "magnitude", budget
    )


def numbers_within(fields: Sequence[Field], budget: int) -> int:
    """How many single numbers of the fields fit into a budget, with the bits that say which they are.

    Raises:
        ConfigError: not one; or a table is served in int8, for which single numbers have no scale.
    """
    tables = dict.fromkeys(field.table for field in fields)
    bits = sum(bitmap_bytes(sum(f.ids * f.dim for f in fields if f.table == table)) for table in tables)
    size = _number_bytes(fields)
    if budget < bits + size:
        raise unreachable(budget, bits + size)
    return (budget - bits) // size


def largest_magnitudes(rows: Sequence[NDArray[np.float32]], count: int) -> list[NDArray[np.bool_]]:
    """Of each field, which of its numbers [ids, dim] are among the `count` of largest magnitude over all, ties by
    order. Zeros never are.
    """
    sizes = np.abs(np.concatenate([values.ravel() for values in rows]))
    kept = sizes > 0
    if count < kept.sum():
        threshold = np.partition(sizes, len(sizes) - count)[len(sizes) - count] if count else np.inf
        kept = sizes > threshold
        kept[np.flatnonzero(sizes == threshold)[: count - kept.sum()]] = True
    ends = np.cumsum([values.size for values in rows])[:-1]
    return [part.reshape(values.shape) for part, values in zip(np.split(kept, ends), rows, strict=True)]


def _largest(fields: Sequence[Field], rows: Sequence[NDArray[np.float32]], count: int, origin: Origin) -> EmbeddingPlan:
    blocks: list[list[Block]] = []
    for kept in largest_magnitudes(rows, count):
        whole: int | None = kept.shape[1] if kept.all() else None if kept.any() else 0
        blocks.append([ElementBlock(kept=kept) if whole is None else RowBlock(ids=len(kept), coordinates=whole)])
    return plan_of(origin, fields, blocks, rows)


def _first(fields: Sequence[Field], kept: Sequence[int], origin: Origin) -> EmbeddingPlan:
    """The first ids of each field whole, the others not at all."""
    blocks: list[list[Block]] = []
    for field, count in zip(fields, kept, strict=True):
        parts = [(count, field.dim), (field.ids - count, 0)]
        blocks.append([RowBlock(ids=ids, coordinates=width) for ids, width in parts if ids])
    return plan_of(origin, fields, blocks)


def _mixed(fields: Sequence[Field], alpha: float, origin: Origin) -> EmbeddingPlan:
    blocks: list[list[Block]] = []
    for field in fields:
        most = max(1, *(int(other.counts.max()) for other in fields if other.table == field.table))
        widths = id_widths(field.dim, alpha, field.counts, most)
        firsts = np.flatnonzero(np.diff(widths, prepend=0))
        sizes = np.diff(firsts, append=len(widths))
        pairs = zip(sizes.tolist(), widths[firsts].tolist(), strict=True)
        blocks.append([RowBlock(ids=ids, coordinates=width) for ids, width in pairs])
    return plan_of(origin, fields, blocks)


def _named(plan: EmbeddingPlan, method: str, budget: int) -> EmbeddingPlan:
    origin = plan.origin.model_copy(update={"method": method, "budget": budget})
    return plan.model_copy(update={"origin": origin})


def _row_bytes(field: Field, width: int) -> int:
    return width + 2 if field.served == "int8" else width * SIZES[field.served]


def _number_bytes(fields: Sequence[Field]) -> int:
    """Of a single number, the largest of all tables."""
    for field in fields:
        if field.served == "int8":
            place, found = f"embeddings.tables.{field.table}.served_precision", "int8, and single numbers have no scale"
            raise ConfigError(place, found, "float32, float16 or bfloat16")
    return max(SIZES[field.served] for field in fields)
