"""The study of self-supervised regularisation: its configs are sound, its table is its records'."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from recsys.config.load import load
from recsys.evaluation.comparison import Difference
from recsys.evaluation.record import Range, RunRecord, SliceRecord
from recsys.experiment_config import ExperimentConfig
from recsys.models.config import TwoTowerConfig

ROOT = Path(__file__).parents[1]


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import ssl_study

    return ssl_study


def test_every_run_is_a_sound_config(study: ModuleType) -> None:
    for name, data in study.DATA.items():
        for variant in study.VARIANTS:
            run = study.Run(data, variant, 1, tried=(0.1, 0.5))
            model = load(ROOT / "configs" / f"{name}.yaml", ExperimentConfig, run.overrides).config.model
            assert isinstance(model, TwoTowerConfig)
            assert (model.ssl is None) == (variant == study.NONE)
            if model.ssl is not None:
                assert (model.ssl.weight, model.ssl.temperature) == (0.1, 0.5)
                assert (model.ssl.items == "training") == (variant == "cfm-training")


def test_what_is_not_tuned_is_not_run(study: ModuleType, tmp_path: Path) -> None:
    run = study.Run(study.DATA["amazon-beauty"], "cfm-training", 0, tmp_path)
    with pytest.raises(SystemExit, match=r"cfm is not tuned on amazon-beauty: python benchmarks/ssl_study.py --tune"):
        _ = run.overrides
    pairs = {f"{w:g} {t:g}": 0.1 + (w == 0.3 and t == 0.1) for w, t in study.TRIED}
    (tmp_path / "tuning.json").write_text(json.dumps({"amazon-beauty": {"cfm": pairs}}))
    assert run.chosen == (0.3, 0.1)


def test_the_table_is_the_records(study: ModuleType, tmp_path: Path) -> None:
    """Two seeds of no regulariser and of RFM, which wins in the tail."""
    assert "Not run yet" in study.sections(tmp_path)["ssl"]
    stored = RunRecord.read(ROOT / "benchmarks" / "results" / "movielens-1m-seed0.json")

    def record(variant: str, seed: int, tail: float) -> None:
        ranges = {"ndcg@10": Range(value=tail, low=0.0, high=1.0, users=9)}
        sliced = SliceRecord(by="item_frequency", name="tail", users=9, small=True, metrics={"model": ranges})
        difference = Difference(
            run=variant, against="none", metric="ndcg@10", by="item_frequency", slice="tail", reference=0.1,
            value=tail, difference=tail - 0.1, low=tail - 0.15, high=tail - 0.05, p=0.01, detectable=0.1,
            real=seed == 0, users=9,
        )  # fmt: skip
        run = study.Run(study.DATA["movielens-1m"], variant, seed, tmp_path)
        update = {"seed": seed, "slices": (sliced,), "differences": () if variant == "none" else (difference,)}
        stored.model_copy(update=update).write(run.path)

    for seed in (0, 1):
        record("none", seed, 0.1)
        record("rfm", seed, 0.2 + 0.02 * seed)
    section = study.sections(tmp_path)["ssl"]
    expected = "`movielens-1m`, weights and temperatures chosen on the validation of `amazon-beauty`, not its own"
    assert section.splitlines()[0] == expected, "and no table for what has no record"
    rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| ")]
    assert rows[0][1:] == ["seeds", "all", "head", "torso", "tail", "cold |"]
    assert rows[2][5] == "0.1000"
    assert rows[3][:2] == ["| RFM", "0, 1"]
    assert rows[3][5].startswith("0.2100")
    assert rows[4][5] == "+0.1100 (+0.0600, +0.1600), real in 1 of 2"
