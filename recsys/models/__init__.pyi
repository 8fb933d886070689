from .config import ModelConfig as ModelConfig
from .config import RankerConfig as RankerConfig
from .config import TwoTowerConfig as TwoTowerConfig
from .ranker import Ranker as Ranker
from .two_tower import TwoTower as TwoTower
