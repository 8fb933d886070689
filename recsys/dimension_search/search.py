"""From an experiment and a promise to the smallest plan that keeps it.

The full model is trained first. Every method then makes a plan for every byte budget, and every plan is trained like
the full model, by the same config. What validation says chooses; what the test part says is reported. All of it stands
in `runs/NAME-search`:

    search.json      the record: trials, frontier, verdicts, costs (`recsys.search.frontier.SearchRecord`)
    frontier.png     bytes against quality
    best/            the chosen plan, for `recsys train --plan`
    plans/TRIAL/     every plan
    runs/            the run directories of all trainings
    optembed/, dnis/ how far these searches are

A search that was killed goes on where it stopped: trained trials are not trained again, plans are not made again.
"""

from __future__ import annotations

import gc
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from recsys._compat import keras
from recsys.config.base import Config
from recsys.dimension_search.dnis import FOLDER as DNIS
from recsys.dimension_search.dnis import SelectionSearch
from recsys.dimension_search.optembed import FOLDER as OPTEMBED
from recsys.dimension_search.optembed import SupernetSearch
from recsys.dimension_search.workshop import Workshop
from recsys.embeddings.plan import EmbeddingPlan, Origin
from recsys.errors import ConfigError
from recsys.evaluation import RunRecord, evaluate_model
from recsys.experiment import Experiment
from recsys.experiment_config import ExperimentConfig
from recsys.files import write_text
from recsys.search import controls
from recsys.search.config import (
    DNISSearch,
    FrequencyCutSearch,
    GradualPruningSearch,
    Int8Search,
    MagnitudeSearch,
    MixedDimSearch,
    MultiplexedSearch,
    OptEmbedSearch,
    SearchMethod,
    UniformSearch,
)
from recsys.search.fields import Field, full_rows, served_bytes, unreachable
from recsys.search.frontier import FULL, Promise, SearchRecord, Trained, Trial, choose, front, verdicts
from recsys.search.picture import frontier_picture
from recsys.search.pruning import GradualPruning

PLANS = "plans"
TRIAL = "trial.json"


@dataclass(frozen=True)
class Progress:
    """How far a search is."""

    doing: str
    done: int
    """Trainings."""
    total: int
    """Trainings that there will be at most."""
    seconds_left: float | None
    """If the others take as long as those that this process has done; None before the first."""


@dataclass(frozen=True)
class _Candidate:
    """A trial before it is trained."""

    name: str
    method: str
    budget: int | None
    bytes: int
    config: ExperimentConfig
    plan: Path | None = None


class _TrainedTrial(Config):
    """`trial.json` in a trial's run directory: what belongs to which config."""

    config_digest: str
    trained: Trained


