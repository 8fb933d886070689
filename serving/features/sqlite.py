"""Users in a SQLite file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock, local

from serving.features.config import SqliteStoreConfig
from serving.features.store import LoadState, StoredUser, StoreError, as_text, checked, seen_of

_TABLES = """
CREATE TABLE IF NOT EXISTS users (user TEXT PRIMARY KEY, features TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events
    (user TEXT, time INTEGER, item TEXT, PRIMARY KEY (user, time, item)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS seen (user TEXT, item TEXT, time INTEGER NOT NULL, PRIMARY KEY (user, item)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS loaded (one INTEGER PRIMARY KEY CHECK (one = 1), users TEXT, unit TEXT, rows INTEGER);
"""
_EVENT = "INSERT INTO events VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_SEEN = "INSERT INTO seen VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET time = max(time, excluded.time)"
_TRIM_EVENTS = """
DELETE FROM events WHERE user = ?1 AND (time, item) <=
    (SELECT time, item FROM events WHERE user = ?1 ORDER BY time DESC, item DESC LIMIT 1 OFFSET ?2)
"""
_TRIM_SEEN = """
DELETE FROM seen WHERE user = ?1 AND (time, item) <=
    (SELECT time, item FROM seen WHERE user = ?1 ORDER BY time DESC, item DESC LIMIT 1 OFFSET ?2)
"""


class SqliteStore:
    """A `FeatureStore` in a file, in WAL mode: readers and the one writer do not wait for each other.

    Each thread has a connection of its own. What is written is safe from a crash of the process; a loss of power may
    take the latest events (`synchronous = NORMAL`), but never harms the file.
    """

    def __init__(self, config: SqliteStoreConfig) -> None:
        """Raises `StoreError` where the file cannot be opened or made."""
        self._config = config
        self._own, self._lock = local(), Lock()
        self._connections = list[sqlite3.Connection]()
        with self._told():
            self._connection().executescript(_TABLES)

    def get(self, user: str) -> StoredUser | None:
        """See `FeatureStore`."""
        with self._transaction("DEFERRED") as connection:
            row = connection.execute("SELECT features FROM users WHERE user = ?", (user,)).fetchone()
            if row is None:
                return None
            events = connection.execute(
                "SELECT item, time FROM events WHERE user = ? ORDER BY time, item", (user,)
            ).fetchall()
            seen = connection.execute("SELECT item FROM seen WHERE user = ?", (user,)).fetchall()
        return StoredUser(
            features=json.loads(row[0]),
            history=tuple(item for item, _ in events),
            times=tuple(time for _, time in events),
            seen=tuple(item for (item,) in seen),
        )

    def append(self, user: str, item: str, time: int) -> None:
        """See `FeatureStore`."""
        event = (user, checked(time), item)
        with self._transaction("IMMEDIATE") as connection:
            connection.execute("INSERT INTO users VALUES (?, '{}') ON CONFLICT DO NOTHING", (user,))
            connection.execute(_EVENT, event)
            connection.execute(_SEEN, (user, item, time))
            self._trim(connection, [user])

    def put(self, users: Mapping[str, StoredUser]) -> None:
        """See `FeatureStore`."""
        events = [
            (name, checked(time), item)
            for name, user in users.items()
            for item, time in zip(user.history, user.times, strict=True)
        ]
        seen = [(name, item, time) for name, user in users.items() for item, time in seen_of(user).items()]
        texts = [(name, as_text(user.features)) for name, user in users.items()]
        with self._transaction("IMMEDIATE") as connection:
            connection.executemany(
                "INSERT INTO users VALUES (?, ?) ON CONFLICT DO UPDATE SET features = excluded.features", texts
            )
            connection.executemany(_EVENT, events)
            connection.executemany(_SEEN, seen)
            self._trim(connection, users)

    def load_state(self) -> LoadState | None:
        """See `FeatureStore`."""
        with self._told():
            row = self._connection().execute("SELECT users, unit, rows FROM loaded").fetchone()
        return None if row is None else LoadState(*row)

    def set_load_state(self, state: LoadState) -> None:
        """See `FeatureStore`."""
        row = (state.users, state.timestamp_unit, state.rows)
        with self._transaction("IMMEDIATE") as connection:
            connection.execute("INSERT OR REPLACE INTO loaded VALUES (1, ?, ?, ?)", row)

    def healthy(self) -> bool:
        """See `FeatureStore`."""
        try:
            self.load_state()
        except StoreError:
            return False
        return True

    def close(self) -> None:
        """See `FeatureStore`. Not while another thread is inside."""
        with self._lock:
            for connection in self._connections:
                connection.close()
            self._connections.clear()
            self._own = local()

    def _trim(self, connection: sqlite3.Connection, users: Collection[str]) -> None:
        connection.executemany(_TRIM_EVENTS, [(user, self._config.history) for user in users])
        connection.executemany(_TRIM_SEEN, [(user, self._config.seen) for user in users])

    def _connection(self) -> sqlite3.Connection:
        """This thread's."""
        found: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if found is None:
            # No implicit transactions; a connection is closed by the thread that closes the store.
            found = sqlite3.connect(
                self._config.path, timeout=self._config.timeout, isolation_level=None, check_same_thread=False
            )
            found.execute("PRAGMA journal_mode = WAL")
            found.execute("PRAGMA synchronous = NORMAL")
            self._own.connection = found
            with self._lock:
                self._connections.append(found)
        return found

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[sqlite3.Connection]:
        """All of it, or nothing; what is read is of one moment."""
        with self._told():
            connection = self._connection()
            connection.execute(f"BEGIN {kind}")
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            cure = "check the file, its folder and the room on its disk"
            raise StoreError(self._config.path, f"SQLite cannot go on ({error})", "a store of users", cure) from error
