import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from recsys.errors import DataError
from recsys.evaluation import Cost, Environment, RunRecord, peak_memory_mib


def record(**changes: object) -> RunRecord:
    content: dict[str, object] = {
        "name": "naïve run",
        "config_digest": "c" * 64,
        "data_digest": "d" * 64,
        "seed": 0,
        "environment": Environment.here(),
        "metrics": {"model": {"ndcg@10": 0.21}, "popularity": {"ndcg@10": 0.104}},
        "counts": {"users": 6, "users_without_relevant": 1},
        "cost": Cost(seconds={"train": 1.5}, peak_memory_mib=peak_memory_mib()),
    }
    return RunRecord.model_validate(content | changes)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "one" / "metrics.json"
    written = record()
    written.write(path)
    assert RunRecord.read(path) == written
    assert [file.name for file in path.parent.iterdir()] == ["metrics.json"]
    plain = json.loads(path.read_text(encoding="utf-8"))
    assert plain["metrics"]["popularity"] == {"ndcg@10": 0.104}
    created = datetime.fromisoformat(plain["created"])
    assert created.utcoffset() == timedelta(0)
    assert abs(created - datetime.now(UTC)) < timedelta(minutes=1)


def test_the_environment_is_this_one() -> None:
    here = Environment.here()
    assert here.versions["tensorflow"].startswith("2.20.")
    assert here.cores >= 1
    assert 0 < peak_memory_mib() < here.memory_gib * 1024


def test_a_later_record_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    record(seed=1).write(tmp_path / "metrics.json")
    record(seed=2).write(tmp_path / "metrics.json")
    assert RunRecord.read(tmp_path / "metrics.json").seed == 2


def test_a_failed_write_leaves_the_old_record_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.json"
    record(seed=1).write(path)

    def fail(*_: object) -> None:
        raise OSError("killed")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="killed"):
        record(seed=2).write(path)
    assert RunRecord.read(path).seed == 1
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_metric_is_finite(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        record(metrics={"model": {"ndcg@10": value}})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], r"metrics\.json: file: Invalid JSON"),
        (lambda text: text.replace('"seed": 0', '"seed": "0"'), r"metrics\.json: seed: .*integer"),
        (lambda text: text.replace('"seed": 0', '"sed": 0'), r"metrics\.json: seed: Field required"),
        (lambda text: text.replace('"format": 1', '"format": 2'), r"metrics\.json: format: "),
        (lambda text: text.replace("0.21", '"high"'), r"metrics\.json: metrics\.model\.ndcg@10: "),
    ],
)
def test_damage_is_named(tmp_path: Path, damage, message: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "metrics.json"
    record().write(path)
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        RunRecord.read(path)


def test_a_missing_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json: cannot be read \(No such file"):
        RunRecord.read(tmp_path / "none.json")
