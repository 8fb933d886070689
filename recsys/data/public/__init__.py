"""Public data sets by name: `locate` (no network), `fetch`, and `tables` (clean Parquet)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
