"""Users in Redis."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from serving.features.config import RedisStoreConfig
from serving.features.store import LoadState, StoredUser, StoreError, as_text, checked, seen_of

_AT_ONCE = 1_000
"""Users written in one round trip."""


class RedisStore:
    """A `FeatureStore` in Redis: of each user the features as JSON, and two sorted sets, cut to their lengths at each
    write: of events by time, and of seen items by the time they were met last.

    A set whose members are `TIME:ITEM` stands by time, then by item in code point order, wherever an event comes from
    and however often. Each call is one transaction in one round trip. Connections are made anew after they were lost: a
    call that finds its own dead tries once more.
    """

    def __init__(self, config: RedisStoreConfig) -> None:
        """Raises `StoreError` for a URL that Redis cannot read. The server need not be there."""
        self._config = config
        self._name = _without_password(config.url)
        try:
            self._client = redis.Redis.from_url(
                config.url,
                decode_responses=True,
                socket_timeout=config.timeout,
                socket_connect_timeout=config.timeout,
                retry=Retry(NoBackoff(), 1, (redis.ConnectionError,)),
            )
        except ValueError as error:
            cure = "redis://HOST:PORT/DATABASE"
            raise StoreError(self._name, f"is no URL of Redis ({error})", cure, "correct it") from error

    def get(self, user: str) -> StoredUser | None:
        """See `FeatureStore`."""
        with self._told(), self._client.pipeline() as pipe:
            pipe.get(self._key("features", user))
            pipe.zrange(self._key("history", user), 0, -1)
            pipe.zrange(self._key("seen", user), 0, -1)
            features, events, seen = pipe.execute()
        if features is None and not events:
            return None
        pairs = [event.split(":", 1) for event in events]
        return StoredUser(
            features=json.loads(features or "{}"),
            history=tuple(item for _, item in pairs),
            times=tuple(int(time) for time, _ in pairs),
            seen=tuple(seen),
        )

    def append(self, user: str, item: str, time: int) -> None:
        """See `FeatureStore`."""
        event = StoredUser(history=(item,), times=(checked(time),))
        with self._told(), self._client.pipeline() as pipe:
            self._add(pipe, user, event)
            pipe.execute()

    def put(self, users: Mapping[str, StoredUser]) -> None:
        """See `FeatureStore`. A transaction for each thousand users."""
        names = list(users)
        for start in range(0, len(names), _AT_ONCE):
            with self._told(), self._client.pipeline() as pipe:
                for name in names[start : start + _AT_ONCE]:
                    pipe.set(self._key("features", name), as_text(users[name].features))
                    self._add(pipe, name, users[name])
                pipe.execute()

    def load_state(self) -> LoadState | None:
        """See `FeatureStore`."""
        with self._told():
            text = self._client.get(self._loaded)
        assert text is None or isinstance(text, str)
        return None if text is None else LoadState(**json.loads(text))

    def set_load_state(self, state: LoadState) -> None:
        """See `FeatureStore`."""
        with self._told():
            self._client.set(self._loaded, json.dumps(asdict(state)))

    def healthy(self) -> bool:
        """See `FeatureStore`."""
        try:
            with self._told():
                return bool(self._client.ping())
        except StoreError:
            return False

    def close(self) -> None:
        """See `FeatureStore`."""
        self._client.close()

    def _add(self, pipe: redis.client.Pipeline, name: str, user: StoredUser) -> None:
        """Events and seen items, and the cut after them."""
        history, seen = self._key("history", name), self._key("seen", name)
        if user.history:
            times = {f"{checked(t)}:{item}": t for item, t in zip(user.history, user.times, strict=True)}
            pipe.zadd(history, times)
            pipe.zremrangebyrank(history, 0, -self._config.history - 1)
        if user.history or user.seen:
            pipe.zadd(seen, seen_of(user), gt=True)
            pipe.zremrangebyrank(seen, 0, -self._config.seen - 1)

    def _key(self, what: str, user: str) -> str:
        return f"{self._config.namespace}:{what}:{user}"

    @property
    def _loaded(self) -> str:
        return f"{self._config.namespace}:loaded"

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (redis.RedisError, OSError) as error:
            cure = "start the server, or correct the URL"
            raise StoreError(self._name, f"Redis cannot go on ({error})", "a server that answers", cure) from error


def _without_password(url: str) -> str:
    """The URL for errors.

    >>> _without_password("redis://me:secret@host:6379/0")
    'redis://host:6379/0'
    """
    scheme, _, rest = url.partition("://")
    address, slash, path = rest.partition("?")[0].partition("/")
    return f"{scheme}://{address.rpartition('@')[2]}{slash}{path}"
