from .collection import EmbeddingCollection as EmbeddingCollection
from .config import EmbeddingsConfig as EmbeddingsConfig
from .config import FeatureConfig as FeatureConfig
from .config import TableConfig as TableConfig
from .optimizers import LazyAdam as LazyAdam
from .optimizers import RowwiseAdagrad as RowwiseAdagrad
