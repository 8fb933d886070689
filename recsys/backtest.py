"""Rolling retrain windows: one experiment, as if it had been run at several moments of the past.

Window w of W is the experiment on the log up to its own moment: it trains on what came before, validates, and is tested
on the events that came next; what came later is held back (`data.split.held_back`). The test parts of the windows
follow each other without gap or overlap, and the last one's is that of the experiment itself. Each window is an
ordinary run directory, NAME-window-w; NAME-backtest pools them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from recsys.data.config import SHARE_DIGITS, TemporalSplit
from recsys.errors import ConfigError, DataError, Problem
from recsys.evaluation.backtest_record import BACKTEST, BacktestRecord, WindowRecord
from recsys.evaluation.comparison import hold_against
from recsys.evaluation.evidence import MODEL, Measured, evidence_path
from recsys.evaluation.pooled import pool
from recsys.evaluation.record import RunRecord
from recsys.evaluation.summary import headline, ranges_of
from recsys.experiment import Experiment
from recsys.experiment_config import ExperimentConfig
from recsys.files import write_text


class Backtest:
    """An experiment at several moments of the past.

    Args:
        experiment: with a temporal split; its windows' run directories are made beside its own.
        windows: how many, at least 2.
        warm_start: whether each window starts with the weights of the one before, as production may retrain; the
            first one starts from scratch.

    Raises:
        ConfigError: the experiment cannot be taken back in time, or not so far; a problem for each reason.
    """

    def __init__(self, experiment: Experiment, windows: int, warm_start: bool = False) -> None:
        problems = list(_problems(experiment.config, windows))
        if problems:
            raise ConfigError(problems)
        self._experiment = experiment
        self._runs = experiment.folder.parent
        self._warm_start = warm_start
        self.folder = self._runs / f"{experiment.config.name}-backtest"
        """Where the pooled results are."""
        self.configs = [self._config(number, windows) for number in range(1, windows + 1)]
        """Of the windows' experiments, oldest first."""

    def run(self, evaluate: Callable[[Experiment], object] | None = None) -> BacktestRecord:
        """Trains and evaluates every window, and pools them.

        A window that is evaluated already is not done again, and one that was killed goes on where it stopped. All are
        prepared before the first is trained, so that what is wrong with any of them shows at once.

        Args:
            evaluate: trains and evaluates one experiment, in place of its own two methods: to show progress.

        Raises:
            DataError: the log has not enough events for so many windows, or cannot be used.
            TrainingError: a window's run directory belongs to another experiment.
        """
        self.prepare()
        for config in self.configs:
            window = self._open(config)
            if not _is_evaluated(window):
                (evaluate or _train_and_evaluate)(window)
        return self._pool()

    def prepare(self) -> None:
        """Prepares the data of every window.

        Raises:
            DataError, TrainingError: as `run` does.
        """
        _ = self._open(self.configs[-1]).prepared  # what is wrong with the data themselves, said as always
        for config in self.configs:
            try:
                self._open(config).prepare()
            except DataError as error:
                found = [(f"{config.name} ({each.place})", each) for each in error.problems]
                cure = "fewer --windows"
                raise DataError(
                    Problem(place, each.found, each.expected, f"{cure}, or {each.cure}" if each.cure else cure)
                    for place, each in found
                ) from error

    def _config(self, number: int, windows: int) -> ExperimentConfig:
        config = self._experiment.config
        data, training = config.data, config.training
        assert isinstance(data.split, TemporalSplit)
        later = round((windows - number) * data.split.test, SHARE_DIGITS)
        split = data.split.model_copy(update={"held_back": later or None})
        if self._warm_start and number > 1:
            earlier = (self._runs / _name(config, number - 1)).resolve()
            start = os.path.relpath(earlier, self._experiment.base_dir)
            training = training.model_copy(update={"warm_start": start})
        return config.model_copy(
            update={
                "name": _name(config, number),
                "data": data.model_copy(update={"split": split}),
                "training": training,
            }
        )

    def _open(self, config: ExperimentConfig) -> Experiment:
        """Anew each time: an experiment holds its data and its model in memory."""
        return Experiment(config, self._experiment.base_dir, self._runs)

    def _pool(self) -> BacktestRecord:
        config = self._experiment.config
        windows = [self._open(each) for each in self.configs]
        records = [RunRecord.read(window.folder / "metrics.json") for window in windows]
        names = [name for name in records[0].metrics if all(name in record.metrics for record in records)]
        pooled = {
            name: pool([Measured.read(evidence_path(window.folder, name)) for window in windows]) for name in names
        }
        record = BacktestRecord(
            name=self.folder.name,
            config_digest=self._experiment.digest,
            data_digest=pooled[MODEL].data_digest,
            warm_start=self._warm_start,
            monitor=self._experiment.monitor,
            timestamp_unit=config.table_schema.timestamp_unit,
            windows=tuple(map(_window_record, windows, records)),
            ranges={name: ranges_of(each.whole) for name, each in pooled.items()},
            differences=tuple(hold_against(MODEL, pooled, headline(pooled[MODEL].whole, config.evaluation))),
        )
        for name, measured in pooled.items():
            measured.write(evidence_path(self.folder, name))
        write_text(self.folder / BACKTEST, record.model_dump_json(indent=2) + "\n")
        return record


def _name(config: ExperimentConfig, number: int) -> str:
    return f"{config.name}-window-{number}"


def _problems(config: ExperimentConfig, windows: int) -> Iterator[Problem]:
    split, training = config.data.split, config.training
    if windows < 2:
        yield Problem("--windows", str(windows), "at least 2", "for one window: recsys run")
    if not isinstance(split, TemporalSplit):
        yield Problem(
            "data.split.kind", split.kind, "temporal", "windows are cut by time: --set data.split.kind=temporal"
        )
    elif split.held_back is not None:
        cure = "leave it out; windows before the last one hold back what comes after them"
        yield Problem("data.split.held_back", f"{split.held_back:g}", "nothing held back", cure)
    elif round(split.valid + windows * split.test, SHARE_DIGITS) >= 1:
        found = f"{windows} windows, which test {windows * split.test:g} of the events and validate {split.valid:g}"
        yield Problem("--windows", found, "something left to train on", "fewer windows, or lower data.split.test")
    if training.warm_start is not None:
        cure = "leave it out; with --warm-start each window starts from the one before"
        found = f"{training.warm_start}, which may know what comes after the older windows"
        yield Problem("training.warm_start", found, cure=cure)
    if training.in_cluster:
        yield Problem("training.strategy", training.strategy, "default or mirrored", "a backtest runs in one process")
    if config.evaluation.champion is not None:
        cure = "leave it out; compare two backtests: recsys compare runs/A-backtest runs/B-backtest"
        yield Problem("evaluation.champion", "was measured on other data than the windows'", cure=cure)


def _train_and_evaluate(window: Experiment) -> None:
    window.train()
    window.evaluate()


def _is_evaluated(window: Experiment) -> bool:
    """By this config, on these data."""
    try:
        record = RunRecord.read(window.folder / "metrics.json")
        measured = Measured.read(evidence_path(window.folder, MODEL))
    except DataError:
        return False
    return record.config_digest == window.digest and measured.data_digest == window.prepared.info.digest


def _window_record(window: Experiment, record: RunRecord) -> WindowRecord:
    times = window.prepared.examples("test", ["time"])["time"].to_numpy()
    return WindowRecord(
        name=record.name,
        first=int(times.min()),
        last=int(times.max()),
        users=len(Measured.read(evidence_path(window.folder, MODEL)).whole.users),
        metrics=record.metrics,
        warnings=record.warnings,
    )
