"""Who may ask, and how often: API keys and a rate for each client, before a request's body is read."""

from __future__ import annotations

import hmac
import ipaddress
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from time import monotonic

from recsys.errors import ConfigError, Problem

SHORTEST = 16
"""Characters of a key, at least."""
CLIENTS = 10_000
"""Whose rates are remembered; those who have not asked for the longest are forgotten first."""


class Keys:
    """API keys. Without any, everyone may ask."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._keys = [key.encode() for key in keys]

    @classmethod
    def read(cls, path: Path | str | None) -> Keys:
        """From a file of one key a line; empty lines and those that begin with # are none.

        Raises:
            ConfigError: it cannot be read, holds no key, or a key is too short.
        """
        if path is None:
            return cls()
        try:
            lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(str(path), f"cannot be read ({error})", "API keys, one a line", "write some") from error
        keys = [line for line in lines if line and not line.startswith("#")]
        short = [number for number, line in enumerate(lines, 1) if line in keys and len(line) < SHORTEST]
        if short:
            found = f"a key of fewer than {SHORTEST} characters"
            raise ConfigError(f"{path}:{short[0]}", found, "one that nobody guesses", "openssl rand -hex 32")
        if not keys:
            raise ConfigError(str(path), "holds no key", "API keys, one a line", "openssl rand -hex 32")
        return cls(keys)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def admit(self, headers: Mapping[str, str]) -> bool:
        """Whether `Authorization: Bearer KEY` or `X-API-Key: KEY` is one of them. How long that takes does not tell how
        much of a key is right.
        """
        scheme, _, given = headers.get("authorization", "").partition(" ")
        key = (given.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")).encode()
        right = [hmac.compare_digest(key, each) for each in self._keys]  # all are compared, whichever is right
        return not self._keys or any(right)


class Rates:
    """A token bucket a client: one second's requests at once, and so many a second in the mean."""

    def __init__(self, per_second: float | None) -> None:
        self._rate = per_second
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str, now: float | None = None) -> float:
        """Seconds until the client may ask again; 0 and a token less if it may now."""
        if self._rate is None:
            return 0.0
        now, most = monotonic() if now is None else now, max(self._rate, 1.0)
        tokens, since = self._buckets.pop(client, (most, now))
        tokens = min(most, tokens + (now - since) * self._rate)
        admitted = tokens >= 1
        self._buckets[client] = (tokens - admitted, now)
        if len(self._buckets) > CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if admitted else (1 - tokens) / self._rate


NO_KEY = Problem("authorization", "no API key of this server", "Authorization: Bearer KEY", "ask its operator for one")


def too_often(rate: float | None) -> Problem:
    """For a client that asks more than it may."""
    return Problem("client", "asks too often", f"{rate:g} requests a second in the mean", "wait as Retry-After says")


def is_local(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
