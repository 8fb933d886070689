from .collection import EmbeddingCollection as EmbeddingCollection
from .config import EmbeddingsConfig as EmbeddingsConfig
from .config import FeatureConfig as FeatureConfig
from .config import TableConfig as TableConfig
from .embedded import Embedded as Embedded
from .embedded import Padded as Padded
from .optimizers.sparse import LazyAdam as LazyAdam
from .optimizers.sparse import RowwiseAdagrad as RowwiseAdagrad
