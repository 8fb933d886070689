from .config import CrossConfig as CrossConfig
from .config import InteractionConfig as InteractionConfig
from .cross import CrossNetwork as CrossNetwork
