from .experiment import Experiment as Experiment

__version__: str
