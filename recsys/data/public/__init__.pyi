from .definition import PublicDataset as PublicDataset
from .store import DATASETS as DATASETS
from .store import dataset as dataset
from .store import fetch as fetch
from .store import locate as locate
from .store import tables as tables
