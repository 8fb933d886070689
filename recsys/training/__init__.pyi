from .checkpoints import Checkpoints as Checkpoints
from .config import TrainingConfig as TrainingConfig
from .loop import fit as fit
from .strategies import make_strategy as make_strategy
