"""One experiment: the way from raw events to a bundle, by one YAML file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.config.dialect import dump
from recsys.config.digest import digest
from recsys.config.load import load
from recsys.embeddings.plan_fit import fitting_plan
from recsys.errors import ConfigError, TrainingError
from recsys.experiment_config import ExperimentConfig
from recsys.files import write_text
from recsys.learned_from import LearnedFrom
from recsys.models.config import RankerConfig, TwoTowerConfig
from recsys.run_directory import Origin, RunDirectory
from recsys.tracking.mlflow import check_mlflow, log_evaluation, log_file

if TYPE_CHECKING:
    from recsys._compat import keras
    from recsys.data.dataset import Part
    from recsys.data.prepared import Prepared
    from recsys.data.reader import Examples
    from recsys.data.sequences import Sequences
    from recsys.evaluation import Champion, RunRecord
    from recsys.evaluation.explanation import Explanation
    from recsys.evaluation.inspection import Inspection
    from recsys.export import Provenance, RankingStage
    from recsys.models.base import EmbeddingModel
    from recsys.training.checkpoints import Checkpoints, Position
    from recsys.training.warm_start import WarmStart


class Experiment:
    """An experiment and its run directory, `runs/NAME`.

    Args:
        config: the whole configuration.
        base_dir: the folder that relative paths in `data.source` start from.
        runs: where run directories are made.
        callbacks: Keras callbacks beside those that the config asks for.

    Raises:
        ConfigError, DataError: the plan that the config names does not fit it, or cannot be read.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        base_dir: Path = Path(),
        runs: Path = Path("runs"),
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> None:
        self.config = config
        self.base_dir = base_dir.resolve()
        self._directory = RunDirectory(runs / config.name)
        self._plan = fitting_plan(config.embeddings.at(self.base_dir), config.table_schema)
        self.digest = self._with_plan(digest(config))
        self._training_digest = self._with_plan(config.training_digest)
        self._callbacks = list(callbacks)

    @property
    def folder(self) -> Path:
        """The run directory."""
        return self._directory.path

    @property
    def monitor(self) -> str:
        """The validation metric that decides about early stopping."""
        return self.config.evaluation.monitor if isinstance(self.config.model, TwoTowerConfig) else "auc"

    @property
    def recommends(self) -> bool:
        """Whether the bundle can answer requests for recommendations; a ranker's scores given pairs."""
        return isinstance(self.config.model, TwoTowerConfig)

    def add_callback(self, callback: keras.callbacks.Callback) -> None:
        """One more Keras callback for the training to come."""
        self._callbacks.append(callback)

    @classmethod
    def from_yaml(cls, path: Path | str, overrides: Sequence[str] = (), runs: Path = Path("runs")) -> Experiment:
        """From a YAML file, or from a run directory that an earlier command made.

        Raises:
            ConfigError: with a problem for each mistake in the file; or a folder that is no run directory.
        """
        path = Path(path)
        if runs.exists() and not runs.is_dir():
            raise ConfigError(str(runs), "is a file", "a folder for run directories", "name another one by --runs")
        if not path.is_dir():
            return cls(load(path, ExperimentConfig, overrides).config, path.parent, runs)
        directory = RunDirectory(path)  # it may have been renamed
        origin = directory.origin()
        if origin is None:
            raise ConfigError(str(path), "no run directory", "a run directory or a YAML file", "recsys run CONFIG.yaml")
        experiment = cls(load(path / "config.yaml", ExperimentConfig, overrides).config, Path(origin.base_dir))
        experiment._directory = directory
        return experiment

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run directory; in a cluster one member does."""
        if not self.config.training.in_cluster:
            return True
        from recsys.training.strategies import is_chief

        return is_chief(self.config.training)

    def join_cluster(self) -> None:
        """Takes this process's place in the cluster that `training.strategy` asks for, if it asks for one.

        It comes first: `multi_worker` has to be set up before anything else runs TensorFlow. Workers and servers of a
        parameter-server cluster stay here until they are ended.

        Raises:
            ConfigError: TF_CONFIG is missing or unsound.
        """
        if self.config.training.in_cluster:
            from recsys.training.strategies import serve_if_remote

            serve_if_remote(self.config.training)
            _ = self._strategy

    def prepare(self) -> Prepared:
        """The prepared data set, from the cache or made now; `prepared` in the run directory points to it."""
        self._directory.check(self._training_digest)
        self._learned_from.earlier()  # what is wrong with it shows before the data are prepared
        with self._timed("prepare"):
            prepared = self.prepared
            if self.is_chief:
                self._claim()
        if self.is_chief:
            self._directory.link("prepared", prepared.path)
        return prepared

    def train(self) -> Position:
        """Trains, or goes on where a killed process stopped; `model` then holds the best weights.

        Raises:
            ConfigError: the run `training.warm_start` is none, or does not fit this experiment.
            InstallError: MLflow is asked for and missing.
            TrainingError: the loss is not finite, or the run directory belongs to another experiment.
        """
        from recsys.training import fit

        if self.config.tracking.mlflow is not None:
            check_mlflow()
        self.join_cluster()
        self.prepare()
        with self._timed("train"):
            validated: tuple[Part, ...] = ("valid",) if self.config.training.early_stopping else ()
            self._check_labels("train", *validated)
            _ = self._leaks, self._champion  # what is wrong with them shows before hours are spent
            _ = self.warm_started
            self._learned_from.teach(self.model, self.prepared)
            position = fit(
                self.model, self._examples, self.config.training, self._checkpoints, self._strategy, self._listeners()
            )
        self._restore_best(position)
        return position

    def evaluate(self) -> RunRecord:
        """Evaluates the trained model, as it would be served, on the test part beside its baselines and its champion,
        and writes `metrics.json`, and for `recsys compare` the values of each user.

        In a cluster, for the chief alone; so is `export`.

        Raises:
            DataError: the data tell of the future, or the champion was measured on other data.
            ExportError: a table cannot be stored as it is to be served.
            InstallError: MLflow is asked for and missing.
            TrackingError: MLflow's store cannot be reached; the record is written all the same.
            TrainingError: there is no trained model in the run directory.
        """
        from recsys.evaluation import Cost, Environment, RunRecord, evaluate_model, peak_memory_mib, summarize
        from recsys.evaluation.summary import write_evaluation

        if self.config.tracking.mlflow is not None:
            check_mlflow()
        self._load_trained()
        config, info = self.config.evaluation, self.prepared.info
        with self._timed("evaluate"):
            self._check_labels("test")
            leaks = self._leaks
            served = self.model.embeddings.serve()
            result = evaluate_model(self.model, self.prepared, "test", config, served=served)
            findings = summarize(result, config, self._champion, leaks)
        record = RunRecord(
            name=self.config.name,
            config_digest=self.digest,
            data_digest=self._data_digest,
            seed=self.config.seed,
            environment=Environment.here(),
            counts={**info.counts.model_dump(), **result.counts, **self.model.sizes()},
            cost=Cost(seconds=self._directory.seconds(), peak_memory_mib=peak_memory_mib()),
            history=tuple(self._checkpoints.position.history),
            **findings,
        )
        self._claim()
        write_evaluation(self.folder, record, result)
        if self.config.tracking.mlflow is not None:
            values = self.config.model_dump(mode="json", by_alias=True)
            log_evaluation(self.config.tracking.mlflow, self.folder, record, values)
        return record

    def track(self, path: Path) -> None:
        """Puts a file beside the run where `tracking` keeps it; does nothing where it is not told of the run.

        Raises:
            InstallError: MLflow is asked for and missing.
            TrackingError: the store cannot be reached, or refuses.
        """
        if self.config.tracking.mlflow is not None:
            log_file(self.config.tracking.mlflow, self.folder, path)

    @cached_property
    def _champion(self) -> Champion | None:
        from recsys.evaluation import Champion

        path = self.config.evaluation.champion
        if path is None:
            return None
        return Champion.read(self.base_dir / path, self.prepared.info.digest, self.monitor)

    def _check_labels(self, *parts: Part) -> None:
        """All labels, and those of a ranker's `parts`, which need both."""
        from recsys.evaluation.labels import check_labels

        check_labels(self.prepared, both=parts if isinstance(self.config.model, RankerConfig) else ())

    @cached_property
    def _leaks(self) -> tuple[str, ...]:
        from recsys.evaluation.leakage import refuse_leaks

        return refuse_leaks(self.prepared, self.config.evaluation.leakage)

    def trained_model(self) -> EmbeddingModel:
        """The model with the weights that the training ended with.

        Raises:
            TrainingError: there is no trained model in the run directory.
        """
        self._load_trained()
        return self.model

    def export(self, ranker: RankingStage | None = None) -> Path:
        """Exports the trained model as the next bundle; returns its folder.

        Args:
            ranker: what is to put in order what a two_tower finds (`TwoStages.export`).

        Raises:
            BundleError: the bundle that the vectors are to be aligned to cannot be used.
            ExportError: a table cannot be stored as it is to be served, or the index does not keep its promise.
            TrainingError: there is no trained model in the run directory.
        """
        from recsys.bundle import Bundle
        from recsys.export import export_ranker, export_two_tower
        from recsys.export.complements import make_complements
        from recsys.models.ranker import Ranker
        from recsys.models.two_tower import TwoTower

        self._load_trained()
        model, prepared, bundles = self.model, self.prepared, self.folder / "bundle"
        provenance = self.provenance()
        if isinstance(model, Ranker):
            folder = export_ranker(model, prepared, bundles, provenance)
        else:
            assert isinstance(model, TwoTower)
            asked, align_to = self.config.complements, self.config.retrieval.align_to
            beside = None if asked is None else make_complements(prepared, asked, self.config.seed)
            earlier = None if align_to is None else Bundle.load(self.base_dir / align_to)
            retrieval = self.config.retrieval
            folder = export_two_tower(model, prepared, retrieval, bundles, provenance, beside, earlier, ranker)
        self._claim()
        return folder

    def provenance(self) -> Provenance:
        """What a bundle says of where it comes from: this experiment, and its test metrics, if it was evaluated."""
        from recsys.evaluation import RunRecord
        from recsys.export import Provenance

        path = self.folder / "metrics.json"
        metrics = RunRecord.read(path).metrics["model"] if path.exists() else {}
        return Provenance(self.config.name, self.digest, metrics)

    def inspect(self) -> Inspection:
        """Measures the trained model's tables, and writes `inspect/tables.json`.

        Raises:
            TrainingError: there is no trained model in the run directory.
        """
        from recsys.embeddings.health_record import TABLES, HealthRecord
        from recsys.evaluation.inspection import inspect_model

        self._load_trained()
        initial = None
        if self.config.training.warm_start is None:  # what it started with may be gone
            untrained = self._new_model()
            untrained.example_losses(self._examples.sample(), training=False)
            initial = untrained.embeddings
        found = inspect_model(self.model, self.prepared, self._checkpoints.table_bytes(), initial)
        record = HealthRecord(config_digest=self.digest, tables=found.tables)
        write_text(self.folder / TABLES, record.model_dump_json(indent=1) + "\n")
        return found

    def explain(
        self, part: Part = "test", *, examples: int = 5, user: str | None = None, item: str | None = None
    ) -> Explanation:
        """Where the trained ranker looks, in the mean over a part and for its first examples (of a user, on an item).

        Raises:
            ConfigError: the model has no layer that weighs fields or events.
            DataError: there is no such example.
            TrainingError: there is no trained model in the run directory.
        """
        from recsys.evaluation.explanation import explain_model

        self._load_trained()
        return explain_model(self.model, self.prepared, part, examples=examples, user=user, item=item)

    def run(self) -> Path | None:
        """Prepares, trains, evaluates and exports; returns the bundle's folder.

        None in members of a cluster that are not its chief: those only prepare and train.
        """
        self.train()
        if not self.is_chief:
            return None
        self.evaluate()
        return self.export()

    @cached_property
    def prepared(self) -> Prepared:
        """The prepared data set."""
        from recsys.data.prepare import prepare
        from recsys.data.prepared import Prepared
        from recsys.data.sources import resolve

        data = self.config.data
        return Prepared(prepare(self.config.name, data, self.config.table_schema, resolve(data.source, self.base_dir)))

    @cached_property
    def _data_digest(self) -> str:
        """Of the prepared data, and of the given vectors beside them."""
        from recsys.embeddings.given import digest_with_given

        return digest_with_given(self.config.embeddings.at(self.base_dir), self.prepared.info.digest)

    @cached_property
    def model(self) -> EmbeddingModel:
        """The model, compiled and built, with initial weights until `train`, `evaluate` or `export` loads others."""
        from recsys.embeddings.optimizers import TableOptimizers
        from recsys.embeddings.training_rows import training_rows
        from recsys.models.precision import made_for
        from recsys.training.optimizers import make_dense_optimizer
        from recsys.training.schedule import learning_rates

        config = self.config
        rates = learning_rates(config.training.schedule, config.training.epochs * self._examples.steps_per_epoch)
        with self._strategy.scope(), made_for(config.training.precision):
            model = self._new_model()
            rows = training_rows(model.embeddings, self._examples.once())
            model.compile(
                TableOptimizers.of(config.embeddings, rows, rates),
                make_dense_optimizer(config.training.dense_optimizer, rates),
                self._examples.examples_per_step,
                config.training.clip_norm,
                config.training.xla,
            )
            model.build_from(self._examples.sample())
        return model

    def _new_model(self) -> EmbeddingModel:
        """With initial weights, as soon as it is built."""
        from recsys.data.catalogue import Catalogue
        from recsys.embeddings.tables import Vocabularies
        from recsys.models.build import make_model

        prepared = self.prepared
        return make_model(
            self.config.model,
            self.config.embeddings.at(self.base_dir),
            prepared.info.inputs,
            Catalogue.of(prepared),
            self.config.seed,
            Vocabularies(prepared.frequencies, prepared.vocabulary),
            prepared.info.known_labels,
        )

    @cached_property
    def warm_started(self) -> WarmStart | None:
        """What the model has taken over from the run `training.warm_start`, if there is one; None once the run has a
        checkpoint, which says where training goes on.

        Raises:
            ConfigError: there is no such run, or it does not fit this experiment.
            TrainingError: it has no trained model.
        """
        from recsys.training.warm_start import Known, warm_start

        earlier = self._learned_from.earlier()
        if earlier is None:
            return None
        known = Known(earlier.trained_model(), earlier.prepared.vocabulary)
        return warm_start(Known(self.model, self.prepared.vocabulary), known)

    @property
    def _learned_from(self) -> LearnedFrom:
        def open_run(folder: Path) -> Experiment:
            from recsys.data.prepared import Prepared

            run = Experiment.from_yaml(folder, ["training.strategy=default"])
            run.prepared = Prepared(folder / "prepared")  # its raw files may have changed since
            return run

        return LearnedFrom(self.config, self.base_dir, self._directory, open_run)

    @cached_property
    def _examples(self) -> Examples | Sequences:
        from recsys.data.reader import Examples
        from recsys.data.sequences import Sequences

        config = self.config
        if config.training.examples == "sequences":
            return Sequences(self.prepared, config.training.batch_size, config.seed)
        positives_only = isinstance(config.model, TwoTowerConfig)  # its negatives are the batch's other items
        return Examples(self.prepared, "train", config.training.batch_size, config.seed, positives_only)

    @cached_property
    def _strategy(self) -> Any:
        from recsys.training import make_strategy

        return make_strategy(self.config.training)

    @cached_property
    def _checkpoints(self) -> Checkpoints:
        from recsys.training import Checkpoints

        return Checkpoints(self.folder / "checkpoints", self.model, self.is_chief)

    def _listeners(self) -> list[keras.callbacks.Callback]:
        from recsys.evaluation import evaluate_model
        from recsys.training.callbacks import standard_callbacks
        from recsys.training.mining import Mining
        from recsys.training.rank import VectorRank

        def validate() -> dict[str, float]:
            found = evaluate_model(self.model, self.prepared, "valid", self.config.evaluation, validation=True)
            return found.metrics["model"]

        logs = self.folder / "logs" if self.is_chief else None
        measures = [VectorRank(self.prepared)] if self.recommends else []
        found = standard_callbacks(
            self.config.training, self.monitor, validate, self._checkpoints.save_best, logs, measures
        )
        if self.config.mined is not None:
            found.append(Mining(self.config.mined, self.prepared, self.config.seed))
        return found + self._callbacks

    def _timed(self, stage: str) -> AbstractContextManager[None]:
        return self._directory.timed(stage) if self.is_chief else nullcontext()

    def _load_trained(self) -> None:
        if not self._directory.is_trained:
            raise TrainingError(str(self.folder), "no trained model", "a checkpoint", "train it first: recsys train")
        self._directory.check(self._training_digest)  # before another config's data are prepared
        self._directory.check(self._training_digest, self._data_digest)
        position = self._checkpoints.position
        if not position.finished:
            self._checkpoints.restore()
        if not position.finished:
            raise TrainingError(
                str(self.folder),
                f"training stopped in epoch {position.epoch + 1}",
                "a finished training",
                "recsys train goes on from there",
            )
        self._restore_best(position)

    def _with_plan(self, own: str) -> str:
        """A digest of the config, and of what the plan holds, wherever it stands."""
        return own if self._plan is None else hashlib.sha256(f"{own} {self._plan.digest}".encode()).hexdigest()

    def _restore_best(self, position: Position) -> None:
        best = position.callbacks.get("EarlyStopping", {}).get("name")
        if best is not None:
            self._checkpoints.restore_best(best)

    def _claim(self) -> None:
        """Makes the run directory this experiment's."""
        learned_from = self._learned_from.identities()
        origin = Origin(
            base_dir=str(self.base_dir),
            training_digest=self._training_digest,
            data_digest=self._data_digest,
            warm_start=learned_from.warm_start,
            teacher=learned_from.teacher,
        )
        self._directory.claim(origin, dump(self.config.model_dump(mode="json", by_alias=True)))