class DimensionSearch:
    """A search for the smallest tables that serve as well, or for the best within some bytes.

    Args:
        experiment: whose tables are to be smaller. Those with `method: full` and `precision: float32` are searched.
        promise: what the plan has to keep.
        report: is told what is being done.

    Raises:
        ConfigError: the experiment has a plan already, or trains in a cluster.
    """

    def __init__(
        self, experiment: Experiment, promise: Promise, report: Callable[[Progress], object] = lambda progress: None
    ) -> None:
        config = experiment.config
        if config.embeddings.plan is not None:
            raise ConfigError("embeddings.plan", "the tables have a plan already", "full tables", "remove it")
        if config.training.in_cluster:
            expected = "default or mirrored: a search runs in one process"
            raise ConfigError("training.strategy", config.training.strategy, expected)
        self.folder = experiment.folder.parent / f"{config.name}-search"
        """Where everything is."""
        self._shop = Workshop(experiment, self.folder)
        self._promise, self._report = promise, report
        self._seconds, self._done, self._old = 0.0, 0, 0
        self._unreachable: dict[str, str] = {}

    def run(self) -> SearchRecord:
        """Searches, trains, chooses and writes `search.json`, `frontier.png` and `best/`.

        Raises:
            ConfigError: nothing in the experiment can be made smaller; or a method has made plans with other settings.
            DataError: the data cannot be used, or no part of them validates.
            SearchError: no plan keeps the promise; the record is written all the same.
        """
        _ = self._shop.fields  # what is wrong with the data or the tables shows before anything is written
        self._check_settings()
        trials = [self._trained(candidate) for candidate in _distinct(self._candidates())]
        record = self._record(trials)
        try:
            chosen = choose(trials, record.monitor, self._promise)
            record = record.model_copy(update={"chosen": chosen.name})
            self._keep(chosen)
        finally:
            write_text(self.folder / "search.json", record.model_dump_json(indent=2) + "\n")
            frontier_picture(record).savefig(self.folder / "frontier.png")
        return record

    def _check_settings(self) -> None:
        """Plans are made once, so a method that has made some keeps its settings."""
        for method in self._shop.config.search.methods:
            path = self.folder / PLANS / f"{method.kind}.json"
            if not path.exists():
                write_text(path, method.model_dump_json(indent=2) + "\n")
            elif type(method).model_validate_json(path.read_bytes()) != method:
                found = f"other settings than those with which {self.folder} was begun"
                expected, cure = f"those in {path}", "remove the folder, or give the experiment another name"
                raise ConfigError(f"search.methods: {method.kind}", found, expected, cure)

    @cached_property
    def _full_bytes(self) -> int:
        fields = self._shop.fields
        return served_bytes(controls.uniform_width(fields, max(f.dim for f in fields), self._shop.origin(FULL)), fields)

    @property
    def _budgets(self) -> list[int]:
        """In bytes, from the largest on."""
        shares = {round(share * self._full_bytes) for share in self._shop.config.search.sizes}
        return sorted(shares | ({self._promise.budget} if self._promise.budget else set()), reverse=True)

    @property
    def _full(self) -> ExperimentConfig:
        return self._shop.with_tables(FULL, {})

    def _candidates(self) -> Iterator[_Candidate]:
        """The full model, then every method at every size, a method at a time: none before the last is trained."""
        yield _Candidate(FULL, FULL, None, self._full_bytes, self._full)
        for method in self._shop.config.search.methods:
            make = self._maker(method)
            for budget in self._budgets:
                name = f"{method.kind}-{budget}"
                try:
                    yield make(name, budget)
                except ConfigError as error:
                    self._unreachable[name] = str(error)

    def _maker(self, method: SearchMethod) -> Callable[[str, int], _Candidate]:
        """Makes a method's candidate, from its name and budget; ConfigError where it does not get there."""
        shop, fields = self._shop, self._shop.fields
        match method:
            case MultiplexedSearch():
                return lambda name, budget: self._multiplexed(method, name, budget)
            case Int8Search():
                tables = {name: table | {"served_precision": "int8"} for name, table in shop.tables.items()}
                narrow = [replace(field, served="int8") for field in fields]
                origin = shop.origin(method.kind)
                return self._planned(method, lambda _, budget: controls.uniform(narrow, budget, origin), narrow, tables)
            case UniformSearch():
                return self._by_control(method, controls.uniform)
            case FrequencyCutSearch():
                return self._by_control(method, controls.frequency_cut)
            case MixedDimSearch():
                return self._by_control(method, controls.mixed_dim)
            case MagnitudeSearch():
                return self._planned(method, self._largest)
            case GradualPruningSearch():
                return self._planned(method, lambda name, budget: self._pruned(method, name, budget))
            case OptEmbedSearch():
                supernet = SupernetSearch(shop, method, self._tell)
                return self._planned(method, lambda _, budget: supernet.plan(budget))
            case DNISSearch():
                selection = SelectionSearch(shop, method, self._first(self._full), self._tell)
                return self._planned(method, lambda _, budget: selection.plan(budget))

    def _by_control(
        self, method: SearchMethod, control: Callable[[Sequence[Field], int, Origin], EmbeddingPlan]
    ) -> Callable[[str, int], _Candidate]:
        origin = self._shop.origin(method.kind)
        return self._planned(method, lambda _, budget: control(self._shop.fields, budget, origin))

    def _planned(
        self,
        method: SearchMethod,
        plan: Callable[[str, int], EmbeddingPlan],
        fields: Sequence[Field] | None = None,
        tables: Mapping[str, dict[str, Any]] | None = None,
    ) -> Callable[[str, int], _Candidate]:
        """Candidates with the plan for a budget, which is made once; of other fields or tables than the config's."""
        counted = self._shop.fields if fields is None else fields

        def make(name: str, budget: int) -> _Candidate:
            folder = self.folder / PLANS / name
            if not folder.exists():
                self._tell(name)
                plan(name, budget).save(folder)
            made = EmbeddingPlan.load(folder)
            config = self._shop.with_tables(name, tables or {}, plan=folder)
            return _Candidate(name, method.kind, budget, served_bytes(made, counted), config, folder)

        return make

    def _largest(self, name: str, budget: int) -> EmbeddingPlan:
        """Of the full model's rows."""
        fields, model = self._shop.fields, self._first(self._full).trained_model()
        return controls.magnitude(fields, full_rows(fields, model.embeddings), budget, self._shop.origin("magnitude"))

    def _pruned(self, method: GradualPruningSearch, name: str, budget: int) -> EmbeddingPlan:
        """Of a training of its own, of as many epochs as the full model's."""
        pruning = GradualPruning(
            self._shop.fields, budget, every=method.every, damping=method.damping, unit=method.unit
        )
        config = self._shop.with_tables(f"{name}-pruning", {})
        # To the end of the schedule: the epoch that validates best may be an early one, of which little is pruned.
        epochs = len(self._first(self._full).train().history)
        training = config.training.model_copy(update={"epochs": epochs, "early_stopping": None})
        experiment = self._first(config.model_copy(update={"training": training}))
        experiment.add_callback(pruning)
        with self._shop.timed(method.kind):
            experiment.train()
            return pruning.plan(self._shop.origin(method.kind).model_copy(update={"budget": budget}))

    def _multiplexed(self, method: MultiplexedSearch, name: str, budget: int) -> _Candidate:
        """Each searched table with its share of the budget, as rows that its features share."""
        shop, tables, size = self._shop, dict[str, dict[str, Any]](), 0
        for table, entry in shop.tables.items():
            own = sum(field.ids * field.dim for field in shop.fields if field.table == table)
            share = own / sum(field.ids * field.dim for field in shop.fields)
            width = entry["dim"] // method.chunks
            rows = int(budget * share) // (4 * max(width, 1))
            if width * method.chunks != entry["dim"]:
                place, expected = (
                    f"embeddings.tables.{table}.dim",
                    f"a multiple of {method.chunks}, multiplexed's chunks",
                )
                raise ConfigError(place, str(entry["dim"]), expected, "change search.methods.multiplexed.chunks")
            if rows < 1:
                raise unreachable(budget, -(-4 * width // share))
            tables[table] = {"method": "multiplexed", "dim": width, "rows": rows, "optimizer": entry["optimizer"]}
            tables[table]["initializer"] = entry["initializer"]
            size += 4 * width * rows
        features = {
            feature: config.model_dump(mode="json") | {"chunks": method.chunks}
            for feature, config in shop.config.embeddings.features.items()
            if config.table in tables
        }
        config = shop.with_tables(name, tables, features=features)
        return _Candidate(name, method.kind, budget, size, config)

    def _first(self, config: ExperimentConfig) -> Experiment:
        """With the first seed, in which plans are searched."""
        return self._shop.open(self._seeded(config, self._shop.config.seed))

    def _seeded(self, config: ExperimentConfig, seed: int) -> ExperimentConfig:
        return config.model_copy(update={"name": f"{config.name}-seed{seed}", "seed": seed})

    def _trained(self, candidate: _Candidate) -> Trial:
        first = self._shop.config.seed
        seeds = range(first, first + self._shop.config.search.seeds)
        trained = [self._training(candidate, seed) for seed in seeds]
        return Trial(
            name=candidate.name,
            method=candidate.method,
            budget=candidate.budget,
            bytes=candidate.bytes,
            plan=None if candidate.plan is None else str(candidate.plan.relative_to(self.folder)),
            trained=tuple(trained),
        )

    def _training(self, candidate: _Candidate, seed: int) -> Trained:
        """Trains and measures a candidate; what was measured before is read."""
        self._tell(f"{candidate.name}, seed {seed}")
        experiment = self._shop.open(self._seeded(candidate.config, seed))
        path = experiment.folder / TRIAL
        self._done += 1
        if path.exists():
            known = _TrainedTrial.model_validate_json(path.read_bytes())
            if known.config_digest == experiment.digest:
                self._old += 1
                return known.trained
        start = time.monotonic()
        experiment.train()
        record = experiment.evaluate()
        valid = self._validated(experiment)
        seconds = RunRecord.read(experiment.folder / "metrics.json").cost.seconds.get("train", 0.0)
        trained = Trained(seed=seed, valid=valid, test=record.metrics["model"], seconds=seconds)
        known = _TrainedTrial(config_digest=experiment.digest, trained=trained)
        write_text(path, known.model_dump_json(indent=2) + "\n")
        self._seconds += time.monotonic() - start
        del experiment
        keras.backend.clear_session()
        gc.collect()
        return trained

    def _validated(self, experiment: Experiment) -> dict[str, float]:
        """Metrics of the validation part, of the rows as they are served."""
        model, config = experiment.model, experiment.config.evaluation
        served = model.embeddings.serve()
        found = evaluate_model(model, experiment.prepared, "valid", config, validation=True, served=served)
        return found.metrics["model"]

    def _record(self, trials: Sequence[Trial]) -> SearchRecord:
        monitor = self._shop.experiment.monitor
        unit = trials[0].trained[0].seconds or 1.0
        cost: dict[str, float] = defaultdict(float)
        for trial in trials:
            cost[trial.method] += sum(each.seconds for each in trial.trained) / unit
        for method, part in (("optembed", OPTEMBED), ("dnis", DNIS), ("gradual_pruning", "gradual_pruning")):
            if method in cost:
                cost[method] += self._shop.seconds(part) / unit
        return SearchRecord(
            name=self.folder.name,
            config_digest=self._shop.experiment.digest,
            data_digest=self._shop.experiment.prepared.info.digest,
            monitor=monitor,
            promise=self._promise,
            full_bytes=self._full_bytes,
            trials=tuple(trials),
            front=tuple(trial.name for trial in front(trials, monitor)),
            verdicts=tuple(verdicts(trials, monitor)),
            unreachable=self._unreachable,
            training_seconds=unit,
            cost=dict(cost),
        )

    def _keep(self, chosen: Trial) -> None:
        assert chosen.plan is not None
        best = self.folder / "best"
        shutil.rmtree(best, ignore_errors=True)
        EmbeddingPlan.load(self.folder / chosen.plan).save(best)

    def _tell(self, doing: str) -> None:
        search = self._shop.config.search
        total = (1 + len(search.methods) * len(self._budgets)) * search.seeds
        trained = self._done - self._old
        left = self._seconds / trained * (total - self._done) if trained and self._seconds else None
        self._report(Progress(doing, self._done, total, left))


def _distinct(candidates: Iterator[_Candidate]) -> Iterator[_Candidate]:
    """Those that no earlier one of the same method equals: two budgets may lead to one plan."""
    known = set[tuple[str, str]]()
    for candidate in candidates:
        content = (
            candidate.config.training_digest if candidate.plan is None else EmbeddingPlan.load(candidate.plan).digest
        )
        if (candidate.method, content) not in known:
            known.add((candidate.method, content))
            yield candidate
