"""The served artefact: its manifest, writing it whole or not at all, and loading it only when it is what it says it is.

Nothing here knows a model: a bundle is served by TensorFlow and an index alone.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
