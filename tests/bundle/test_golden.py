"""The self-test of a bundle made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from recsys.bundle import Bundle, self_test
from recsys.bundle.catalogue_update import next_bundle
from recsys.bundle.new_items import NewItems
from recsys.errors import BundleError
from tests.tiny_bundle import ITEMS, write


def test_it_asks_known_users_and_what_training_never_met(tmp_path: Path) -> None:
    bundle = Bundle.load(write(tmp_path / "bundle", golden=True))
    self_test(bundle)
    requests = json.loads((bundle.folder / "golden.json").read_bytes())["requests"]
    assert [each["user"] for each in requests[:4]] == ["1", "42", "zoë", None]
    assert requests[4]["features"] == {"genre": "no such value"}
    assert requests[4]["scores"][0] == 1.0  # any other genre is -1 in e0, and so is é
    assert requests[4]["items"][0] == "é"
    assert {len(each["items"]) for each in requests} == {len(ITEMS)}

    # The next bundle is asked anew, with the items as they are then.
    after = Bundle.load(next_bundle(bundle, NewItems.of([{"item": "new", "movie": "9"}], bundle.manifest), ["é"]))
    self_test(after)
    requests = json.loads((after.folder / "golden.json").read_bytes())["requests"]
    assert all(("new" in each["items"]) > ("é" in each["items"]) for each in requests)


def test_an_index_that_finds_other_items_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.load(write(tmp_path / "bundle", golden=True))
    search = bundle.index.search
    monkeypatch.setattr(bundle.index, "search", lambda queries, k: search(queries[::-1], k))
    with pytest.raises(BundleError, match=r"requests\[0\] \(user '1'\): search: "):
        self_test(bundle)


def test_a_bundle_without_golden_requests_cannot_be_tested(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"golden\.json: cannot be read"):
        self_test(Bundle.load(tiny_bundle))


def test_scores_that_are_no_numbers_are_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.load(write(tmp_path / "bundle", golden=True))
    monkeypatch.setattr(
        type(bundle.query_tower), "__call__", lambda self, arrays: np.full((len(arrays["genre"]), 4), np.nan)
    )
    with pytest.raises(BundleError, match="query tower and index: nan"):
        self_test(bundle)
