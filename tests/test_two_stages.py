"""Two experiments together: one retrieves, the other ranks, on one prepared data set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from recsys.bundle import Bundle
from recsys.cli import main
from recsys.errors import ConfigError, DataError, TrainingError
from recsys.evaluation.evidence import Measured, evidence_path
from recsys.evaluation.record import RunRecord
from recsys.experiment import Experiment
from recsys.two_stages import TwoStages
from tests.trained import CONFIG

SHARED = (
    "data.source={kind: simulated, users: 80, items: 50, events: 1800, seed: 3}",
    "data.negatives={column: rating, at_most: 2}",
    "training={batch_size: 64, epochs: 1, early_stopping: null}",
)
RANKER = (*SHARED, "name=ranker", "model={kind: ranker}")


@dataclass(frozen=True)
class Folder:
    """A folder with a YAML file and runs."""

    path: Path

    def experiment(self, *overrides: str) -> Experiment:
        return Experiment.from_yaml(self.path / "small.yaml", overrides, self.path / "runs")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folder]:
    """`runs/small`, a two_tower, and `runs/ranker`, both trained."""
    folder = Folder(tmp_path_factory.mktemp("two_stages"))
    (folder.path / "small.yaml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_CACHE", str(folder.path / "cache"))
        folder.experiment(*SHARED).train()
        folder.experiment(*RANKER).train()
        yield folder


def test_both_are_evaluated_and_the_result_can_be_compared(trained: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    runs = trained.path / "runs"
    both = runs / "small-with-ranker"
    assert main(["evaluate", str(runs / "small"), "--ranker", str(runs / "ranker"), "--candidates", "25"]) == 0
    assert "Where recall is lost: 25 candidates hold" in " ".join(capsys.readouterr().out.split())
    record = RunRecord.read(both / "metrics.json")
    metrics = record.metrics["model"]
    total = metrics["recall@20"] + metrics["lost_in_ranking@20"] + metrics["lost_in_retrieval@20"]
    assert metrics["reachable@20"] == pytest.approx(total)
    assert {each.against for each in record.differences} == {"retriever"}
    measured = Measured.read(evidence_path(both, "model"))
    assert measured.whole.values["recall@20"].mean() == pytest.approx(metrics["recall@20"])

    # What retrieves alone is what the two_tower's own evaluation says, as far as the candidates go.
    assert main(["evaluate", str(runs / "small")]) == 0
    own = Measured.read(evidence_path(runs / "small", "model")).whole
    alone = Measured.read(evidence_path(both, "retriever")).whole
    assert own.users.tolist() == alone.users.tolist()
    assert np.mean(own.values["recall@5"] == alone.values["recall@5"]) > 0.9  # over an approximate index
    assert main(["compare", str(runs / "small"), str(both)]) == 0
    assert "small-with-ranker" in capsys.readouterr().out


def test_both_are_exported_as_one_bundle(trained: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    runs = trained.path / "runs"
    words = ["export", str(runs / "small"), "--ranker", str(runs / "ranker"), "--json"]
    assert main([*words, "--set", "retrieval.index={kind: exact}"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["path"] == str(runs / "small" / "bundle" / "1")
    assert told["ranking"]["name"] == "ranker"
    bundle = Bundle.load(runs / "small")
    assert (bundle.manifest.name, bundle.ranking.config_digest) == ("small", trained.experiment(*RANKER).digest)
    assert np.std(bundle.rank_items({"user_id": "3"}, np.arange(10))) > 0


def test_what_cannot_be_put_together_is_refused(trained: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    two_tower, ranker = trained.experiment(*SHARED), trained.experiment(*RANKER)
    with pytest.raises(ConfigError, match=r"runs/ranker: holds a ranker; expected a two_tower"):
        TwoStages(ranker, ranker)
    with pytest.raises(ConfigError, match=r"runs/small: holds a two_tower; expected a ranker"):
        TwoStages(two_tower, two_tower)
    with pytest.raises(ConfigError, match=r"candidates: 10; expected at least 20"):
        TwoStages(two_tower, ranker, candidates=10).evaluate()
    with pytest.raises(TrainingError, match=r"runs/untrained: no trained model"):
        TwoStages(two_tower, trained.experiment(*RANKER, "name=untrained")).evaluate()
    with pytest.raises(TrainingError, match=r"runs/untrained: no trained model"):
        TwoStages(two_tower, trained.experiment(*RANKER, "name=untrained")).export()
    assert not (trained.path / "runs" / "small-with-untrained").exists()
    runs, before = trained.path / "runs", sorted((trained.path / "runs" / "small").glob("bundle/*"))
    for first, second, message in (
        (
            "ranker",
            "ranker",
            "runs/ranker: holds a ranker; expected a two_tower; name them so: TWO_TOWER",
        ),
        ("small", "small", "runs/small: holds a two_tower; expected a ranker"),
        ("small", "nowhere", "nowhere"),
    ):
        assert main(["export", str(runs / first), "--ranker", str(runs / second)]) == 1
        assert message in capsys.readouterr().err
    assert sorted((trained.path / "runs" / "small").glob("bundle/*")) == before


def test_other_data_are_refused(trained: Folder) -> None:
    other = trained.experiment(*RANKER, "name=elsewhere", "data.negatives.at_most=1")
    other.train()
    with pytest.raises(DataError, match=r"runs/elsewhere: its data are prepared otherwise"):
        TwoStages(trained.experiment(*SHARED), other).evaluate()
    with pytest.raises(DataError, match=r"runs/elsewhere: its data are prepared otherwise"):
        TwoStages(trained.experiment(*SHARED), other).export()
