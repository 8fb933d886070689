"""What every store of users holds to, in a SQLite file and in Redis."""

from __future__ import annotations

import os
import random
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from recsys.errors import InstallError
from serving.features import (
    FeatureStore,
    LoadState,
    RedisStoreConfig,
    SqliteStoreConfig,
    StoreConfig,
    StoredUser,
    StoreError,
    open_store,
    store_config,
)
from serving.features.store import LATEST, now
from tests.documented import blocks
from tests.redis_server import RedisServer, redis_server  # noqa: F401

Config = SqliteStoreConfig | RedisStoreConfig
Make = Callable[..., Config]
ROOT = Path(__file__).parents[3]
_namespaces = count()


@pytest.fixture(params=["sqlite", "redis"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Configs of one empty store."""
    if request.param == "sqlite":
        return lambda **options: SqliteStoreConfig(path=str(tmp_path / "users.db"), **options)
    server: RedisServer = request.getfixturevalue("redis_server")
    name = f"test-{next(_namespaces)}"
    return lambda **options: RedisStoreConfig(
        kind="redis", url=server.url, namespace=name, **({"timeout": 5.0} | options)
    )


@pytest.fixture
def store(make: Make) -> Iterator[FeatureStore]:
    opened = open_store(make())
    yield opened
    opened.close()


def history(store: FeatureStore, user: str) -> list[tuple[str, int]]:
    found = store.get(user)
    assert found is not None
    return list(zip(found.history, found.times, strict=True))


def test_what_is_put_is_got(store: FeatureStore) -> None:
    features = {"age": 31, "city": "Zürich", "tags": ["a", "b"], "taste": [0.1, -2.5], "member": True, "job": None}
    user = StoredUser(features, ("10", "日本", "10"), (5, 6, 9), ("10", "日本", "é:1"))
    store.put({"zoë: 1": user, "nobody": StoredUser()})
    found = store.get("zoë: 1")
    assert found is not None
    assert (found.features, found.history, found.times) == (features, user.history, user.times)
    assert sorted(found.seen) == sorted(user.seen)
    assert store.get("nobody") == StoredUser()
    assert store.get("zoë") is None


def test_events_stand_by_time_however_they_come(store: FeatureStore) -> None:
    events = [("c", 20), ("a", 10), ("d", -5), ("b", 20), ("a", 30), ("item:1", 20)]
    in_order = [("d", -5), ("a", 10), ("b", 20), ("c", 20), ("item:1", 20), ("a", 30)]
    for number in range(3):
        random.Random(number).shuffle(events)
        for item, time in events:
            store.append(f"user {number}", item, time)
        assert history(store, f"user {number}") == in_order


def test_the_next_get_sees_an_event_and_a_repeated_one_changes_nothing(store: FeatureStore) -> None:
    store.put({"u": StoredUser({"age": 1}, ("a",), (1,), ("a", "z"))})
    store.append("u", "b", 2)
    once = store.get("u")
    store.append("u", "b", 2)
    assert once is not None
    assert once == store.get("u")
    assert (once.features, once.history, once.times) == ({"age": 1}, ("a", "b"), (1, 2))
    assert sorted(once.seen) == ["a", "b", "z"]
    store.append("new", "b", 2)
    assert store.get("new") == StoredUser({}, ("b",), (2,), ("b",))


def test_the_oldest_events_and_seen_items_go(make: Make) -> None:
    store = open_store(make(history=3, seen=4))
    store.put({"u": StoredUser({}, ("a", "b", "c", "d"), (1, 2, 3, 4), ("x", "y", "a"))})
    assert history(store, "u") == [("b", 2), ("c", 3), ("d", 4)]
    found = store.get("u")
    assert found is not None
    assert sorted(found.seen) == ["a", "b", "c", "d"]  # x and y were met at no known time
    store.append("u", "late", 2)  # it stands behind b, which goes
    assert history(store, "u") == [("late", 2), ("c", 3), ("d", 4)]
    store.append("u", "too late", 1)
    assert history(store, "u") == [("late", 2), ("c", 3), ("d", 4)]
    store.append("u", "b", 9)
    found = store.get("u")
    assert found is not None
    assert sorted(found.seen) == ["b", "c", "d", "late"]
    store.close()


def test_an_item_was_met_when_it_was_met_last(make: Make) -> None:
    """A late event does not make an item the oldest: of a (10, then late 1), b (5) and c (7), b goes."""
    store = open_store(make(seen=2))
    for item, time in (("a", 10), ("b", 5), ("a", 1), ("c", 7)):
        store.append("u", item, time)
    found = store.get("u")
    assert found is not None
    assert sorted(found.seen) == ["a", "c"]
    store.close()


def test_users_put_again_have_new_features_and_keep_their_events(store: FeatureStore) -> None:
    store.put({"u": StoredUser({"age": 1, "city": "A"}, ("a",), (1,), ("a",))})
    store.append("u", "b", 5)
    store.put({"u": StoredUser({"age": 2}, ("a", "c"), (1, 3), ("a", "c"))})
    found = store.get("u")
    assert found is not None
    assert found.features == {"age": 2}
    assert history(store, "u") == [("a", 1), ("c", 3), ("b", 5)]


def test_times_are_kept_exactly_or_refused(store: FeatureStore) -> None:
    times = (1 - LATEST, 1_700_000_000_123_456, 1_700_000_000_123_457, LATEST - 1)
    for time in reversed(times):
        store.append("u", "a", time)
    assert history(store, "u") == [("a", time) for time in times]
    for time in (LATEST, -LATEST):
        with pytest.raises(ValueError, match="out of range"):
            store.append("u", "b", time)
        with pytest.raises(ValueError, match="out of range"):
            store.put({"v": StoredUser({}, ("b",), (time,))})
    assert store.get("v") is None


def test_the_state_of_a_load_is_kept(make: Make) -> None:
    store = open_store(make())
    assert store.load_state() is None
    for state in (LoadState("0" * 64, "ms", 5), LoadState("1" * 64, None, 7)):
        store.set_load_state(state)
    store.close()
    again = open_store(make())
    assert again.load_state() == LoadState("1" * 64, None, 7)
    again.close()


def test_threads_share_a_store(store: FeatureStore) -> None:
    """Users are appended to and read from eight threads; no event is lost, and none is seen half."""

    def work(thread: int) -> None:
        for number in range(10):
            store.append("u", f"{thread}-{number}", thread)
            found = store.get("u")
            assert found is not None
            assert f"{thread}-{number}" in found.history
            assert set(found.history) <= set(found.seen)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(history(store, "u")) == 80


def test_processes_share_a_file(tmp_path: Path) -> None:
    """Two make the store at once, and append to one user."""
    code = (
        "import sys; from serving.features import open_store, store_config; store = open_store(store_config('u.db'))\n"
        "for number in range(50): store.append('u', f'{sys.argv[1]}-{number}', number)"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, name], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)})
        for name in ("one", "two")
    ]
    assert [process.wait() for process in processes] == [0, 0]
    store = open_store(store_config(str(tmp_path / "u.db")))
    assert len(history(store, "u")) == 100
    store.close()


def test_a_redis_that_goes_away_is_one_kind_of_error_and_comes_back(redis_server: RedisServer) -> None:  # noqa: F811
    config = RedisStoreConfig(kind="redis", url=redis_server.url, namespace="restart", timeout=5.0)
    store = open_store(config)
    store.append("u", "a", 1)
    assert store.healthy()
    redis_server.stop()
    calls: list[Callable[[], Any]] = [
        lambda: store.get("u"),
        lambda: store.append("u", "b", 2),
        lambda: store.put({"u": StoredUser()}),
        store.load_state,
        lambda: store.set_load_state(LoadState("0", "s", 1)),
    ]
    for call in calls:
        with pytest.raises(StoreError, match="Redis cannot go on"):
            call()
    assert not store.healthy()
    assert open_store(config).healthy() is False  # a server need not be there
    redis_server.start()
    assert store.healthy()
    assert history(store, "u") == [("a", 1)]
    store.append("u", "b", 2)
    # The connection of the pool is dead now, but the server is there: nobody notices.
    redis_server.stop()
    redis_server.start()
    assert history(store, "u") == [("a", 1), ("b", 2)]
    store.close()


def test_a_redis_that_hangs_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never answers
        url = f"redis://:secret@127.0.0.1:{silent.getsockname()[1]}/0"
        store = open_store(RedisStoreConfig(kind="redis", url=url, timeout=0.05))
        with pytest.raises(StoreError, match=r"^redis://127\.0\.0\.1:\d+/0: ") as caught:
            store.get("u")
        assert "secret" not in str(caught.value)
        store.close()


def test_files_that_are_no_store(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database, but long enough to be taken for one" * 100)
    for path in (tmp_path / "text.db", tmp_path / "no folder" / "users.db"):
        with pytest.raises(StoreError, match="SQLite cannot go on"):
            open_store(SqliteStoreConfig(path=str(path)))


def test_a_file_that_breaks_is_no_healthy_store(tmp_path: Path) -> None:
    path = tmp_path / "users.db"
    store = open_store(SqliteStoreConfig(path=str(path)))
    assert store.healthy()
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE loaded")
        connection.execute("DROP TABLE seen")
    connection.close()
    assert not store.healthy()
    with pytest.raises(StoreError):
        store.append("u", "a", 1)
    assert store.get("nobody") is None  # the append that failed has left nothing
    store.close()


def test_a_store_is_told_by_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter: TypeAdapter[Config] = TypeAdapter(StoreConfig)
    assert adapter.validate_python({"path": "u.db"}) == SqliteStoreConfig(path="u.db")
    redis = adapter.validate_python({"kind": "redis", "url": "redis://h:1/0"})
    assert isinstance(redis, RedisStoreConfig)
    for wrong in ({"kind": "redis", "url": "h:1"}, {"kind": "file", "path": "x"}, {"path": "x", "history": 0}, {}):
        with pytest.raises(ValidationError):
            adapter.validate_python(wrong)
    assert store_config("rediss://h:1/0").kind == "redis"
    assert store_config("./users.db") == SqliteStoreConfig(path="./users.db")
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.delitem(sys.modules, "serving.features.redis", raising=False)
    with pytest.raises(InstallError, match="redis: not installed"):
        open_store(redis)


def test_the_present_has_the_stores_unit() -> None:
    seconds = now("s")
    assert seconds * 1_000 <= now("ms") <= now("us") // 1_000 + 1
    assert now(None) // 1_000_000 - seconds in (0, 1)


def test_the_yaml_of_the_page_is_sound() -> None:
    (block,) = blocks((ROOT / "docs/how-to/online-features.md").read_text(encoding="utf-8"), "yaml")
    adapter: TypeAdapter[Config] = TypeAdapter(StoreConfig)
    assert adapter.validate_python(yaml.safe_load(block)).kind == "redis"
