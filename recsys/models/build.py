"""From a model's config to the model."""

from __future__ import annotations

from collections.abc import Mapping

from numpy.typing import ArrayLike

from recsys.data.dataset import FeatureInfo
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.tables import Vocabularies
from recsys.models.config import RankerConfig, TwoTowerConfig
from recsys.models.ranker import Ranker
from recsys.models.two_tower import TwoTower


def make_model(
    config: TwoTowerConfig | RankerConfig,
    embeddings: EmbeddingsConfig,
    features: Mapping[str, FeatureInfo],
    train_count: ArrayLike,
    seed: int,
    vocabularies: Vocabularies | None = None,
    known: Mapping[str, float] | None = None,
) -> TwoTower | Ranker:
    """The model that a config describes; `train_count` [N] are the catalogue items' positive training events, `known`
    the share of the training examples that have each further label.
    """
    match config:
        case TwoTowerConfig():
            return TwoTower(config, embeddings, features, train_count, seed, vocabularies)
        case RankerConfig():
            return Ranker(config, embeddings, features, seed, vocabularies, known)
