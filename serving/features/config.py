"""Which store of users a server reads."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from recsys.config.base import Config, default_tag


class _StoreConfig(Config):
    history: PositiveInt = 200
    """Events of a user that are kept: the newest by time."""
    seen: PositiveInt = 1_000
    """Items that a user is known to have met: the latest met."""


class SqliteStoreConfig(_StoreConfig):
    """A file on this machine, for any number of its processes."""

    kind: Literal["sqlite"] = "sqlite"
    path: str
    """The file; it is made if it is not there. Beside it SQLite keeps PATH-wal and PATH-shm."""
    timeout: PositiveFloat = 5.0
    """Seconds that a write waits for that of another process, at most."""


class RedisStoreConfig(_StoreConfig):
    """A Redis server, for a fleet (needs the extra `recsys[redis]`)."""

    kind: Literal["redis"]
    url: str
    """`redis://HOST:PORT/DATABASE`, `rediss://...` for TLS, or `unix:///PATH`."""
    timeout: PositiveFloat = 0.05
    """Seconds that a call waits for the server, at most."""
    namespace: str = "recsys"
    """What all keys begin with."""

    @field_validator("url")
    @classmethod
    def _is_of_redis(cls, url: str) -> str:
        if not url.startswith(SCHEMES):
            raise ValueError(f"a URL that begins with {', '.join(SCHEMES)}")
        return url


SCHEMES = ("redis://", "rediss://", "unix://")
StoreConfig = Annotated[
    SqliteStoreConfig | RedisStoreConfig, Field(discriminator="kind"), default_tag("kind", "sqlite")
]


def store_config(text: str) -> SqliteStoreConfig | RedisStoreConfig:
    """As the command line names a store: a URL of Redis, or else a file.

    >>> store_config("redis://localhost:6379/0").kind, store_config("users.db").kind
    ('redis', 'sqlite')
    """
    if text.startswith(SCHEMES):
        return RedisStoreConfig(kind="redis", url=text, timeout=5.0)  # nobody waits for an answer
    return SqliteStoreConfig(path=text)
