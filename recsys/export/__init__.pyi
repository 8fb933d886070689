from .exporter import export_two_tower as export_two_tower
from .signatures import Encoder as Encoder
from .signatures import TowerModule as TowerModule
