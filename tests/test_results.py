"""docs/results.md is the stored runs', and its sentences follow from them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from recsys.config.load import load
from recsys.evaluation.record import RunRecord
from recsys.experiment_config import ExperimentConfig
from recsys.files import write_text

ROOT = Path(__file__).parents[1]


@pytest.fixture
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.fixture
def tables(_benchmarks: None) -> ModuleType:
    import ranker_tables

    ranker_tables._records.cache_clear()
    return ranker_tables


def test_the_page_is_the_records(tables: ModuleType) -> None:
    """`python benchmarks/results_page.py --write` makes it so."""
    from results_page import PAGE, marks, sections
    from table import marked

    page = PAGE.read_text(encoding="utf-8")
    for name, text in sections().items():
        assert all(page.count(mark) == 1 for mark in marks(name)), name
        assert marked(page, marks(name))[1] == text, name


def test_every_run_of_the_study_is_a_sound_config(tables: ModuleType) -> None:
    from rankers import METHODS, SEEDS, plan

    runs = plan()
    assert len({run.path for run in runs}) == len(runs)
    assert {run.method.against for run in runs} - {None} <= METHODS.keys()
    for run in runs:
        if run.seed == SEEDS[0]:
            config = load(ROOT / "configs" / f"{run.data.config}.yaml", ExperimentConfig, run.overrides).config
            decoupled = [each for each in config.embeddings.features.values() if each.attention_table]
            assert bool(decoupled) == run.method.decoupled
            assert config.data.sampled_negatives.distribution == run.data.negatives  # type: ignore[union-attr]
            lengths = {each.max_length for each in config.table_schema.features.values() if each.kind == "sequence"}
            assert lengths == {run.data.length}


def test_what_is_said_follows_from_the_figures(
    tables: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Records of two seeds, with GAUCs by which DIN gains enough on one log only and DARE nowhere."""
    import rankers

    monkeypatch.setattr(rankers, "RESULTS", tmp_path)
    monkeypatch.setattr(tables, "TUNING", tmp_path / "tuning.json")
    stored = RunRecord.read(ROOT / "benchmarks" / "results" / "movielens-1m-ranker-seed0.json")
    gauc = {
        "amazon-beauty-uniform": {"mean": 0.70, "din": 0.701, "din-softmax": 0.7031, "twin": 0.7, "dare": 0.69},
        "globo-100-popularity": {"mean": 0.80, "din": 0.8029, "twin": 0.81, "dare": 0.81},
    }
    for log, methods in gauc.items():
        for method, value in methods.items():
            for seed in (0, 1):
                metrics = dict.fromkeys(("auc", "gauc", "logloss"), value + 0.01 * seed)
                baselines = {key: {"auc": 0.6, "gauc": 0.6} for key in tables.BASELINES}
                record = stored.model_copy(update={"seed": seed, "metrics": {"model": metrics, **baselines}})
                record.write(tmp_path / log / f"{method}-seed{seed}.json")
    found = tables.sections()
    din, dare_long, dare_short = found["rankers"].splitlines()[3:]
    assert re.search(
        r"0.003 .* above mean pooling on amazon-beauty/uniform \(DIN, softmax \+0\.0031 ± 0\.0000\)\.", din
    )
    other = r"It is not on amazon-beauty/uniform \(DIN \+0\.0010 .*\) and globo-100/popularity \(DIN \+0\.0029 .*\)\.$"
    assert re.search(other, din)
    assert dare_long.endswith(
        "On long histories DARE's GAUC is not above TWIN on globo-100/popularity (+0.0000 ± 0.0000)."
    )
    assert dare_short.endswith(
        "On short ones DARE's GAUC is not above TWIN on amazon-beauty/uniform (-0.0100 ± 0.0000)."
    )
    assert "| DIN, softmax − mean pooling | +0.0031 ± 0.0000 |" in found["ranker-tables"]
    beauty = found["ranker-tables"].partition("**amazon-beauty")[2].partition("**")[2]
    ranked = re.findall(r"^\| (\*?[A-Za-z][\w ,-]*\*?) \|", beauty.partition("\n\n**")[0], re.MULTILINE)
    assert ranked[:5] == ["DIN, softmax", "DIN", "mean pooling", "TWIN", "DARE"]
    assert ranked[-1].startswith("*"), "baselines stand where their GAUC puts them"
    tables._records.cache_clear()


@pytest.mark.usefixtures("_benchmarks")
def test_what_is_said_of_smaller_tables_follows_from_the_records(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of 1,000 bytes: int8 loses .05% at a tenth, narrower rows .2%; neither is there at a twentieth."""
    import dimension_search
    import dimension_tables

    monkeypatch.setattr(dimension_search, "RESULTS", tmp_path)
    full = {"name": "full", "method": "full", "bytes": 1_000}
    for method, auc in (("uniform", 0.7984), ("int8", 0.7996)):
        small = {"name": f"{method}-100", "method": method, "bytes": 99, "budget": 100, "plan": "p"}
        trials = [
            trial
            | {"trained": [{"seed": n, "valid": {"auc": 0.5}, "test": {"auc": value}, "seconds": 1} for n in (0, 1)]}
            for trial, value in ((full, 0.8), (small, auc))
        ]
        record = {
            "name": "frappe-search",
            "config_digest": "c",
            "data_digest": "d" * 64,
            "monitor": "auc",
            "promise": {"max_loss": 0.001},
            "full_bytes": 1_000,
            "trials": trials,
            "front": ["full"],
            "verdicts": [],
            "unreachable": {f"{method}-50": "50 bytes; expected at least 62; raise it"},
            "training_seconds": 1.0,
            "cost": {method: 2.6},
        }
        write_text(tmp_path / "frappe" / f"{method}.json", json.dumps(record))
    said = dimension_tables.sections()["dimension-search"]
    assert "**frappe** (2 seeds, data `dddddddddddd`): the full tables take 1,000 bytes" in said
    assert "| narrower rows | as before | as before | -0.20% ± 0.00% | least 6.2% | 3 |" in said
    assert "| narrower rows, int8 | as before | as before | **-0.05% ± 0.00%** | least 6.2% | 3 |" in said
    assert (
        "- 8 times smaller within 0.1% of auc: narrower rows, int8; narrower rows, int8 10.1 times (99 bytes)." in said
    )
    assert "Not run yet: magnitude, DNIS, OptEmbed" in said
