import subprocess
import sys

import pytest
from pydantic import TypeAdapter, ValidationError

from recsys.retrieval.config import ExactConfig, IndexConfig, ScannConfig


def test_kind_chooses() -> None:
    adapter: TypeAdapter = TypeAdapter(IndexConfig)
    assert adapter.validate_python({"kind": "exact"}) == ExactConfig()
    found = adapter.validate_python({"kind": "scann", "promise": {"recall@50": 0.9, "recall@5": 1.0}})
    assert found == ScannConfig(promise={"recall@50": 0.9, "recall@5": 1.0})
    assert (found.promised, list(found.promised), found.depth) == ({5: 1.0, 50: 0.9}, [5, 50], 50)
    with pytest.raises(ValidationError, match="expected tags"):
        adapter.validate_python({"kind": "faiss"})


@pytest.mark.parametrize(
    ("given", "size", "expected"),
    [
        (ScannConfig(), 19_999, (0, 1, 1000)),
        (ScannConfig(), 20_000, (141, 29, 1000)),
        (ScannConfig(promise={"recall@10": 0.9}), 1_000_000, (1000, 200, 500)),
        (ScannConfig(leaves=40), 1_000, (40, 10, 1000)),
        (ScannConfig(leaves=4), 1_000, (4, 4, 1000)),
        (ScannConfig(leaves=0), 1_000_000, (0, 1, 1000)),
        (ScannConfig(leaves=100, leaves_to_search=7, reorder=33), 1_000, (100, 7, 33)),
    ],
)
def test_what_is_left_out_depends_on_the_size(given: ScannConfig, size: int, expected: tuple[int, int, int]) -> None:
    full = given.for_size(size)
    assert (full.leaves, full.leaves_to_search, full.reorder) == expected
    assert full.for_size(size) == full


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves is 30; 100 items fill at most 25"):
        ScannConfig(leaves=30).for_size(100)
    with pytest.raises(ValidationError, match="there are 10 leaves"):
        ScannConfig(leaves=10, leaves_to_search=11)
    for promise in ({"recall@10": 1.2}, {"recall": 0.9}, {"recall@0": 0.9}, {"ndcg@10": 0.9}, {}):
        with pytest.raises(ValidationError):
            ScannConfig(promise=promise)


@pytest.mark.parametrize(
    "statement",
    [
        "from recsys.retrieval import ScannConfig, ExactIndex, ScannIndex, build_index",
        "from recsys.evaluation import EvaluationConfig, RunRecord, evaluate_retrieval, evaluate_ranking",
        "from recsys import metrics; metrics.auc([0, 1], [0.1, 0.2])",
    ],
)
def test_tensorflow_is_not_imported(statement: str) -> None:
    heavy = "[m for m in ('tensorflow', 'tf_keras', 'scann') if m in sys.modules]"
    code = f"import sys; {statement}; sys.exit(str({heavy}) if {heavy} else 0)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_scann_needs_neither_keras_nor_tfrs() -> None:
    code = (
        "import sys; sys.modules['tensorflow_recommenders'] = sys.modules['tf_keras'] = None\n"
        "import numpy as np; from recsys.retrieval import ScannIndex\n"
        "assert ScannIndex.build(np.eye(3)).search(np.eye(3), 1).ids.tolist() == [[0], [1], [2]]"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
