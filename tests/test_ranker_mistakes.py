"""Ways to get a ranker wrong, tried on the command line: one line with place and cure, or what the docs say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from recsys.bundle import Bundle
from recsys.cli import main
from tests.test_mistakes import Break, all_of, answer, edit

LENGTH = 50
CONFIG = f"""\
name: shop
data:
  source: {{kind: files, events: log.csv}}
  positives: {{column: rating, at_least: 4}}
  negatives: {{column: rating, at_most: 2}}
  labels:
    loved: {{column: rating, at_least: 5}}
    long: {{column: seconds, at_least: 30}}
  split: {{kind: random, valid: 0.2, test: 0.2}}
schema:
  user: user
  item: item
  timestamp: time
  features:
    item_id: {{kind: categorical, role: item, column: item}}
    user_id: {{kind: categorical, role: user, column: user}}
    seen: {{kind: sequence, of: item_id, max_length: {LENGTH}}}
embeddings:
  tables: {{item: {{dim: 4, initializer: {{range: 1.0}}}}, user: {{dim: 4}}}}
  features:
    item_id: {{table: item}}
    seen: {{table: item, pooling: none}}
    user_id: {{table: user}}
model:
  kind: ranker
  sequence: {{kind: din, hidden: [4]}}
  mlp: {{hidden: [8]}}
  heads:
    label: {{hidden: [4]}}
    loved: {{weight: 0.5}}
    long: {{weight: 0.5}}
