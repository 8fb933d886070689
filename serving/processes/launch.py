"""What the supervisor tells the processes that it starts: in its private folder, since command lines are public."""

from __future__ import annotations

from recsys.config.base import Config
from serving.config import ServingConfig


class ModelLaunch(Config):
    """What a model process is told."""

    bundle: str
    """Its folder."""
    socket: str
    """Where to answer."""
    config: ServingConfig
    """Of the whole server."""
    quiet: bool
    """Load at low priority: another process answers meanwhile."""


class WorkerLaunch(Config):
    """What a web worker is told."""

    http: int
    """The inherited socket's descriptor."""
    grpc: str | None
    """Where to answer TensorFlow Serving's clients; None for nowhere."""
    engine: str
    """The link to the model process' socket."""
    state: str
    """The file in which the supervisor says how the server stands."""
    config: ServingConfig
    """Of the whole server."""
