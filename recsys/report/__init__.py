"""`report.html`: what a run's records say, on one page for people. It reads files alone: no model, no TensorFlow."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
