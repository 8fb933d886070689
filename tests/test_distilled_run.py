"""A run whose item tower has another run as its teacher, from the YAML."""

from __future__ import annotations

import pytest

from recsys.errors import ConfigError
from recsys.experiment import Experiment
from recsys.run_directory import RunDirectory
from tests.trained import Trained

ASKED = "model.item.distill={teacher: runs/small, unknown: [item_id], weight: 2.0}"


def student(trained: Trained, *more: str) -> Experiment:
    overrides = ["name=student", "training.epochs=1", "training.early_stopping=null", ASKED, *more]
    return Experiment.from_yaml(trained.config, overrides)


def test_a_run_is_taught_and_says_by_whom(trained_copy: Trained) -> None:
    experiment = student(trained_copy)
    position = experiment.train()
    teacher = RunDirectory(trained_copy.run).origin()
    origin = RunDirectory(experiment.folder).origin()
    assert teacher is not None
    assert origin is not None
    assert origin.teacher == teacher.identity
    untaught = Experiment.from_yaml(
        trained_copy.config, ["name=alone", "training.epochs=1", "training.early_stopping=null"]
    )
    # What the teacher asks for is part of the loss: 1 - cosine, twice, of towers that start elsewhere.
    difference = position.history[0]["loss"] - untaught.train().history[0]["loss"]
    assert 0.2 < difference < 4.0


def test_there_is_no_such_teacher(trained_copy: Trained) -> None:
    with pytest.raises(ConfigError, match=r"model\.item\.distill\.teacher: .* is no run directory"):
        student(trained_copy, "model.item.distill.teacher=runs/nobody").train()
