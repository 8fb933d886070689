"""The map: which items are on it, in which colours, and what its bytes hold."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from recsys.bundle import Bundle
from recsys.errors import RequestError
from serving.catalogue import map as maps
from serving.catalogue.explorer import Explorer
from serving.catalogue.map import CatalogueMap, chosen, coloured
from serving.catalogue.messages import DescribeRequest
from serving.pipeline.shelf import LiveShelf
from tests.tiny_bundle import ITEMS


def colours_of(values: list[object], type_: pa.DataType | None = None) -> tuple[list[tuple[str, int]], list[int]]:
    """The legend and the codes of a column."""
    found = coloured("genre", pa.chunked_array([pa.array(values, type_)]))
    assert found is not None
    return [(value.name, value.count) for value in found.column.values], found.codes.tolist()


def test_colours_of_one_value() -> None:
    legend, codes = colours_of(["b", "a", "b", None, "c", "a", "b", ""])
    assert legend == [("b", 3), ("a", 2), ("c", 1)]
    assert codes == [1, 2, 1, 0, 3, 2, 1, 0]


def test_of_several_values_the_rarest_colours_a_point() -> None:
    legend, codes = colours_of([["drama", "noir"], ["drama"], ["drama", "war"], ["noir"], ["drama"], [], None])
    assert legend == [("drama", 2), ("noir", 2), ("war", 1)], "points of this colour, not items with this value"
    assert codes == [2, 1, 3, 2, 1, 0, 0]


def test_values_beyond_the_colours_share_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "COLOURS", 2)
    legend, codes = colours_of(["a", "a", "b", "b", "c", "d", None])
    assert legend == [("a", 2), ("b", 2)]
    assert codes == [1, 1, 2, 2, 3, 3, 0]


@pytest.mark.parametrize(
    "values",
    [[f"id-{n}" for n in range(100)], [1.0, 2.0], [[0.5, 1.0]], [None, None], []],
    ids=["ids", "numbers", "vectors", "nothing", "no items"],
)
def test_columns_that_tell_nothing_are_no_colours(values: list[object]) -> None:
    type_ = pa.string() if not values or values[0] is None else None
    assert coloured("x", pa.chunked_array([pa.array(values, type_)])) is None


def test_of_too_many_items_the_most_popular_are_kept() -> None:
    popularity = np.arange(1_000)[::-1] % 777
    rows = chosen(popularity, 100)
    assert len(set(rows.tolist())) == 100
    assert (np.diff(rows) > 0).all()
    assert set(np.argsort(-popularity, kind="stable")[:50].tolist()) <= set(rows.tolist())
    assert len({int(row) // 100 for row in rows}) == 10, "and some of everywhere"
    np.testing.assert_array_equal(chosen(popularity, 1_000), np.arange(1_000))


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


def test_bytes_and_legend(bundle: Bundle) -> None:
    drawn = CatalogueMap.of(bundle)
    held, legend = drawn.encode(), drawn.legend
    assert (legend.points, legend.catalogue_size) == (6, 6)
    assert [column.name for column in legend.columns] == ["movie"]
    assert len(held) == 6 * (4 + 4 + 4 + 2)
    np.testing.assert_array_equal(np.frombuffer(held, "<f4", 12).reshape(6, 2), drawn.places)
    assert np.frombuffer(held, "<u4", 6, offset=48).tolist() == list(range(6))
    codes = np.frombuffer(held, "<u2", 6, offset=72)
    assert [legend.columns[0].values[code - 1].name for code in codes] == ITEMS


def test_popularity_is_that_of_the_histories(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bundle.users.item_counts(6).tolist() == [1, 1, 1, 1, 0, 1]
    monkeypatch.setattr(maps, "POINTS", 5)
    drawn = CatalogueMap.of(bundle)
    assert {0, 1} <= set(drawn.rows.tolist())
    assert (drawn.legend.points, drawn.legend.catalogue_size) == (5, 6)


@pytest.fixture
def explorer(bundle: Bundle) -> Explorer:
    return Explorer(bundle, LiveShelf(bundle))


def drawn_by(explorer: Explorer) -> CatalogueMap:
    while (drawn := explorer.map()) is None:
        time.sleep(0.01)
    return drawn


def test_items_are_described_by_rows_and_ids(explorer: Explorer) -> None:
    found = explorer.describe(DescribeRequest(rows=(3, 99), items=("é", 2, "nobody's"))).items
    assert [(each.row, each.item, each.title) for each in found] == [(3, "9", None), (4, "é", "Été"), (1, "2", "Two")]
    assert found[0].features == {"movie": "9"}
    assert [each.place for each in found] == [None] * 3


def test_places_are_those_of_the_map(explorer: Explorer) -> None:
    drawn = drawn_by(explorer)
    assert drawn is explorer.map(), "drawn once"
    found = explorer.describe(DescribeRequest(items=tuple(ITEMS), places=True)).items
    np.testing.assert_allclose([each.place for each in found], drawn.places, atol=1e-6)


def test_items_that_are_gone_are_not_described_and_new_ones_have_a_place(tiny_bundle: Path) -> None:
    bundle = Bundle.load(tiny_bundle)
    shelf = LiveShelf(bundle)
    explorer = Explorer(bundle, shelf)
    places = drawn_by(explorer).places
    shelf.update([{"item": "new", "movie": "3"}], ["10"])
    (new,) = explorer.describe(DescribeRequest(items=("10", "new"), places=True)).items
    assert (new.item, new.row) == ("new", 6)
    np.testing.assert_allclose(new.place or (), places[2], atol=1e-6, err_msg="its vector is that of item 3")


@pytest.mark.parametrize("wrong", [{"rows": [-1]}, {"rows": [2**40]}, {"items": [1.5]}, {"rows": [0] * 201}])
def test_bad_requests(wrong: dict[str, object]) -> None:
    with pytest.raises(RequestError):
        DescribeRequest.of(**wrong)
