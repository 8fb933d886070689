"""What every model is held to: rankings and scores that anybody has without a model."""

from recsys.evaluation.baselines.rankings import retrieval_baselines as retrieval_baselines
from recsys.evaluation.baselines.rankings import score_baselines as score_baselines