training: {{batch_size: 32, epochs: 1}}
"""
RNG = np.random.default_rng(0)
LOG = "user,item,time,rating,seconds,mood\n" + "".join(
    f"u{u},i{RNG.integers(15)},{100 * n + u},{RNG.choice([1, 2, 4, 5])},{RNG.choice(['', '10', '60'])},good\n"
    for u in range(30)
    for n in range(20)
)


def set_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RECSYS_CACHE", str(folder / "cache"))
    return folder


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in (("c.yaml", CONFIG), ("log.csv", LOG)):
        (tmp_path / name).write_text(content)
    return set_up(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        for name, content in (("c.yaml", CONFIG), ("log.csv", LOG)):
            (folder / name).write_text(content)
        set_up(folder, patch)
        assert main(["run", "c.yaml"]) == 0
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, to be spoiled."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder, symlinks=True)
    return set_up(folder, monkeypatch)


Rows = Callable[[pa.Table, str], pa.Array]


def spoil(part: str, column: str, values: Rows) -> Break:
    """Other values in a column of the prepared examples."""

    def act(folder: Path) -> None:
        (path,) = (folder / "cache" / "prepared").glob(f"*/{part}/part-00000.parquet")
        table = pq.read_table(path)
        at = table.column_names.index(column)
        pq.write_table(table.set_column(at, column, pc.cast(values(table, column), pa.float32())), path)

    return act


def constant(value: float) -> Rows:
    return lambda table, _: pa.array(np.full(len(table), value))


def twice(table: pa.Table, column: str) -> pa.Array:
    return pc.multiply(table[column], 2.0)


MISTAKES = {
    "a head without a label": (
        edit("    loved: {weight: 0.5}", "    lovd: {weight: 0.5}"),
        ("c.yaml:30: model.heads.lovd: ", "no label 'lovd', only label, loved, long", "add data.labels.lovd"),
    ),
    "a label without a column": (
        edit("loved: {column: rating", "loved: {column: stars"),
        ("log.csv: column 'stars': ", "not there, needed for data.labels.loved", "name another column"),
    ),
    "a label that is called like the one that ranks": (
        edit("    loved: {column", "    label: {column"),
        ("c.yaml:7: data.labels.label: ", "positives and negatives", "rename it"),
    ),
    "no head that ranks": (edit("    label: {hidden: [4]}\n", ""), ("c.yaml:28: model.heads: ", "add `label: {}`")),
    "a rule on text": (
        edit("{column: rating, at_most: 2}", "{column: mood, at_most: 2}"),
        ("log.csv: column 'mood': ", "600 rows hold text that is no number", "write numbers"),
    ),
    "a label's rule on text": (
        edit("{column: seconds, at_least: 30}", "{column: mood, at_least: 30}"),
        ("log.csv: column 'mood': ", "600 rows hold text that is no number", "the label is unknown"),
    ),
    "a label by a column that the model reads": (
        edit("    user_id: {kind", "    watched: {kind: numeric, role: context, column: seconds}\n    user_id: {kind"),
        ("log.csv: column 'seconds': ", "decides a label and is feature 'watched'", "`input: false`"),
    ),
    "a history without its item's table": (
        edit("    item_id: {table: item}\n", ""),
        ("c.yaml:20: embeddings.features: ", "'item_id'", "has no entry; name the table it reads"),
    ),
    "a history of an item feature that is none": (
        edit("of: item_id", "of: movie"),
        ("c.yaml:17: schema.features.seen: ", "names 'movie', which is no categorical item feature"),
    ),
    "a history and its item of two widths": (
        all_of(
            edit("seen: {table: item,", "seen: {table: other,"),
            edit("user: {dim: 4}}", "user: {dim: 4}, other: {dim: 8}}"),
        ),
        (
            "c.yaml:22: embeddings.features.seen.table: ",
            "8 numbers an event, but its target 'item_id' has 4",
            "one table",
        ),
    ),
    "no negatives": (
        edit("  negatives: {column: rating, at_most: 2}\n", ""),
        ("c.yaml:2: data.negatives: ", "a ranker learns from negatives too"),
    ),
    "experts without heads": (
        edit(CONFIG[CONFIG.index("  heads:") : CONFIG.index("training:")], "  experts: {count: 2}\n"),
        ("c.yaml:28: model.experts: ", "no heads to mix them"),
    ),
    "a weight of positives that is none": (
        edit("  mlp:", "  loss: {positive_weight: 0}\n  mlp:"),
        ("c.yaml:27: model.loss", "positive_weight", "greater than 0"),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_a_line_with_its_cure(name: str, shop: Path, capfd: pytest.CaptureFixture[str]) -> None:
    broken, *expected = MISTAKES[name]
    broken(shop)
    code, lines = answer("prepare c.yaml", capfd)
    assert code == 1
    assert len(lines) == len(expected), lines
    for line, (place, *parts) in zip(lines, expected, strict=True):
        assert line.startswith(place), line
        assert all(part in line for part in parts), line
    assert not (shop / "runs" / "shop" / "checkpoints").exists()
    assert not list((shop / "cache").glob("prepared/*"))


def test_labels_of_another_program(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Refused before anything is trained on them, or measured by them."""
    spoil("train", "label", twice)(run)
    spoil("test", "label.loved", twice)(run)
    shutil.rmtree(run / "runs" / "shop" / "checkpoints")
    for command in ("train c.yaml", "run c.yaml"):
        code, lines = answer(command, capfd)
        assert code == 1
        first, second = lines
        assert first.startswith("shop: train: ")
        assert "examples have another label than 0 or 1; expected every label 0 or 1; delete the folder" in first
        assert second.startswith("shop: test: ")
        assert "another label.loved than 0, 1 or NaN (unknown)" in second
    assert not list((run / "runs" / "shop").glob("checkpoints/best*"))


@pytest.mark.parametrize(
    ("part", "value", "command"),
    [
        ("test", 1.0, "evaluate runs/shop"),
        ("valid", 0.0, "train c.yaml --set name=again"),
        ("train", 0.0, "train c.yaml --set name=again"),
    ],
)
def test_labels_of_one_class(
    run: Path, capfd: pytest.CaptureFixture[str], part: str, value: float, command: str
) -> None:
    """Training and validation are refused before hours are spent, the test part where it is to be measured by."""
    spoil(part, "label", constant(value))(run)
    code, (line,) = answer(command, capfd)
    assert code == 1
    assert line.startswith(f"shop: {part}: all "), line
    assert f"examples that weigh anything have label {value:g}; expected both positives and negatives; change" in line
    assert not (run / "runs" / "again" / "checkpoints").exists()


