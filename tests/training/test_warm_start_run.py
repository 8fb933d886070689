"""`training.warm_start`: a run that begins with the weights of an earlier one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from recsys import Experiment
from recsys._compat import keras
from recsys.cli import main
from recsys.errors import RecsysError
from tests.trained import Trained

GROWN = (
    "training.warm_start=runs/small",
    # Other events: more items, other counts, so that ids stand for other texts; and one more feature.
    "data.source={kind: simulated, users: 450, items: 240, events: 9000, seed: 4, zipf: 0.5, taste: 3.0}",
    "schema.features.country={kind: categorical, role: user}",
    "embeddings.features.country.table=attribute",
    "training.epochs=2",
    "training.early_stopping=null",
    "training.tensorboard=false",
)


def experiment(name: str, *overrides: str) -> Experiment:
    return Experiment.from_yaml("small.yaml", [f"name={name}", *GROWN, *overrides])


def weights(run: Experiment) -> dict[str, np.ndarray]:
    variables = [*run.model.variables, *run.model.table_optimizers.variables, *run.model.optimizer.variables]
    return {f"{number} {variable.name}": variable.numpy() for number, variable in enumerate(variables)}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


class KilledError(Exception):
    """Stands for a kill between two epochs."""


class KillInSecondEpoch(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        if epoch == 1:
            raise KilledError


def test_known_ids_begin_with_the_rows_of_the_earlier_run(trained_copy: Trained) -> None:
    earlier, run, fresh = Experiment.from_yaml("runs/small"), experiment("second"), experiment("third")
    earlier.inspect()  # loads the best weights
    run.prepare()
    result = run.warm_started
    assert result is not None
    assert result.parts == ("query_tower/_mlp/_layers/query_tower_mlp_output/kernel",)
    for table, feature in (("item", "item_id"), ("user", "user_id")):
        texts, before = (side.prepared.vocabulary(feature).tolist() for side in (run, earlier))
        known = [text for text in texts if text in before]
        assert 0 < len(known) < len(texts)
        assert known != before[: len(known)], "ids stand for the same texts"
        assert result.rows[table] == 2 + len(known)
        own, old, initial = (
            side.model.embeddings.tables[table].store.embeddings.numpy()  # type: ignore[attr-defined]
            for side in (run, earlier, fresh)
        )
        expected = initial.copy()
        expected[:2] = old[:2]
        for row, text in enumerate(texts, start=2):
            if text in before:
                expected[row] = old[2 + before.index(text)]
        np.testing.assert_array_equal(own, expected)


def test_a_warm_started_run_resumes_exactly_and_does_not_start_twice(trained_copy: Trained) -> None:
    undisturbed = experiment("undisturbed")
    undisturbed.train()
    cold = experiment("cold", "training.warm_start=null")
    cold.train()
    assert not same(weights(undisturbed), weights(cold))
    killed = experiment("killed")
    killed.add_callback(KillInSecondEpoch())
    with pytest.raises(KilledError):
        killed.train()
    assert killed.warm_started is not None
    shutil.rmtree(trained_copy.run)  # whoever starts again from there cannot
    resumed = experiment("killed")
    assert resumed.train().history == undisturbed.train().history
    assert resumed.warm_started is None
    assert same(weights(resumed), weights(undisturbed))
    recorded = json.loads((resumed.folder / "origin.json").read_text())["warm_start"]
    assert recorded == json.loads((undisturbed.folder / "origin.json").read_text())["warm_start"]
    assert resumed.evaluate().metrics == undisturbed.evaluate().metrics
    assert json.loads((resumed.folder / "origin.json").read_text())["warm_start"] == recorded


def test_where_it_started_is_part_of_a_runs_identity(trained_copy: Trained) -> None:
    run = experiment("second")
    run.prepare()
    origin = json.loads((run.folder / "origin.json").read_text())
    assert origin["warm_start"] is not None
    assert origin["training_digest"] != experiment("second", "training.warm_start=null").config.training_digest
    # Another run at the same path, such as one of another seed, is another start.
    source = trained_copy.run / "origin.json"
    source.write_text(json.dumps({**json.loads(source.read_text()), "training_digest": "0" * 64}))
    experiment("second").prepare()
    assert json.loads((run.folder / "origin.json").read_text())["warm_start"] != origin["warm_start"]
    assert json.loads((trained_copy.run / "origin.json").read_text())["warm_start"] is None


def test_the_data_of_the_earlier_run_may_have_changed(trained_copy: Trained) -> None:
    """It goes by the prepared data that the run points to, not by what its raw files hold now."""
    run, link = experiment("second"), trained_copy.run / "prepared"
    earlier = run._learned_from.earlier()
    assert earlier is not None
    assert earlier.prepared.path.resolve() == link.resolve()
    link.unlink()
    link.symlink_to("gone")
    with pytest.raises(RecsysError) as caught:
        run.prepare()
    assert str(caught.value).endswith(f"bring it back: recsys prepare {trained_copy.run}")


def refused(capfd: pytest.CaptureFixture[str], command: str, *overrides: str) -> str:
    arguments = [part for override in overrides for part in ("--set", override)]
    assert main([command, "small.yaml", "--set", "name=second", *arguments]) == 1
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    return line.replace(f"{Path.cwd()}/", "")


def test_mistakes(trained_copy: Trained, capfd: pytest.CaptureFixture[str]) -> None:
    assert "training.warm_start: runs/no is no run directory; expected that of" in refused(
        capfd, "train", "training.warm_start=runs/no"
    )
    assert "training.warm_start: small.yaml is no run directory" in refused(
        capfd, "train", "training.warm_start=small.yaml"
    )
    assert not Path("runs/second").exists()
    assert "embeddings.tables.item.dim: 8; expected 16, as in the run of training.warm_start" in refused(
        capfd, "train", "training.warm_start=runs/small", "embeddings.tables.item.dim=8"
    )
    ranker = ("model={kind: ranker}", "data.negatives={column: rating, at_most: 2}")
    assert "model.kind: Ranker; expected TwoTower" in refused(capfd, "train", "training.warm_start=runs/small", *ranker)
    for file in (trained_copy.run / "checkpoints").iterdir():
        file.unlink()
    assert "runs/small: no trained model" in refused(capfd, "train", "training.warm_start=runs/small")


def test_parameter_servers_are_told_that_they_cannot(trained_run: Trained) -> None:
    with pytest.raises(RecsysError, match="warm_start needs whole tables"):
        Experiment.from_yaml(trained_run.config, ["training.warm_start=x", "training.strategy=parameter_server"])


def test_the_command_says_what_was_taken_over(trained_copy: Trained, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = [part for override in GROWN for part in ("--set", override)]
    assert main(["train", "small.yaml", "--set", "name=second", *arguments, "--set", "training.epochs=1"]) == 0
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("warm start")]
    assert line.startswith("warm start from runs/small: ")
    assert " rows of item, " in line
    assert line.endswith("; 4 dense weights whole, 1 in part, 0 not")
