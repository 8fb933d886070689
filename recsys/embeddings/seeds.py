"""Seeds that depend on the experiment's seed and a variable's name, never on the order in which variables are made."""

from __future__ import annotations

import hashlib


def seed_for(seed: int, *names: str) -> int:
    """A 31-bit seed for the thing called `names` in an experiment with `seed`."""
    text = "/".join((str(seed), *names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little") & 0x7FFFFFFF
