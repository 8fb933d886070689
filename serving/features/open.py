"""From a config to a store."""

from __future__ import annotations

from recsys.errors import InstallError
from serving.features.config import RedisStoreConfig, SqliteStoreConfig
from serving.features.store import FeatureStore


def open_store(config: SqliteStoreConfig | RedisStoreConfig) -> FeatureStore:
    """The store of a config. A Redis server need not be there yet.

    Raises:
        InstallError: the library for Redis is not installed.
        StoreError: the file cannot be opened.
    """
    match config:
        case SqliteStoreConfig():
            from serving.features.sqlite import SqliteStore

            return SqliteStore(config)
        case RedisStoreConfig():
            try:
                from serving.features.redis import RedisStore
            except ModuleNotFoundError as error:
                cure = "pip install 'redis>=5'"
                raise InstallError("redis", "not installed", "the extra recsys[redis]", cure) from error
            return RedisStore(config)
