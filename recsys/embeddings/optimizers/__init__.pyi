from .adagrad import Adagrad as Adagrad
from .adagrad import RowwiseAdagrad as RowwiseAdagrad
from .gradients import clip_by_global_norm as clip_by_global_norm
from .lazy_adam import LazyAdam as LazyAdam
from .sparse import SparseOptimizer as SparseOptimizer
from .tables import TableOptimizers as TableOptimizers
from .tables import make_table_optimizer as make_table_optimizer
