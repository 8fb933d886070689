"""The identity of a config."""

from __future__ import annotations

import hashlib
import json

from pydantic import BaseModel


def digest(config: BaseModel) -> str:
    """SHA-256 (hex) of the config's canonical JSON: the same in every process and for every order of keys."""
    plain = config.model_dump(mode="json")
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
