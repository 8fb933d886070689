"""`recsys prepare`: from raw files to the prepared folder (see docs/architecture.md)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
