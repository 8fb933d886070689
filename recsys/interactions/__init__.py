"""How a feature meets the others: layers between the embeddings and a model's last dense layers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
