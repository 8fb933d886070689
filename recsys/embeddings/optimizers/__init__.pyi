from .sparse import LazyAdam as LazyAdam
from .sparse import RowwiseAdagrad as RowwiseAdagrad
from .sparse import make_table_optimizer as make_table_optimizer
