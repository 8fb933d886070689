"""Users online: raw features and histories by id, in a store that events are appended to while a server runs."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
