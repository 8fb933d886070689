"""A server for a bundle. It needs TensorFlow, ScaNN and the web stack, and of recsys only what reads a bundle."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
