"""Tuning on a small log: what is tried first, what a killed one does again, what never happens to the test part."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from recsys.cli import main
from recsys.errors import ConfigError, InstallError
from recsys.experiment import Experiment
from recsys.tuning import Space, Tried, Tuning, TuningRecord, read_space
from tests.documented import blocks
from tests.test_dimension_search import write_tiny

ROOT = Path(__file__).parents[2]

SPACE = """\
space:
  - kind: float
    keys: [embeddings.optimizer.learning_rate, training.dense_optimizer.learning_rate]
    low: 1.0e-5
    high: 0.1
    log: true
  - {keys: [model.mlp.hidden], kind: choice, values: [[8], [16, 8], []]}
  - {keys: [training.batch_size], kind: int, low: 128, high: 512}
"""
STOPPING = ["training.early_stopping={patience: 2}", "training.epochs=3"]
TRIALS = 4


@dataclass(frozen=True)
class Done:
    """A search that was cut off inside its third trial and then run again, and one that was not."""

    yaml: Path
    folder: Path
    record: TuningRecord
    undisturbed: TuningRecord


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("tuning")
    yaml = write_tiny(folder)
    (folder / "space.yaml").write_text(SPACE)
    space = read_space(folder / "space.yaml")
    undisturbed = Tuning(yaml, space, STOPPING, folder / "other").run(TRIALS)
    told = list[Tried]()

    def cut_off(tried: Tried) -> None:
        told.append(tried)
        if len(told) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Tuning(yaml, space, STOPPING, folder / "runs").run(TRIALS, report=cut_off)
    train, killed = Experiment.train, list[str]()

    def kill_third(self: Experiment) -> Any:
        killed.append(self.config.name)
        raise KeyboardInterrupt

    Experiment.train = kill_third  # type: ignore[method-assign]
    try:
        with pytest.raises(KeyboardInterrupt):
            Tuning(yaml, space, STOPPING, folder / "runs").run(TRIALS)
    finally:
        Experiment.train = train  # type: ignore[method-assign]
    assert killed == ["trial-2"]
    record = Tuning(yaml, space, STOPPING, folder / "runs").run(TRIALS, report=told.append)
    assert [each.trial.number for each in told] == [0, 1, 2, 3], "none is tried twice"
    return Done(yaml, folder, record, undisturbed)


def test_the_first_trial_is_the_experiment_as_it_stands(done: Done) -> None:
    first = done.record.trials[0]
    assert first.values == {
        "embeddings.optimizer.learning_rate": 0.001,
        "model.mlp.hidden": [8],
        "training.batch_size": 256,
    }
    own = Experiment.from_yaml(done.yaml, [*STOPPING, "name=own"], done.folder / "own")
    history = own.train().history
    assert first.quality == max(logs["val_auc"] for logs in history)


def test_a_killed_search_ends_as_if_nothing_had_happened(done: Done) -> None:
    assert len(done.record.trials) == TRIALS
    for one, other in zip(done.record.trials, done.undisturbed.trials, strict=True):
        assert one.model_copy(update={"seconds": 0.0}) == other.model_copy(update={"seconds": 0.0})
    assert (done.record.best, done.record.changed) == (done.undisturbed.best, done.undisturbed.changed)


def test_linked_keys_move_together_and_the_best_trial_is_a_run(done: Done) -> None:
    best = done.record.trials[done.record.best]
    assert best.quality == max(each.quality for each in done.record.trials if each.state == "complete" and each.quality)
    assert done.record.best > 0, "or the next lines could not fail"
    rates = {key: value for key, value in done.record.changed.items() if key.endswith("learning_rate")}
    assert len(rates) == 2
    assert set(rates.values()) == {best.values["embeddings.optimizer.learning_rate"]}
    config = Experiment.from_yaml(done.folder / "runs" / "tiny-tune" / "runs" / f"trial-{best.number}").config
    assert config.training.dense_optimizer.learning_rate in rates.values()
    assert config.training.batch_size == best.values["training.batch_size"]


def test_the_test_part_is_never_looked_at_and_the_record_is_there(done: Done) -> None:
    folder = done.folder / "runs" / "tiny-tune"
    assert not list(folder.rglob("metrics.json"))
    assert TuningRecord.model_validate_json((folder / "tuning.json").read_bytes()) == done.record
    assert (folder / "tuning.png").stat().st_size > 10_000


def test_the_command_goes_on_from_there(done: Done, capfd: pytest.CaptureFixture[str]) -> None:
    settings = [word for text in STOPPING for word in ("--set", text)]
    words = [str(done.yaml), str(done.folder / "space.yaml"), *settings, "--runs", str(done.folder / "runs")]
    assert main(["tune", *words, "--trials", str(TRIALS)]) == 0
    said = capfd.readouterr()
    assert "tiny-tune: by validation, best first" in said.out
    assert "trial 0" not in said.err, "all were tried before"
    assert "changed: embeddings.optimizer.learning_rate=" in said.out
    assert f"runs/trial-{done.record.best}, the first look at the test part" in said.err
    assert main(["tune", *words, "--trials", str(TRIALS), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["best"] == done.record.best


@pytest.mark.parametrize(
    ("parameter", "error"),
    [
        ({"keys": ["model.mlp.hiden"]}, r"space: model.mlp.hiden: no key 'hiden'; expected one of .*hidden"),
        (
            {"keys": ["data.seed"]},
            r"space: data.seed: may not be tuned; expected a key of embeddings, model or",
        ),
        ({"keys": ["training.batch_size"]}, r"own value, 256, is outside; expected among \(1, 2\)"),
        ({"keys": ["training.epochs"], "low": -1, "high": 9}, r"--set training.epochs: -1"),
    ],
)
def test_what_cannot_be_tuned(done: Done, parameter: dict[str, Any], error: str) -> None:
    space = Space.model_validate({"space": [{"kind": "int", "low": 1, "high": 2} | parameter]})
    with pytest.raises(ConfigError, match=error):
        Tuning(done.yaml, space, STOPPING, done.folder / "none")
    assert not (done.folder / "none").exists()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("space: [{keys: [a], kind: float, low: 2.0, high: 1.0}]", "low is 2.0, which is not below high"),
        ("space: [{keys: [a], kind: int, low: 0, high: 9, log: true}]", "low is 0, which has no logarithm"),
        ("space: [{keys: [a, a], kind: choice, values: [1, 2]}]", "a: named twice"),
        ("space: []", "space.yaml:1: space"),
    ],
)
def test_a_space_that_is_none(tmp_path: Path, text: str, error: str) -> None:
    (tmp_path / "space.yaml").write_text(text)
    with pytest.raises(ConfigError, match=error):
        read_space(tmp_path / "space.yaml")


def test_another_space_is_no_continuation(done: Done) -> None:
    space = Space.model_validate({"space": [{"keys": ["training.batch_size"], "kind": "int", "low": 1, "high": 900}]})
    with pytest.raises(ConfigError, match="was begun with another experiment or space"):
        Tuning(done.yaml, space, STOPPING, done.folder / "runs").run(1)


def test_without_validation_or_optuna(done: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    space = read_space(done.folder / "space.yaml")
    with pytest.raises(ConfigError, match=r"training\.early_stopping: null"):
        Tuning(done.yaml, space)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InstallError, match="recsys tune: Optuna is not installed; expected the extra `tune`"):
        Tuning(done.yaml, space, STOPPING)


def test_the_documented_space_and_the_shipped_one() -> None:
    (block,) = blocks((ROOT / "docs" / "how-to" / "tune.md").read_text(encoding="utf-8"), "yaml")
    assert len(Space.model_validate(yaml.safe_load(block)).space) == 4
    assert Tuning(ROOT / "configs" / "movielens-1m.yaml", read_space(ROOT / "configs" / "spaces" / "movielens-1m.yaml"))
