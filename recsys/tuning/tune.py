"""Hyper-parameters by Optuna: over any keys of an experiment's YAML, by what validation says, and nothing else.

The first trial is the experiment as it stands; further ones are proposed by a tree-structured Parzen estimator
(Bergstra et al., NeurIPS 2011) from those before. Each is an ordinary run directory, which never sees the test
part; one that does worse than the median of the others at the same epoch is ended. All of it stands in
`runs/NAME-tune`:

    tuning.json      the record (`TuningRecord`)
    tuning.png       quality by trial, and which parameters mattered
    optuna.log       Optuna's journal
    runs/trial-N     the run directories

A trial that was killed goes on where it stopped; later ones are proposed as if nothing had happened.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import JsonValue

from recsys._compat import keras
from recsys.config.dialect import dump
from recsys.config.load import load
from recsys.errors import ConfigError, InstallError, Problem, TrainingError
from recsys.experiment import Experiment
from recsys.experiment_config import ExperimentConfig
from recsys.files import write_text
from recsys.run_directory import RunDirectory
from recsys.tuning.picture import tuning_picture
from recsys.tuning.record import TrialRecord, TuningRecord
from recsys.tuning.space import Choice, FloatRange, IntRange, Space, contains

if TYPE_CHECKING:
    import optuna

FIXED = ("name", "seed", "data", "schema", "evaluation", "retrieval", "search")
"""Sections that say what is measured, or that nothing measured here depends on."""
STARTUP = 8
"""Trials at random before the first that is proposed from others, and before the first that may be ended early."""


@dataclass(frozen=True)
class Tried:
    """What is told after each trial."""

    trial: TrialRecord
    best: float | None
    """Quality so far."""


class Tuning:
    """A search for better hyper-parameters.

    Args:
        path: the experiment's YAML.
        space: what is tuned.
        overrides: of the YAML, for all trials.
        runs: where run directories are made.

    Raises:
        ConfigError: a key does not exist or may not be tuned, an end of a range is refused, or the experiment does not
            validate.
        InstallError: Optuna is not installed.
    """

    def __init__(
        self, path: Path | str, space: Space, overrides: Sequence[str] = (), runs: Path = Path("runs")
    ) -> None:
        self._space, self._optuna = space, _load_optuna()
        self._base = Experiment.from_yaml(path, overrides, runs)
        self.folder = runs / f"{self._base.config.name}-tune"
        """Where everything is."""
        if self._base.config.training.early_stopping is None:
            raise ConfigError(
                "training.early_stopping", "null", "set: validation is what trials are compared by", "{patience: 3}"
            )
        self._own = self._own_values()
        for parameter in space.space:
            for end in parameter.ends:
                self._experiment({parameter.name: end}, "ends")  # refuses it, with its place and cure

    def run(
        self, trials: int, hours: float | None = None, report: Callable[[Tried], object] = lambda tried: None
    ) -> TuningRecord:
        """Trains until there are so many trials, or until the time is over; those of an earlier call count.

        Args:
            trials: in all.
            hours: after which no further one is begun.
            report: is told of each.

        Raises:
            DataError: the data cannot be used.
            TrainingError: no trial came to an end.
        """
        study, until = self._study(), time.monotonic() + 3600 * (float("inf") if hours is None else hours)
        while (self._begun(study) or len(self._records(study)) < trials) and time.monotonic() < until:
            record = self._try(study, self._next(study))
            best = max((each.quality for each in self._records(study) if each.quality is not None), default=None)
            report(Tried(record, best))
        return self._record(study)

    def _begun(self, study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
        """A killed trial."""
        return study.get_trials(deepcopy=False, states=(self._optuna.trial.TrialState.RUNNING,))

    def _own_values(self) -> dict[str, JsonValue]:
        """Of the experiment as it stands, by parameter."""
        plain = self._base.config.model_dump(mode="json", by_alias=True)
        problems, found = list[Problem](), dict[str, JsonValue]()
        for parameter in self._space.space:
            for key in parameter.keys:
                if key.partition(".")[0] in FIXED:
                    expected = "a key of embeddings, model or training"
                    problems.append(Problem(f"space: {key}", "may not be tuned", expected, "trials would not compare"))
            value = _at(plain, parameter.name)
            if not contains(parameter, value):
                found_text = f"the experiment's own value, {value!r}, is outside"
                cure = "widen the range, or set another value by --set"
                problems.append(Problem(f"space: {parameter.name}", found_text, f"among {parameter.ends}", cure))
            found[parameter.name] = value
        if problems:
            raise ConfigError(problems)
        return found

    def _experiment(self, values: dict[str, JsonValue], name: str) -> Experiment:
        """The experiment with other values; overrides of its resolved YAML, so that they may be of keys left out."""
        own = [text for each in self._space.space if each.name in values for text in each.overrides(values[each.name])]
        with TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.yaml"
            path.write_text(dump(self._base.config.model_dump(mode="json", by_alias=True)), encoding="utf-8")
            config = load(path, ExperimentConfig, [f"name={name}", *own]).config
        return Experiment(config, self._base.base_dir, self.folder / "runs")

    def _study(self) -> optuna.Study:
        optuna = self._optuna
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check_settings()
        backend = optuna.storages.journal.JournalFileBackend(str(self.folder / "optuna.log"))
        study = optuna.create_study(
            storage=optuna.storages.JournalStorage(backend),
            study_name=self.folder.name,
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=1),
            load_if_exists=True,
        )
        if not study.trials:
            own = {each.name: _to_optuna(each, self._own[each.name]) for each in self._space.space}
            study.enqueue_trial(own)
        return study

    def _check_settings(self) -> None:
        """Trials of another experiment or space are no trials of this one."""
        path, own = self.folder / "space.json", f"{self._base.digest}\n{self._space.model_dump_json()}\n"
        if not path.exists():
            write_text(path, own)
        elif path.read_text(encoding="utf-8") != own:
            found = f"{self.folder} was begun with another experiment or space"
            raise ConfigError(
                str(path), found, "the same ones", "remove the folder, or give the experiment another name"
            )

    def _next(self, study: optuna.Study) -> optuna.Trial:
        """The trial that was killed, if one was; else a new one, proposed by a sampler that knows its number."""
        optuna, begun = self._optuna, self._begun(study)
        if begun:
            return optuna.trial.Trial(study, begun[0]._trial_id)
        done = len(self._records(study))
        seed = int(np.random.default_rng([self._base.config.seed, done]).integers(2**31))
        study.sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP, seed=seed)
        return study.ask({each.name: _distribution(optuna, each) for each in self._space.space})

    def _try(self, study: optuna.Study, trial: optuna.Trial) -> TrialRecord:
        """Trains one, and tells Optuna."""
        states = self._optuna.trial.TrialState
        record = self._trained(trial)
        trial.set_user_attr("record", record.model_dump(mode="json"))
        if record.state == "failed":
            study.tell(trial, state=states.FAIL)
        elif record.state == "pruned":
            study.tell(trial, state=states.PRUNED)
        else:
            study.tell(trial, record.quality)
        keras.backend.clear_session()
        gc.collect()
        return record

    def _trained(self, trial: optuna.Trial) -> TrialRecord:
        values = {each.name: _from_optuna(each, trial.params[each.name]) for each in self._space.space}
        record = TrialRecord(number=trial.number, values=values, state="failed", quality=None)
        try:
            experiment = self._experiment(values, f"trial-{trial.number}")
            watch = _Watch(trial, experiment.monitor)
            experiment.add_callback(watch)
            history = experiment.train().history
        except (ConfigError, TrainingError) as error:  # sound by themselves, but not together; or no finite loss
            return record.model_copy(update={"error": str(error)})
        return record.model_copy(
            update={
                "state": "pruned" if watch.state["pruned"] else "complete",
                "quality": max(logs[watch.metric] for logs in history if watch.metric in logs),
                "epochs": len(history),
                "seconds": RunDirectory(experiment.folder).seconds().get("train", 0.0),
            }
        )

    def _records(self, study: optuna.Study) -> list[TrialRecord]:
        found = [each.user_attrs["record"] for each in study.trials if "record" in each.user_attrs]
        return [TrialRecord.model_validate(each) for each in found]

    def _record(self, study: optuna.Study) -> TuningRecord:
        trials = self._records(study)
        complete = [each for each in trials if each.state == "complete"]
        if not complete:
            errors = next((each.error for each in trials if each.error), "none was begun")
            raise TrainingError(str(self.folder), f"no trial came to an end: {errors}", "one that does")
        best = max(complete, key=lambda each: (each.quality or 0.0, -each.number))
        record = TuningRecord(
            name=self.folder.name,
            config_digest=self._base.digest,
            data_digest=self._base.prepared.info.digest,
            monitor=self._base.monitor,
            trials=tuple(trials),
            best=best.number,
            importance=self._importance(study) if len(complete) > STARTUP else {},
            changed={
                key: best.values[each.name]
                for each in self._space.space
                for key in each.keys
                if best.values[each.name] != self._own[each.name]
            },
        )
        write_text(self.folder / "tuning.json", record.model_dump_json(indent=2) + "\n")
        tuning_picture(record).savefig(self.folder / "tuning.png")
        return record

    def run_of(self, trial: int) -> Path:
        """The run directory of a trial, which can be evaluated and exported as any other."""
        return self.folder / "runs" / f"trial-{trial}"

    def _importance(self, study: optuna.Study) -> dict[str, float]:
        evaluator = self._optuna.importance.PedAnovaImportanceEvaluator()
        found = self._optuna.importance.get_param_importances(study, evaluator=evaluator)
        return {name: float(value) for name, value in found.items() if np.isfinite(value)}


class _Watch(keras.callbacks.Callback):
    """Tells Optuna of each epoch, and ends a training that it gives up; that is part of the checkpoint."""

    def __init__(self, trial: optuna.Trial, monitor: str) -> None:
        super().__init__()
        self._trial, self.metric = trial, f"val_{monitor}"
        self.state: dict[str, Any] = {"pruned": False}

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """After validation."""
        value = (logs or {}).get(self.metric)
        if value is None:
            return
        self._trial.report(value, epoch)
        if self._trial.number and self._trial.should_prune() and not self.model.stop_training:
            self.state = {"pruned": True}
            self.model.stop_training = True


def _at(plain: dict[str, Any], key: str) -> Any:
    """The value at a dotted key.

    Raises:
        ConfigError: there is none.
    """
    found: Any = plain
    for part in key.split("."):
        if isinstance(found, list) and part.isdigit() and int(part) < len(found):
            found = found[int(part)]
        elif isinstance(found, dict) and part in found:
            found = found[part]
        else:
            known = sorted(found) if isinstance(found, dict) else []
            expected = f"one of {', '.join(known)}" if known else "a key that the experiment has"
            raise ConfigError(
                f"space: {key}", f"no key {part!r}", expected, "recsys config show CONFIG prints all keys"
            )
    return found


def _distribution(optuna: Any, parameter: FloatRange | IntRange | Choice) -> Any:
    match parameter:
        case FloatRange():
            return optuna.distributions.FloatDistribution(parameter.low, parameter.high, log=parameter.log)
        case IntRange():
            return optuna.distributions.IntDistribution(parameter.low, parameter.high, log=parameter.log)
        case Choice():
            return optuna.distributions.CategoricalDistribution([json.dumps(value) for value in parameter.values])


def _to_optuna(parameter: FloatRange | IntRange | Choice, value: JsonValue) -> Any:
    """Choices are texts there, for it knows no lists."""
    return json.dumps(value) if isinstance(parameter, Choice) else value


def _from_optuna(parameter: FloatRange | IntRange | Choice, value: Any) -> JsonValue:
    return json.loads(value) if isinstance(parameter, Choice) else value


def _load_optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        cure = "pip install 'optuna>=4.2', or make environment EXTRAS=tune"
        raise InstallError("recsys tune", "Optuna is not installed", "the extra `tune`", cure) from error
    return optuna
