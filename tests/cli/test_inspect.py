"""`recsys inspect` on a run and on its bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys import Experiment
from recsys.cli import main
from recsys.evaluation.inspection import Norms
from recsys.evaluation.norm_picture import norm_picture, quantiles
from tests.trained import Trained

HEADER = ["table", "method", "rows", "dim", "params", "MB", "untrained", "rank", "ids/row"]


def inspected(path: Path, capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["inspect", str(path), "--json"]) == 0
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    found["tables"] = {table["name"]: table for table in found["tables"]}
    return found


def test_a_run(trained_copy: Trained, capfd: pytest.CaptureFixture[str]) -> None:
    found = inspected(Path("runs/small"), capfd)
    experiment = Experiment.from_yaml("runs/small")
    item, user, attribute = (found["tables"][name] for name in ("item", "user", "attribute"))
    rows = {name: info.rows for name, info in experiment.prepared.info.features.items() if hasattr(info, "rows")}
    assert (item["rows"], item["dim"], item["method"], item["precision"]) == (rows["item_id"], 16, "full", "float32")
    assert item["features"] == ["item_id", "history"]
    assert attribute["rows"] == sum(rows[name] for name in ("category", "tags", "age", "device"))
    for table in found["tables"].values():
        numbers = table["rows"] * table["dim"]
        assert table["parameters"] == numbers
        assert table["bytes"] == 4 * numbers
        assert table["optimizer_bytes"] == 2 * 4 * numbers, "both moments of Adam"
        assert 1.5 < table["effective_rank"] <= table["dim"]
        assert table["ids_per_row"] == 1.0
        assert all(vocabulary["colliding"] == 0 for vocabulary in table["vocabularies"])
    # On disk: the file holds tables, slots and a little more.
    (data,) = (trained_copy.run / "checkpoints").glob("ckpt-*.data*")
    held = sum(table["bytes"] + table["optimizer_bytes"] for table in found["tables"].values())
    assert held < data.stat().st_size < 1.5 * held
    # Every user of the vocabulary stands in a training row.
    assert user["untrained"] == 0.0
    assert [v["ids"] for v in user["vocabularies"]] == [rows["user_id"] - 2]
    picture = Path(found["picture"])
    assert picture == Path("runs/small/inspect/norm-by-frequency.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in picture.parent.iterdir()} == {"norm-by-frequency.png", "tables.json"}


def test_ids_that_training_never_met(trained_copy: Trained) -> None:
    """Three users get back the rows that they began with: the share of ids never trained is theirs."""
    experiment = Experiment.from_yaml("runs/small")
    before = experiment.model.embeddings.tables["user"].store.embeddings.numpy()  # type: ignore[attr-defined]
    load = experiment._load_trained

    def load_and_undo() -> None:
        load()
        rows = experiment.model.embeddings.tables["user"].store.embeddings  # type: ignore[attr-defined]
        values = rows.numpy()
        assert (values[2:] != before[2:]).any(1).all()
        values[[2, 5, 9]] = before[[2, 5, 9]]
        rows.assign(values)

    experiment._load_trained = load_and_undo  # type: ignore[method-assign]
    found = experiment.inspect()
    (user,) = [table for table in found.tables if table.name == "user"]
    assert user.untrained == 3 / (len(before) - 2)
    vectors = {norms.feature: norms for norms in found.norms}
    assert vectors.keys() == {"item_id", "user_id", "category", "tags", "age", "device"}
    rows = experiment.model.embeddings.tables["user"].store.embeddings.numpy()  # type: ignore[attr-defined]
    np.testing.assert_allclose(vectors["user_id"].norms, np.linalg.norm(rows[2:], axis=1), rtol=1e-6)
    np.testing.assert_array_equal(vectors["user_id"].counts, experiment.prepared.frequencies("user_id")[2:])


def test_people_get_a_table(
    trained_copy: Trained, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["inspect", "runs/small"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "Embedding tables of small: best weights, sizes as in the checkpoint"
    assert lines[1].split() == [*HEADER[:6], "slots", *HEADER[6:]]
    assert [line.split()[0] for line in lines[3:6]] == ["item", "user", "attribute"]
    assert lines[-1] == "wrote runs/small/inspect/norm-by-frequency.png"
    assert max(len(line.rstrip()) for line in lines) <= 110
    assert max(len(line.rstrip()) for line in lines[1:6]) <= 100


def test_a_bundle_tells_what_it_knows(trained_copy: Trained, capfd: pytest.CaptureFixture[str]) -> None:
    run = inspected(trained_copy.run, capfd)["tables"]
    shutil.rmtree(trained_copy.cache)  # the bundle alone
    found = inspected(trained_copy.bundle, capfd)
    assert found["picture"] is None
    tables = found["tables"]
    assert tables.keys() == run.keys()
    for name, copies in {"item": 3, "user": 2, "attribute": 3}.items():
        assert tables[name]["copies"] == copies, "one in each SavedModel that reads it"
        assert tables[name]["bytes"] == copies * run[name]["bytes"]
        for key in ("rows", "dim", "method", "precision", "parameters", "features"):
            assert tables[name][key] == run[name][key]
        assert tables[name]["effective_rank"] == pytest.approx(run[name]["effective_rank"], rel=1e-6)
        unknown = ("optimizer_bytes", "untrained", "ids_per_row")
        assert [tables[name][key] for key in unknown] == [None] * 3
        assert tables[name]["vocabularies"] == []
    assert main(["inspect", str(trained_copy.bundle)]) == 0
    header = capfd.readouterr().out.splitlines()[1]
    assert header.split() == [*HEADER[:6], "rank"]


def refused(path: str, capfd: pytest.CaptureFixture[str]) -> str:
    assert main(["inspect", path]) == 1
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_mistakes(trained_copy: Trained, capfd: pytest.CaptureFixture[str]) -> None:
    assert refused("runs/no", capfd).startswith("error: runs/no: no such folder; expected a run directory (runs/NAME)")
    assert refused("small.yaml", capfd).startswith("error: small.yaml: is a file; expected a run directory")
    assert refused("cache", capfd).startswith("error: cache: holds no manifest.json and no numbered bundle")
    (trained_copy.bundle / "query_tower" / "1" / "variables" / "variables.index").write_bytes(b"")
    assert "query_tower/1/variables/variables.index" in refused(str(trained_copy.bundle), capfd)
    for file in (trained_copy.run / "checkpoints").iterdir():
        file.unlink()
    assert refused("runs/small", capfd).startswith("error: runs/small: no trained model; expected a checkpoint")
    assert not (trained_copy.run / "inspect" / "norm-by-frequency.png").exists()


# The picture.


def test_quantiles_follow_the_frequencies() -> None:
    """Ids met 1, 10 and 1,000 times, with lengths around 1, 2 and 3; one range holds too few."""
    counts = np.repeat([1, 10, 100, 1_000], [100, 100, 2, 100])
    norms = np.concatenate(
        [np.linspace(level - 0.5, level + 0.5, n) for level, n in ((1, 100), (2, 100), (9, 2), (3, 100))]
    )
    middles, found = quantiles(counts, norms.astype(np.float32))
    np.testing.assert_allclose(middles, [1, 10, 1_000])
    np.testing.assert_allclose(found, [[0.6, 1, 1.4], [1.6, 2, 2.4], [2.6, 3, 3.4]], rtol=1e-5)


def test_few_ids_have_no_quantiles() -> None:
    middles, found = quantiles(np.arange(1, 30), np.ones(29, np.float32))
    assert (middles.shape, found.shape) == ((0,), (0, 3))


@pytest.mark.parametrize("ids", [0, 1, 50, 5_000])
def test_a_panel_for_each_feature(ids: int, tmp_path: Path) -> None:
    counts = np.arange(ids)
    norms = [Norms(f"feature {number}", "t", counts, np.ones(ids, np.float32)) for number in range(5)]
    figure = norm_picture("a title", norms)
    figure.savefig(tmp_path / "p.png")
    panels = [panel for panel in figure.axes if panel.get_title()]
    assert [panel.get_title().split(" (")[0] for panel in panels] == [f"feature {number}" for number in range(5)]
    assert all(panel.get_xscale() == ("log" if ids > 1 else "linear") for panel in panels)
    assert figure.get_suptitle() == "a title"


def test_no_counted_feature_no_panel(tmp_path: Path) -> None:
    norm_picture("nothing", []).savefig(tmp_path / "p.png")
