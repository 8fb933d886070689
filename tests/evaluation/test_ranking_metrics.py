import numpy as np
import pytest

from recsys.errors import DataError
from recsys.evaluation import evaluate_ranking
from recsys.metrics import auc, logloss, normalized_entropy


def test_what_is_measured() -> None:
    labels, probabilities, weights = [1, 0, 0, 1], np.array([0.9, 0.2, 0.6, 0.4], np.float32), [1.0, 1, 1, 2]
    assert evaluate_ranking(labels, probabilities, weights) == {
        "auc": auc(labels, probabilities, weights),
        "logloss": logloss(labels, probabilities, weights),
        "normalized_entropy": normalized_entropy(labels, probabilities, weights),
        "base_rate": 3 / 5,
    }
    assert evaluate_ranking(labels, probabilities)["base_rate"] == 0.5


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_named(label: int) -> None:
    with pytest.raises(DataError, match=rf"all 3 examples have label {label}; expected both.*data\.negatives"):
        evaluate_ranking([label] * 3, [0.1, 0.2, 0.3])
