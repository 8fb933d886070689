"""The users of a bundle, in a store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from recsys.bundle import Bundle
from serving.features import FeatureStore, StoredUser, StoreError, load, open_store, store_config
from tests.tiny_bundle import DAY, write


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return open_store(store_config(str(tmp_path / "users.db")))


def test_every_user_comes_with_all_that_the_bundle_knows(tiny_bundle: Path, store: FeatureStore) -> None:
    """Item indices 0, 3, 1, 2 are 10, 9, 2 and 3."""
    told = list[tuple[int, int]]()
    assert load.load(Bundle.load(tiny_bundle), store, lambda done, total: told.append((done, total))) == 3
    assert told == [(0, 3), (3, 3)]
    features = {"genre": "comedy", "tags": ["new", "old"], "taste": [0.5, 0.0]}
    user = store.get("1")
    assert user is not None
    assert (user.features, user.history) == (features, ("10", "9", "2", "3"))
    assert user.times == (0, DAY, 2 * DAY, 3 * DAY)
    assert sorted(user.seen) == ["10", "2", "3", "9"]
    assert store.get("42") == StoredUser({"genre": None, "tags": None, "taste": None})
    zoe = store.get("zoë")
    assert zoe is not None
    assert zoe.features == {"genre": "drama", "tags": [], "taste": [0.0, 0.25]}
    assert (zoe.history, zoe.times, zoe.seen) == (("日本",), (DAY,), ("日本",))
    state = store.load_state()
    assert state is not None
    assert (state.timestamp_unit, state.rows) == ("s", 3)


def test_a_load_again_changes_nothing_and_events_stay(tiny_bundle: Path, store: FeatureStore) -> None:
    bundle = Bundle.load(tiny_bundle)
    load.load(bundle, store)
    store.append("zoë", "2", 2 * DAY)
    before = [store.get(user) for user in ("1", "42", "zoë")]
    assert load.load(bundle, store) == 3
    assert [store.get(user) for user in ("1", "42", "zoë")] == before
    assert before[2] is not None
    assert before[2].history == ("日本", "2")


class Failing:
    """A store that fails after some blocks."""

    def __init__(self, store: FeatureStore, blocks: int) -> None:
        self._store, self._blocks, self.put_users = store, blocks, list[str]()

    def put(self, users: Mapping[str, StoredUser]) -> None:
        if not self._blocks:
            raise StoreError("a test's store", "fails")
        self._blocks -= 1
        self.put_users += users
        self._store.put(users)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_an_interrupted_load_goes_on(
    tiny_bundle: Path, store: FeatureStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(load, "BLOCK", 1)
    bundle = Bundle.load(tiny_bundle)
    failing = Failing(store, 2)
    with pytest.raises(StoreError):
        load.load(bundle, failing)
    assert failing.put_users == ["1", "42"]
    again = Failing(store, 5)
    assert load.load(bundle, again) == 1
    assert again.put_users == ["zoë"]
    # Another bundle begins at its first user, whatever was loaded before.
    other = Bundle.load(write(tmp_path / "other", users=bundle_users(bundle)))
    with pytest.raises(StoreError):
        load.load(other, Failing(store, 1))
    last = Failing(store, 5)
    assert load.load(other, last) == 1
    assert last.put_users == ["42"]


def bundle_users(bundle: Bundle) -> Any:
    import pyarrow.parquet as pq

    return pq.read_table(bundle.folder / "users.parquet").slice(0, 2)


def test_without_times_events_keep_their_order(store: FeatureStore, tmp_path: Path) -> None:
    from tests.tiny_bundle import REQUEST, USERS

    request = REQUEST | {"watched": REQUEST["watched"].model_copy(update={"age": False})}
    users = USERS.drop_columns(["history_time"])
    bundle = Bundle.load(write(tmp_path / "bundle", users=users, request=request, timestamp_unit=None, data_time=None))
    load.load(bundle, store)
    user = store.get("1")
    assert user is not None
    assert (user.history, user.times) == (("10", "9", "2", "3"), (0, 1, 2, 3))
