from .exporter import Provenance as Provenance
from .exporter import export_ranker as export_ranker
from .exporter import export_two_tower as export_two_tower
from .signatures import Encoder as Encoder
from .signatures import RankerModule as RankerModule
from .signatures import TowerModule as TowerModule
