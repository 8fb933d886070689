from .config import BinaryCrossEntropyConfig as BinaryCrossEntropyConfig
from .config import FocalConfig as FocalConfig
from .config import InBatchSoftmaxConfig as InBatchSoftmaxConfig
from .config import PointwiseLossConfig as PointwiseLossConfig
from .in_batch_softmax import in_batch_softmax as in_batch_softmax
from .pointwise import log_odds as log_odds
from .pointwise import pointwise_loss as pointwise_loss