def test_further_labels_of_one_class_or_unknown(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The rest is measured, and what is missing is said."""
    spoil("test", "label.loved", constant(0.0))(run)
    spoil("test", "label.long", constant(np.nan))(run)
    assert main(["evaluate", "runs/shop"]) == 0
    out = capfd.readouterr().out
    count = len(pq.read_table(next((run / "cache").glob("prepared/*/test"))))
    assert f"warning: label 'loved' is 0 in all {count} examples: there is no loved.auc" in out
    assert "warning: label 'long' is known of no example: nothing is measured of its head" in out
    record = json.loads((run / "runs" / "shop" / "metrics.json").read_text())
    found = record["metrics"]["model"]
    assert {"auc", "gauc", "logloss", "loved.logloss", "loved.base_rate"} <= found.keys()
    assert not [name for name in found if name.startswith("long.")]
    assert "loved.auc" not in found
    assert found["loved.base_rate"] == 0.0


def test_what_an_evaluation_says_of_heads(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "runs/shop"]) == 0
    out = capfd.readouterr().out
    record = json.loads((run / "runs" / "shop" / "metrics.json").read_text())
    assert "Calibration: probabilities and what came of them" in out
    assert record["calibration"]["predicted"]
    for name in ("auc", "gauc", "logloss", "normalized_entropy", "ece", "base_rate"):
        for head in ("", "loved.", "long."):
            assert head + name in record["metrics"]["model"]
            assert f" {head}{name} " in out
    rows = pq.read_table(next((run / "cache").glob("prepared/*/test")))
    long = rows["label.long"].to_numpy()
    assert 0 < np.isnan(long).sum() < len(long)
    assert record["metrics"]["model"]["long.base_rate"] == pytest.approx(np.nanmean(long))
    assert record["metrics"]["base_rate"]["long.auc"] == 0.5
    for name in ("loved.auc", "long.logloss"):
        assert record["ranges"]["model"][name]["value"] == pytest.approx(record["metrics"]["model"][name])


def test_a_history_that_is_too_long_keeps_its_newest(finished: Path) -> None:
    """A request of 1,000 events scores as its newest 50, and as no other 50."""
    bundle = Bundle.load(finished / "runs" / "shop")
    rng = np.random.default_rng(1)
    events = [f"i{n}" for n in [*rng.integers(0, 5, 950), *rng.integers(5, 15, LENGTH)]]
    pair = {"item_id": "i3", "user_id": "u1"}
    histories = [events, events[-LENGTH:], events[:LENGTH], events[-LENGTH + 1 :]]
    long, newest, oldest, fewer = bundle.score([{**pair, "seen": history} for history in histories])
    assert long == newest
    assert abs(long - oldest) > 1e-6
    assert abs(long - fewer) > 1e-6
    alone = bundle.score([{**pair, "seen": events}])
    np.testing.assert_allclose(alone, newest, rtol=1e-6)


def test_a_bundle_scores_every_head(finished: Path) -> None:
    bundle = Bundle.load(finished / "runs" / "shop")
    assert bundle.manifest.heads == ("loved", "long")
    pairs = [{"item_id": f"i{n}", "user_id": f"u{n}", "seen": [f"i{n}", "i0"]} for n in range(6)]
    found = bundle.scores(pairs)
    assert list(found) == ["label", "loved", "long"]
    np.testing.assert_array_equal(found["label"], bundle.score(pairs))
    assert all(((each > 0) & (each < 1)).all() for each in found.values())
    assert not np.allclose(found["loved"], found["long"])
