"""From a model's config to the model."""

from __future__ import annotations

from collections.abc import Mapping

from recsys.data.catalogue import Catalogue
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
    catalogue: Catalogue,
    seed: int,
    vocabularies: Vocabularies | None = None,
    known: Mapping[str, float] | None = None,
) -> TwoTower | Ranker:
    """The model that a config describes; `catalogue` holds all items, `known` the share of the training examples that
    have each further label.
    """
    match config:
        case TwoTowerConfig():
            return TwoTower(config, embeddings, features, catalogue, seed, vocabularies)
        case RankerConfig():
            return Ranker(config, embeddings, features, seed, vocabularies, known)
