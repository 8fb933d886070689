"""Where recsys keeps what it can make again."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_dir() -> Path:
    """The cache folder: `RECSYS_CACHE`, or the user's own cache folder. It may not exist yet."""
    return Path(os.environ.get("RECSYS_CACHE") or platformdirs.user_cache_dir("recsys"))
