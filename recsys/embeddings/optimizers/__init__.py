"""Optimizers of embedding tables: a step costs what the batch touches, not what the table holds."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
