from .config import InBatchSoftmaxConfig as InBatchSoftmaxConfig
from .in_batch_softmax import in_batch_softmax as in_batch_softmax
