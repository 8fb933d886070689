from .search import DimensionSearch as DimensionSearch
from .search import Progress as Progress
