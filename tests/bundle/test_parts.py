"""What a loaded bundle gives: users, items, embeddings, the index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.bundle import Bundle, IndexFacts, UnknownUserError
from recsys.bundle.users import Texts
from recsys.errors import BundleError, RequestError
from recsys.retrieval import ScannIndex
from tests.tiny_bundle import DAY, ITEMS, USERS, VECTORS, write


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


def test_users(bundle: Bundle) -> None:
    users = bundle.users
    assert (len(users), users.names(2)) == (3, ["1", "42"])
    assert [users.row(u) for u in ("1", "42", "zoë")] == [0, 1, 2]
    assert users.features(0) == {"genre": "comedy", "tags": ["new", "old"], "taste": [0.5, 0.0]}
    assert users.features(1) == {"genre": None, "tags": None, "taste": None}
    assert users.history(0).tolist() == [0, 3, 1, 2]
    times = users.history_time(0)
    assert times is not None
    assert times.tolist() == [0, DAY, 2 * DAY, 3 * DAY]
    assert users.seen(2).tolist() == [5]
    for empty in (users.history(1), users.seen(1)):
        assert (empty.dtype, empty.shape) == (np.int32, (0,))


@pytest.mark.parametrize("user", ["", "0", "10", "43", "zoe", "zoë ", "zzz", "ZOË"])
def test_unknown_users(bundle: Bundle, user: str) -> None:
    with pytest.raises(UnknownUserError) as caught:
        bundle.users.row(user)
    assert isinstance(caught.value, RequestError)
    (problem,) = caught.value.problems
    assert repr(user) in problem.found
    assert "`features`" in problem.cure
    assert len(str(caught.value).splitlines()) == 1


def test_items(bundle: Bundle) -> None:
    assert bundle.items["item"].to_pylist() == ITEMS
    assert [bundle.find_item(item) for item in ITEMS] == [0, 1, 2, 3, 4, 5]
    assert bundle.find_item("11") is None
    assert bundle.find_item("") is None


@given(texts=st.sets(st.text(st.characters(exclude_categories=["Cs"]))), probe=st.text(st.characters(codec="utf-8")))
def test_sorted_texts_find_each_and_nothing_else(texts: set[str], probe: str) -> None:
    """Arrow's order (bytes of UTF-8) and Python's (code points) are the same, beyond the basic plane too."""
    ordered = sorted(texts)
    column = pa.chunked_array([ordered[:2], ordered[2:]], pa.string())
    rows = Texts(column, "here")
    assert [rows.find(text) for text in ordered] == list(range(len(ordered)))
    assert (rows.find(probe) is None) == (probe not in texts)
    turned = Texts(pa.chunked_array([ordered[::-1]], pa.string()), "here")  # as items stand that came later
    assert [turned.find(text) for text in ordered[::-1]] == list(range(len(ordered)))
    assert (turned.find(probe) is None) == (probe not in texts)
    for found in (rows, turned):
        asked = [probe, *ordered, probe]
        assert found.find_all(asked).tolist() == [-1 if row is None else row for row in map(found.find, asked)]
        assert found.find_all([]).tolist() == []


@pytest.mark.parametrize("texts", [["a", "a"], ["a", None], [None], ["b", "a", "c", "b"]])
def test_texts_that_come_twice_are_refused(texts: list[str | None]) -> None:
    with pytest.raises(BundleError, match="here: holds a value twice, or none"):
        Texts(pa.chunked_array([texts], pa.string()), "here")


def test_embeddings_are_what_the_requests_say(bundle: Bundle) -> None:
    requests = [
        {},
        {"genre": "comedy", "tags": ["new", "old", "new"], "price": 2.5, "taste": [0.5, 0.25]},
        # five events, of which the newest three count: 4*1 + 2*2 + 3*3, and 3 days of age
        {"watched": [10, 10, 9, 2, 3], "watched.age": [9 * DAY, 9 * DAY, 2 * DAY, DAY, 0], "genre": "horror"},
        {"watched": ["日本"], "watched.age": [43_200]},
    ]
    expected = [[0, 0, 0, -1], [2, 0, 0, 2.5 + 10 + 50 + 250], [-1, 17, 3, -1], [0, 6, 0.5, -1]]
    np.testing.assert_allclose(bundle.embed(requests), expected, rtol=1e-6)
    for request, row in zip(requests, expected, strict=True):
        np.testing.assert_allclose(bundle.embed([request]), [row], rtol=1e-6)
    assert bundle.embed([]).shape == (0, 4)


def test_item_embeddings(bundle: Bundle) -> None:
    embeddings = bundle.embed_items([{"movie": "日本"}, {"movie": 10}, {"movie": "new one"}])
    np.testing.assert_array_equal(embeddings, np.vstack([VECTORS[5], VECTORS[0], np.zeros(4)]))
    with pytest.raises(RequestError, match="no such feature"):
        bundle.embed_items([{"genre": "drama"}])


def test_the_index_holds_the_catalogue(bundle: Bundle) -> None:
    found = bundle.index.search(np.array([[2, 17, 3, 59]], np.float32), 3)
    assert found.ids.tolist() == [[3, 5, 1]]
    assert found.scores.tolist() == [[59, 29.5, 17]]


def test_a_scann_bundle_that_has_been_moved(tmp_path: Path) -> None:
    facts = IndexFacts(kind="scann", k=3, recall=1.0)
    folder = write(tmp_path / "before", index=ScannIndex.build(VECTORS), facts=facts)
    bundle = Bundle.load(folder.rename(tmp_path / "after"))
    assert isinstance(bundle.index, ScannIndex)
    found = bundle.index.search(np.array([[2, 17, 3, 59]], np.float32), 3)
    assert found.ids.tolist() == [[3, 5, 1]]
    (bundle.folder / "index" / "scann" / "serialized_partitioner.pb").write_bytes(b"")
    with pytest.raises(BundleError, match="index/scann"):
        Bundle.load(bundle.folder)


def test_an_index_of_another_width(tmp_path: Path) -> None:
    folder = write(tmp_path, embedding_dim=3)
    with pytest.raises(BundleError, match="6 vectors of width 4; expected 6 of width 3"):
        _ = Bundle.load(folder).index


@pytest.mark.parametrize("column", ["user", "raw.genre", "history", "history_time", "seen"])
def test_users_without_a_column_that_requests_need(tmp_path: Path, column: str) -> None:
    folder = write(tmp_path, users=USERS.drop_columns([column]))
    with pytest.raises(BundleError, match=f"has no column {column};") as caught:
        _ = Bundle.load(folder).users
    assert caught.value.problems[0].place == str(folder / "users.parquet")


def test_users_hold_only_the_features_of_the_request_schema(tmp_path: Path) -> None:
    folder = write(tmp_path, users=USERS.append_column("raw.secret", pa.array(["a", "b", "c"])))
    assert set(Bundle.load(folder).users.features(0)) == {"genre", "tags", "taste"}
