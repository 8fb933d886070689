"""`recsys run --plan`: from a plan to a bundle that is so small and says the same as the masked full model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys._compat import tf
from recsys.bundle import Bundle
from recsys.cli import main
from recsys.embeddings.collection import EmbeddingCollection
from recsys.embeddings.layout import Layout
from recsys.embeddings.plan import Block, ElementBlock, EmbeddingPlan, Origin, RowBlock
from recsys.embeddings.planned import PlannedRows
from recsys.embeddings.tables import Vocabularies
from recsys.experiment import Experiment
from recsys.export.signatures import Encoder
from recsys.search.fields import Field, fields_of, plan_of
from tests.trained import Trained

NAME = ("--set", "name=planned", "--set", "training.epochs=1", "--set", "retrieval.index={kind: exact}")
QUICK = ["small.yaml", *NAME]
READ = """
import sys, numpy as np, tensorflow as tf
raw = np.load(sys.argv[2])
tower = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
texts = {name: values.astype(object) if values.dtype.kind == "U" else values for name, values in raw.items()}
found = tower(**{name: tf.constant(values) for name, values in texts.items()})
np.save(sys.argv[3], found["embedding"].numpy())
assert not any(name.startswith("recsys") for name in sys.modules)
"""


def fields() -> list[Field]:
    experiment = Experiment.from_yaml("small.yaml")
    prepared = experiment.prepared
    vocabularies = Vocabularies(prepared.frequencies, prepared.vocabulary)
    return fields_of(experiment.config.embeddings, prepared.info.inputs, vocabularies)


def write_plan(path: Path, **changes: Any) -> EmbeddingPlan:
    """Items as single numbers, users as scattered narrow rows, attributes as they are but for some; OOV ids pruned."""
    rng, blocks = np.random.default_rng(0), []
    for field in fields():
        kept = rng.random(field.ids) < 0.7
        kept[1] = False
        own: list[Block] = [RowBlock(ids=field.ids, coordinates=field.dim)]
        if field.owner == "item_id":
            own = [ElementBlock(kept=(rng.random((field.ids, field.dim)) < 0.3) & (np.arange(field.ids) != 1)[:, None])]
        elif field.owner == "user_id":
            pruned = changes.get("pruned", "zero")
            own = [
                RowBlock(ids=20, coordinates=16),
                RowBlock(ids=field.ids - 20, coordinates=4, kept=kept[20:], pruned=pruned),
            ]
        elif field.owner == "tags":
            own = [RowBlock(ids=field.ids, coordinates=(0, 3, 7), kept=kept)]
        blocks.append(own)
    plan = plan_of(Origin(method="test", seed=1), fields(), blocks)
    plan.save(path)
    return plan


class Run:
    """A run with a plan, made once; and the full model with its weights, and zeros where the plan has pruned."""

    def __init__(self) -> None:
        self.plan = write_plan(Path("plans/p"))
        assert main(["run", *QUICK, "--plan", "plans/p"]) == 0
        self.planned = Experiment.from_yaml("runs/planned")

    @cached_property
    def masked(self) -> Any:
        small, experiment = self.planned.trained_model(), Experiment.from_yaml("small.yaml")
        model = experiment.model
        for name, table in small.embeddings.tables.items():
            assert isinstance(table.store, PlannedRows)
            rows = table.store.lookup(tf.range(table.store.rows)).numpy()
            order = [block for v in self.plan.tables[name].vocabularies.values() for block in v.blocks]
            mask = np.concatenate([block.mask(table.store.dim) for block in order])
            assert (rows[~mask] == 0).all()
            store: Any = model.embeddings.tables[name].store
            store.embeddings.assign(rows)
        for own, other in zip(model.dense_variables(), small.dense_variables(), strict=True):
            assert own.shape == other.shape
            own.assign(other)
        return model


@pytest.fixture(scope="module")
def run(trained_run: Trained, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("planned") / "copy"
    shutil.copytree(trained_run.folder, folder, symlinks=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("RECSYS_CACHE", str(folder / "cache"))
        made = Run()
        _ = made.masked
    made.folder = folder  # type: ignore[attr-defined]
    return made


@pytest.fixture(autouse=True)
def _inside(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    folder: Path = run.folder  # type: ignore[attr-defined]
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RECSYS_CACHE", str(folder / "cache"))


def test_the_bundle_is_as_small_as_the_plan_says(run: Run) -> None:
    facts = {table.name: table for table in Bundle.load(Path("runs/planned")).manifest.tables}
    rows = {name: table.store.rows for name, table in run.masked.embeddings.tables.items()}
    for name, plan in run.plan.tables.items():
        assert facts[name].bytes == plan.bytes() < 0.8 * plan.full_bytes
        assert (facts[name].method, facts[name].rows, facts[name].dim) == ("planned", rows[name], plan.dim)
        assert facts[name].precision == "float32"
    # On disk too: the file of each SavedModel holds its tables, dense weights and little else.
    counts = json.loads(Path("runs/planned/metrics.json").read_text())["counts"]
    assert counts["table_bytes"] == run.plan.bytes()
    (data,) = Path("runs/planned/bundle/1/query_tower/1/variables").glob("variables.data-*")
    assert data.stat().st_size < run.plan.bytes() + 4 * counts["dense_parameters"] + 20_000


def test_it_inspects(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    found = {}
    for path in ("runs/planned", "runs/planned/bundle/1"):
        assert main(["inspect", path, "--json"]) == 0
        found[path] = {table["name"]: table for table in json.loads(capfd.readouterr().out)["tables"]}
    of_run, of_bundle = found.values()
    for name, plan in run.plan.tables.items():
        numbers = sum(block.numbers for block in plan.blocks)
        assert of_run[name]["bytes"] == plan.bytes()
        assert of_bundle[name]["bytes"] == of_bundle[name]["copies"] * plan.bytes()
        for table in (of_run[name], of_bundle[name]):
            assert (table["method"], table["precision"], table["parameters"]) == ("planned", "float32", numbers)
        assert of_run[name]["optimizer_bytes"] == 8 * numbers, "both moments of Adam"
        assert 1 < of_run[name]["effective_rank"] <= plan.dim
    kept = run.plan.tables["user"].vocabularies["user_id"].mask(16)[2:].any(1)
    assert of_run["user"]["untrained"] == pytest.approx(1 - kept.mean()), "pruned ids never learn; all users are met"


def test_the_masked_full_model_says_the_same_in_a_fresh_process(run: Run, tmp_path: Path) -> None:
    """All items and users of the catalogue, missing and unknown values."""
    prepared, bundle = run.planned.prepared, Path("runs/planned/bundle/1")
    for folder, names, table, tower in (
        ("item_tower", prepared.names("item"), prepared.items, run.masked.item_tower),
        ("query_tower", prepared.names("user", "context"), prepared.users, run.masked.query_tower),
    ):
        encoder = Encoder(prepared.path, prepared.info.features, names)
        raw = raw_features(encoder, table)
        np.savez(tmp_path / f"{folder}.npz", **{name.replace(".", "_"): value for name, value in raw.items()})
        places = [str(bundle / folder / "1"), str(tmp_path / f"{folder}.npz"), str(tmp_path / f"{folder}.npy")]
        done = _fresh(places, tmp_path)
        assert done.returncode == 0, done.stderr[-2000:]
        expected = tower(encoder.encode({name: tf.constant(value) for name, value in raw.items()}), training=False)
        found = np.load(tmp_path / f"{folder}.npy")
        assert len(found) == table.num_rows + 2
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
        assert np.ptp(found, axis=0).max() > 0.1


def _fresh(places: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    absolute = [str(Path(place).resolve()) for place in places]
    environment = {**os.environ, "PYTHONPATH": ""}
    command = [sys.executable, "-c", READ, *absolute]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)


def raw_features(encoder: Encoder, table: Any) -> dict[str, Any]:
    """Of all rows of items or users; then a row of unknown values, and one where all is missing."""
    found: dict[str, Any] = {}
    for name, spec in encoder.specs().items():
        column = table[f"raw.{name}"].to_pylist() if f"raw.{name}" in table.column_names else None
        if spec.dtype == tf.string and spec.shape.rank == 1:
            values = column if column is not None else ["" if n % 3 else "phone" for n in range(table.num_rows)]
            found[name] = np.array([*(value or "" for value in values), "never seen", ""], str)
        elif spec.dtype == tf.string:
            lists = column if column is not None else histories(name, table.num_rows)
            lists = [*(each or [] for each in lists), ["never seen"], []]
            width = max(map(len, lists))
            found[name] = np.array([each + [""] * (width - len(each)) for each in lists], str)
        else:
            found[name] = np.full((table.num_rows + 2, 4), 60.0, np.float32)
    return found


def histories(name: str, users: int) -> list[list[str]]:
    assert name == "history"
    items = Experiment.from_yaml("runs/planned").prepared.items["item"].to_pylist()
    rng = np.random.default_rng(1)
    return [[items[n] for n in rng.integers(0, len(items), 4)] for _ in range(users)]


# Whose run it is.


def refused(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    """The first problem's line."""
    assert main(arguments) == 1
    line, *_ = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_the_plans_content_is_part_of_the_run(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert "the run of another configuration" in refused(["evaluate", *QUICK], capfd)
    write_plan(Path("plans/other"), pruned="shared")
    assert "the run of another configuration" in refused(["train", *QUICK, "--plan", "plans/other"], capfd)
    shutil.copytree("plans/p", "elsewhere/q")
    assert main(["export", *QUICK, "--plan", "elsewhere/q"]) == 0
    digests = {
        Experiment.from_yaml("small.yaml", [f"embeddings.plan={path}"]).digest
        for path in ("plans/p", "plans/other", "null")
    }
    assert len(digests) == 3


def test_the_yaml_may_name_the_plan(run: Run) -> None:
    """Relative to the YAML, as data are."""
    Path("sub").mkdir()
    shutil.copy("small.yaml", "sub/small.yaml")
    found = Experiment.from_yaml("sub/small.yaml", ["embeddings.plan=../plans/p"])
    tables = found.model.embeddings.tables
    assert all(isinstance(table.store, PlannedRows) for table in tables.values())
    assert found.config.embeddings.plan == "../plans/p"


def test_a_plan_for_other_data_is_refused(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    line = refused(["train", *QUICK, "--set", "name=x", "--set", "data.source.seed=4", "--plan", "plans/p"], capfd)
    for words in ("plans/p: tables.", "made for another vocabulary of ", "search again: recsys search"):
        assert words in line


def test_a_missing_plan_is_said_before_anything_is_done(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    line = refused(["train", *QUICK, "--set", "name=y", "--plan", "plans/none"], capfd)
    assert "plans/none/plan.json: no such plan" in line
    assert not Path("runs/y").exists()


def test_parameter_servers_are_refused(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    strategy = ["--set", "training.strategy=parameter_server"]
    assert "cannot be cut over parameter servers" in refused(["train", *QUICK, *strategy, "--plan", "plans/p"], capfd)


def test_warm_starts_are_refused(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    line = refused(["train", "small.yaml", "--set", "name=z", "--set", "training.warm_start=runs/planned"], capfd)
    assert "embeddings.plan: table" in line
    assert "a plan's `weights` carry rows over" in line


def test_layouts_of_a_real_plan(run: Run) -> None:
    """One variable for each set of coordinates; the order is that of the table's vocabularies."""
    table = run.plan.tables["attribute"]
    layout = Layout(table, list(table.vocabularies))
    assert [group.columns for group in layout.groups] == [tuple(range(8)), (0, 3, 7)]
    collection = run.planned.model.embeddings
    assert isinstance(collection, EmbeddingCollection)
    store = collection.tables["attribute"].store
    assert isinstance(store, PlannedRows)
    assert store.layout.groups == layout.groups
