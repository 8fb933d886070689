"""How a server answers, in YAML: `recsys serve BUNDLE --config serving.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from recsys.config.base import Config
from recsys.config.load import load
from serving.features import SqliteStoreConfig, StoreConfig
from serving.log.config import LogConfig
from serving.messages import MOST
from serving.reranking import RulesConfig

Port = Annotated[int, Field(ge=0, le=65_535)]


class Budgets(Config):
    """Milliseconds that a stage may take; the answer of one that takes longer is given without it, and says so."""

    features: PositiveFloat = 20.0
    """Of the online store; then the bundle's own users stand in, and the answer is degraded by `features`."""
    rank: PositiveFloat = 100.0
    """Of the ranker; then the order is that of retrieval, and the answer is degraded by `ranker`."""


class Together(Config):
    """How calls of many threads go together."""

    rows: PositiveInt = 8
    """So many requests at once, at most."""
    delay: NonNegativeFloat = 5.0
    """Milliseconds that a call waits for the one before it to end, so as to go together with those that wait too, at
    most. Nobody waits while there is no other."""


class Batching(Config):
    """Which models' calls go together. None do by default: the page on how a request is answered has what was
    measured.
    """

    query: Together | None = None
    """Of the query tower; worth it where that is large."""
    rank: Together | None = None
    """Of the ranker; worth it where requests have few candidates, at most some hundred."""


class Limits(Config):
    """What a client may ask for."""

    body_bytes: PositiveInt = 1_000_000
    """Of a request's body."""
    k: Annotated[int, Field(ge=1, le=MOST)] = MOST
    """Items that a request asks for."""
    batch: Annotated[int, Field(ge=1, le=MOST)] = MOST
    """Rows of one request that brings many: items to rank, vectors to embed, items to change."""
    requests_per_second: PositiveFloat | None = None
    """Of one client, in the mean; None for as many as there come."""
    keys: str | None = None
    """A file of API keys, one a line, relative to the YAML; None asks for none."""


class ServingConfig(Config):
    """A server."""

    host: str = "127.0.0.1"
    """Address to listen on: this machine alone, unless told. 0.0.0.0 opens it to the network."""
    port: Port = 8500
    """Of HTTP."""
    grpc_port: Port | None = None
    """Of TensorFlow Serving's protocol over gRPC; None for no such server."""
    workers: PositiveInt = 1
    """Web processes."""
    threads: PositiveInt = 8
    """Requests that the model process works on at once."""
    features: StoreConfig | None = None
    """The online store of users; None for the bundle's own users alone."""
    candidates: PositiveInt = 500
    """Items retrieved for the ranker and the rules; without those as many as are asked for."""
    budgets: Budgets = Budgets()
    """Milliseconds by stage."""
    batching: Batching = Batching()
    """Calls that go together."""
    rules: RulesConfig | None = None
    """Of the last stage; None for the best ones in their order."""
    log: LogConfig | None = None
    """Of answers and feedback, to learn from; None for no such log."""
    journal: str | None = None
    """A folder, relative to the YAML, in which changes of items outlive the server; None where they need not."""
    limits: Limits = Limits()
    """What a client may ask for."""

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """From a YAML file.

        Raises:
            ConfigError: with one problem for each mistake.
        """
        loaded = load(path, cls)
        config, folder = loaded.config, loaded.path.parent
        found: dict[str, Any] = {}
        if config.limits.keys is not None:
            found["limits"] = config.limits.model_copy(update={"keys": str(folder / config.limits.keys)})
        if isinstance(config.features, SqliteStoreConfig):
            found["features"] = config.features.model_copy(update={"path": str(folder / config.features.path)})
        if config.log is not None:
            found["log"] = config.log.model_copy(update={"folder": str(folder / config.log.folder)})
        if config.journal is not None:
            found["journal"] = str(folder / config.journal)
        return config.model_copy(update=found)
