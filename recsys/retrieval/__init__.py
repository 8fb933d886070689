"""Retrieval: maximum inner product search over a catalogue's vectors, exact or by ScaNN, behind one protocol."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
