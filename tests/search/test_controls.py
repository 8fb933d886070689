"""Plans that need no search: what they keep, and that nothing larger of their kind fits the budget."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys.embeddings.config import Precision
from recsys.embeddings.mixed_dim import id_widths
from recsys.embeddings.plan import Block, ElementBlock, EmbeddingPlan, Origin, RowBlock
from recsys.errors import ConfigError
from recsys.search.controls import (
    frequency_cut,
    largest_magnitudes,
    magnitude,
    mixed_dim,
    uniform,
    uniform_width,
)
from recsys.search.fields import Field, plan_of, served_bytes

ORIGIN = Origin(method="control", seed=1)
Control = Callable[[list[Field], int], EmbeddingPlan]


def field(owner: str, counts: list[int], table: str = "t", dim: int = 4, served: Precision = "float32") -> Field:
    return Field(table, owner, dim, served, digest=owner, counts=np.array(counts, np.int64))


# Two ids of each are counted by nobody.
FIELDS = [field("a", [0, 0, 9, 5, 5, 1]), field("b", [0, 0, 7, 5, 0]), field("c", [0, 0, 6], table="u", dim=2)]
FULL = 4 * (4 * 6 + 4 * 5 + 2 * 3)


def random_fields(seed: int) -> tuple[list[Field], list[NDArray[np.float32]]]:
    rng = np.random.default_rng(seed)
    fields = []
    for number in range(int(rng.integers(1, 5))):
        known = np.sort(rng.integers(0, 50, int(rng.integers(1, 60))))[::-1]
        table = f"t{number % 2}"
        fields.append(field(f"f{number}", [0, 0, *known.tolist()], table, dim=(8, 5)[number % 2]))
    rows = [(rng.normal(size=(each.ids, each.dim)) * rng.choice([0.01, 1])).astype(np.float32) for each in fields]
    return fields, rows


def kept_rows(plan: EmbeddingPlan, table: str, owner: str) -> list[bool]:
    found: list[bool] = plan.tables[table].vocabularies[owner].mask(plan.tables[table].dim).any(1).tolist()
    return found


def test_a_frequency_cut_by_hand() -> None:
    """Ids that nobody counts stay; then 9, 7, 6 (a row of half the bytes), and of the three with 5 the first two."""
    base = 4 * (2 * 4 + 2 * 4 + 2 * 2)
    plan = frequency_cut(FIELDS, base + 16 + 16 + 8 + 16 + 16 + 15, ORIGIN)
    assert kept_rows(plan, "t", "a") == [True] * 5 + [False]
    assert kept_rows(plan, "t", "b") == [True] * 3 + [False] * 2
    assert kept_rows(plan, "u", "c") == [True] * 3
    assert plan.bytes() == base + 72
    assert (plan.origin.method, plan.origin.budget, plan.origin.seed) == ("frequency_cut", base + 87, 1)
    assert frequency_cut(FIELDS, base, ORIGIN).bytes() == base
    assert frequency_cut(FIELDS, FULL, ORIGIN).bytes() == FULL
    blocks = [block for table in plan.tables.values() for block in table.blocks]
    assert all(isinstance(block, RowBlock) and block.kept is None for block in blocks), "no index"


def test_a_uniform_width_by_hand() -> None:
    ids = 6 + 5 + 3
    assert uniform(FIELDS, 4 * ids, ORIGIN).bytes() == 4 * ids
    assert uniform(FIELDS, 8 * ids - 1, ORIGIN).bytes() == 4 * ids
    assert uniform(FIELDS, 8 * ids, ORIGIN).bytes() == 8 * ids
    assert uniform(FIELDS, 4 * (3 * 11 + 2 * 3), ORIGIN).bytes() == 4 * (3 * 11 + 2 * 3), "a narrow table stays whole"
    assert uniform(FIELDS, 10 * FULL, ORIGIN).bytes() == FULL
    mask = uniform_width(FIELDS, 3, ORIGIN).tables["t"].vocabularies["a"].mask(4)
    assert mask.tolist() == [[True, True, True, False]] * 6


def test_mixed_widths_are_those_of_the_method() -> None:
    """At one alpha for all, with the largest count of each table."""
    plan = mixed_dim(FIELDS, FULL * 2 // 3, ORIGIN)
    for alpha in np.linspace(0, 4, 4_001):
        widths = {
            each.owner: id_widths(each.dim, float(alpha), each.counts, 9 if each.table == "t" else 6) for each in FIELDS
        }
        if 4 * sum(int(own.sum()) for own in widths.values()) <= FULL * 2 // 3:
            break
    for each in FIELDS:
        own = plan.tables[each.table].vocabularies[each.owner].mask(each.dim)
        assert own.sum(1).tolist() == widths[each.owner].tolist()
        assert all(row == sorted(row, reverse=True) for row in own.tolist()), "prefixes"


def test_magnitudes_by_hand() -> None:
    rows = [np.array([[3, -1], [0, 2]], np.float32), np.array([[-2, 2]], np.float32)]
    assert [kept.tolist() for kept in largest_magnitudes(rows, 2)] == [[[True, False], [False, True]], [[False, False]]]
    assert [kept.tolist() for kept in largest_magnitudes(rows, 3)] == [[[True, False], [False, True]], [[True, False]]]
    assert sum(int(kept.sum()) for kept in largest_magnitudes(rows, 6)) == 5, "zeros are never kept"
    assert not any(kept.any() for kept in largest_magnitudes(rows, 0))


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(0.12, 1.1))
def test_magnitude_keeps_to_the_budget_and_no_number_more_would(seed: int, share: float) -> None:
    fields, rows = random_fields(seed)
    budget = int(share * sum(4 * each.ids * each.dim for each in fields))
    plan = magnitude(fields, rows, budget, ORIGIN)
    assert plan.bytes() <= budget
    masks = [plan.tables[f.table].vocabularies[f.owner].mask(f.dim) for f in fields]
    kept = np.concatenate([np.abs(own[mask]) for own, mask in zip(rows, masks, strict=True)])
    lost = np.concatenate([np.abs(own[~mask]) for own, mask in zip(rows, masks, strict=True)])
    assert not len(lost) or not len(kept) or kept.min() >= lost.max()
    for own, mask, each in zip(rows, masks, fields, strict=True):
        np.testing.assert_array_equal(plan.tables[each.table].vocabularies[each.owner].weights, own[mask])
    if len(lost):
        more = [[_block(mask)] for mask in largest_magnitudes(rows, len(kept) + 1)]
        assert plan_of(ORIGIN, fields, more).bytes() > budget


def _block(mask: NDArray[np.bool_]) -> Block:
    if mask.all() or not mask.any():
        return RowBlock(ids=len(mask), coordinates=mask.shape[1] if mask.all() else 0)
    return ElementBlock(kept=mask)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 1.1))
def test_the_others_keep_to_the_budget_or_say_the_smallest(seed: int, share: float) -> None:
    fields, _ = random_fields(seed)
    budget = int(share * sum(4 * each.ids * each.dim for each in fields))
    controls: list[Control] = [
        lambda fields, budget: uniform(fields, budget, ORIGIN),
        lambda fields, budget: frequency_cut(fields, budget, ORIGIN),
        lambda fields, budget: mixed_dim(fields, budget, ORIGIN),
    ]
    for control in controls:
        try:
            plan = control(fields, budget)
        except ConfigError as error:
            (problem,) = error.problems
            smallest = int(problem.expected.split()[2].rstrip(",").replace(",", ""))
            assert smallest > budget
            assert control(fields, smallest).bytes() == smallest
            with pytest.raises(ConfigError):
                control(fields, smallest - 1)
            continue
        assert plan.bytes() <= budget
        assert control(fields, plan.bytes()).bytes() == plan.bytes()


def test_an_unreachable_budget_names_the_smallest() -> None:
    with pytest.raises(ConfigError, match=r"--budget: 55 bytes; expected at least 56, the smallest"):
        uniform(FIELDS, 55, ORIGIN)
    rows = [np.ones((each.ids, each.dim), np.float32) for each in FIELDS]
    with pytest.raises(ConfigError, match=r"expected at least 44, "):  # a page for each table, and one number
        magnitude(FIELDS, rows, 43, ORIGIN)


def test_served_precision_counts() -> None:
    halves = [field("a", [0, 0, 9, 5, 5, 1], served="float16")]
    assert served_bytes(uniform(halves, 24, ORIGIN), halves) == 24  # two numbers of two bytes for each of six ids
    bytes_ = [field("a", [0, 0, 9, 5, 5, 1], served="int8")]
    assert served_bytes(uniform(bytes_, 6 * 5, ORIGIN), bytes_) == 30  # three codes and a scale
    cut = frequency_cut(bytes_, 6 * 3 + 5, ORIGIN)
    assert served_bytes(cut, bytes_) == 6 * 3
    assert kept_rows(cut, "t", "a") == [True] * 3 + [False] * 3
    with pytest.raises(ConfigError, match="int8, and single numbers have no scale"):
        magnitude(bytes_, [np.ones((6, 4), np.float32)], 100, ORIGIN)
