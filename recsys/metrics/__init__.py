"""Metrics: pure, vectorised functions of numpy arrays."""

from recsys.metrics.beyond import coverage as coverage
from recsys.metrics.beyond import mean_popularity as mean_popularity
from recsys.metrics.pointwise import auc as auc
from recsys.metrics.pointwise import logloss as logloss
from recsys.metrics.pointwise import normalized_entropy as normalized_entropy
from recsys.metrics.ranking import hit_rate_at_k as hit_rate_at_k
from recsys.metrics.ranking import hits as hits
from recsys.metrics.ranking import map_at_k as map_at_k
from recsys.metrics.ranking import mrr_at_k as mrr_at_k
from recsys.metrics.ranking import ndcg_at_k as ndcg_at_k
from recsys.metrics.ranking import precision_at_k as precision_at_k
from recsys.metrics.ranking import recall_at_k as recall_at_k
