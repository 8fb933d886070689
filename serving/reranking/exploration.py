"""Candidates that are shown in the place of others, with known probabilities."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.reranking.config import Exploration


@dataclass(frozen=True)
class Draw:
    """What becomes of E places that may explore.

    Attributes:
        drawn: [E] the member of the pool that a place shows, or -1 where it shows what it would without.
        propensity: [E] probability of what each place shows.
    """

    drawn: NDArray[np.int64]
    propensity: NDArray[np.float64]


def draw(config: Exploration, request_id: str, places: int, pool: int) -> Draw:
    """Explore E = `places` places with a pool of M = `pool` items.

    A uniform permutation of the pool, filled up with blanks to max(M, E), gives each place an item or a blank; the
    place shows its item with probability `share`. So each item of the pool is shown at each place with probability
    share / max(M, E), and a place stays as it is with probability 1 - share * (M / max(M, E)).
    """
    rng = np.random.default_rng(_seed(config.seed, request_id))
    size = max(pool, places)
    if not size:
        return Draw(np.empty(0, np.int64), np.empty(0))
    given = rng.permutation(size)[:places]
    explores = (rng.random(places) < config.share) & (given < pool)
    own, stay = config.share / size, 1 - config.share * (pool / size)
    return Draw(np.where(explores, given, -1), np.where(explores, own, stay))


def _seed(seed: int, request_id: str) -> int:
    """128 bits of both."""
    text = f"{seed}:{request_id}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest())
