"""`recsys run` by two workers on one machine: one model, one run directory, written by the chief alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from recsys.evaluation.record import RunRecord
from tests.trained import CONFIG, recsys
from tests.training.test_strategies import cluster, member

OVERRIDES = (
    "training.strategy=multi_worker",
    "training.epochs=2",
    # Fingerprints run TensorFlow in `prepare`: a cluster that is joined after that cannot be joined.
    "schema.features.user_id.encoding={kind: hash}",
    "embeddings.tables.user={method: hashed, rows: 1000, dim: 16}",
)


def test_the_chief_alone_writes_evaluates_and_exports(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(CONFIG)
    command = [str(Path(sys.executable).with_name("recsys")), "run", "small.yaml", "--json"]
    command += [word for override in OVERRIDES for word in ("--set", override)]
    jobs = cluster(chief=1, worker=1)
    chief, worker = (
        subprocess.Popen(
            command,
            cwd=tmp_path,
            env=os.environ | member(jobs, job, 0),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for job in ("chief", "worker")
    )
    try:
        (chief_out, chief_err), (worker_out, worker_err) = (each.communicate(timeout=300) for each in (chief, worker))
    finally:
        for each in (chief, worker):
            each.kill()
    assert chief.returncode == 0, chief_err[-3000:]
    assert worker.returncode == 0, worker_err[-3000:]
    assert "the chief evaluates and exports" in worker_err
    assert "exporting" not in worker_err
    assert json.loads(worker_out) == {"path": "runs/small", "bundle": None}
    assert json.loads(chief_out)["bundle"] == "runs/small/bundle/1"

    run = tmp_path / "runs" / "small"
    assert {path.name for path in run.iterdir()} == {
        *("config.yaml", "origin.json", "cost.json", "prepared", "checkpoints"),
        *("logs", "metrics.json", "evaluation", "bundle", "report.html"),
    }
    assert [path.name for path in (run / "bundle").iterdir()] == ["1"]
    assert sorted(path.parent.name for path in (run / "logs").rglob("events.out.*")) == ["train", "validation"]

    later = recsys(tmp_path, "evaluate", "runs/small", "--set", "training.strategy=default", "--json")
    assert later.returncode == 0, later.stderr[-3000:]
    trained = json.loads(chief_out)["metrics"]["model"]
    assert RunRecord.read(run / "metrics.json").metrics["model"] == trained, "one process goes on from a cluster's run"
