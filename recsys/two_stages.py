"""Two experiments as one: the first retrieves, the second ranks what it found."""

from __future__ import annotations

from pathlib import Path

from recsys.config.base import Config
from recsys.config.digest import digest
from recsys.errors import ConfigError
from recsys.evaluation.leakage import refuse_leaks
from recsys.evaluation.record import Cost, Environment, RunRecord, peak_memory_mib
from recsys.evaluation.summary import summarize, write_evaluation
from recsys.evaluation.two_stage import CANDIDATES, evaluate_two_models, must_share_data
from recsys.experiment import Experiment
from recsys.models.ranker import Ranker
from recsys.models.two_tower import TwoTower


class _Identity(Config):
    """All that the numbers depend on beside the data."""

    retriever: str
    ranker: str
    candidates: int


class TwoStages:
    """A retriever's and a ranker's experiments, both trained on the same prepared data.

    Args:
        retriever: a two_tower's; its `evaluation` and `retrieval` sections count.
        ranker: a ranker's.
        candidates: how many items are retrieved for each user, and ranked.

    Raises:
        ConfigError: one of them is of the other kind.
    """

    def __init__(self, retriever: Experiment, ranker: Experiment, candidates: int = CANDIDATES) -> None:
        for experiment, kind in ((retriever, "two_tower"), (ranker, "ranker")):
            if experiment.config.model.kind != kind:
                found = f"holds a {experiment.config.model.kind}"
                raise ConfigError(str(experiment.folder), found, f"a {kind}", "name them so: TWO_TOWER --ranker RANKER")
        self._retriever, self._ranker, self._candidates = retriever, ranker, candidates
        self.name = f"{retriever.config.name}-with-{ranker.config.name}"
        self.folder: Path = retriever.folder.parent / self.name
        """Where the results are, as of a run: `recsys compare` takes it."""

    def evaluate(self) -> RunRecord:
        """Evaluates both together, as they would be served, on the test part.

        Raises:
            ConfigError: there are fewer candidates than the largest cut-off.
            DataError: they were prepared differently, or the data tell of the future.
            ExportError: a table cannot be stored as it is to be served.
            TrainingError: one of them is not trained.
        """
        retriever, ranker, config = self._retriever, self._ranker, self._retriever.config
        first, second = self._trained()
        prepared = retriever.prepared
        leaks = refuse_leaks(prepared, config.evaluation.leakage)
        index = config.retrieval.index
        found = evaluate_two_models(first, second, prepared, "test", config.evaluation, index, self._candidates)
        identity = _Identity(retriever=retriever.digest, ranker=ranker.digest, candidates=self._candidates)
        record = RunRecord(
            name=self.name,
            config_digest=digest(identity),
            data_digest=prepared.info.digest,
            seed=config.seed,
            environment=Environment.here(),
            counts={**prepared.info.counts.model_dump(), **found.counts, "candidates": self._candidates},
            cost=Cost(seconds={}, peak_memory_mib=peak_memory_mib()),
            **summarize(found, config.evaluation, None, leaks),
        )
        write_evaluation(self.folder, record, found)
        return record

    def export(self) -> Path:
        """Exports both as the retriever's next bundle, which retrieves and ranks; returns its folder.

        Raises:
            DataError: they were prepared differently.
            TrainingError: one of them is not trained.
            BundleError, ExportError: as `Experiment.export` says.
        """
        from recsys.export import RankingStage

        _, second = self._trained()
        return self._retriever.export(RankingStage(second, self._ranker.provenance()))

    def _trained(self) -> tuple[TwoTower, Ranker]:
        """Both models, of one prepared data set."""
        first, second = self._retriever.trained_model(), self._ranker.trained_model()
        assert isinstance(first, TwoTower)
        assert isinstance(second, Ranker)
        must_share_data(str(self._ranker.folder), self._retriever.prepared.info, self._ranker.prepared.info)
        return first, second
