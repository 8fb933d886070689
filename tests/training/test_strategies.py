"""The same global batch on two virtual devices, or on two workers, gives what one process gives."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.errors import ConfigError
from recsys.training.config import TrainingConfig
from tests.training.trainees import finish, finished, start
from tests.worlds import write_world

# Replicas would draw other dropout masks than one process; everything else must agree.
OPTIONS = ("dropout=0", "epochs=2", "batch=64", "every=0")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world") / "prepared", users=48, per_user=12)


@pytest.fixture(scope="module")
def alone(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return finish(world, tmp_path_factory.mktemp("alone"), *OPTIONS)


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["step"] == expected["step"] > 0
    for mine, theirs in zip(found["history"], expected["history"], strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    np.testing.assert_allclose(found["ids"], expected["ids"], rtol=1e-3, atol=1e-5)
    assert len(found["dense"]) == len(expected["dense"])
    for mine, theirs in zip(found["dense"].values(), expected["dense"].values(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-5)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def cluster(**jobs: int) -> dict[str, list[str]]:
    ports = iter(free_ports(sum(jobs.values())))
    return {job: [f"127.0.0.1:{next(ports)}" for _ in range(count)] for job, count in jobs.items()}


def member(jobs: dict[str, list[str]], job: str, index: int) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": jobs, "task": {"type": job, "index": index}})}


def test_two_mirrored_devices_are_one_process(world: Path, alone: dict[str, Any], tmp_path: Path) -> None:
    assert_same(finish(world, tmp_path, *OPTIONS, "strategy=mirrored", "devices=2"), alone)


def test_mirrored_devices_sum_what_they_saw(tmp_path: Path) -> None:
    """AUC and logloss of a ranker in training are those of the whole batches."""
    world = write_world(tmp_path / "prepared", users=48, per_user=12, negatives=0.5)
    alone = finish(world, tmp_path / "alone", *OPTIONS, "model=ranker")["history"]
    mirrored = finish(world, tmp_path / "run", *OPTIONS, "model=ranker", "strategy=mirrored", "devices=2")["history"]
    for mine, theirs in zip(mirrored, alone, strict=True):
        assert mine["logloss"] == pytest.approx(theirs["logloss"], rel=1e-5)
        assert mine["auc"] == pytest.approx(theirs["auc"], abs=1e-4)


def test_two_loopback_workers_are_one_process(world: Path, alone: dict[str, Any], tmp_path: Path) -> None:
    jobs = cluster(worker=2)
    workers = [
        start(world, tmp_path, *OPTIONS, "strategy=multi_worker", f"task={n}", env=member(jobs, "worker", n))
        for n in range(2)
    ]
    for n, worker in enumerate(workers):
        assert_same(finished(worker, tmp_path, str(n)), alone)
    kept = {path.name.split(".")[0] for path in (tmp_path / "checkpoints").iterdir()}
    assert not [name for name in kept if name.startswith("worker")], "only the chief's checkpoints stay"


def test_a_parameter_server_cluster_learns_and_one_process_goes_on_from_it(
    world: Path, alone: dict[str, Any], tmp_path: Path
) -> None:
    """With two servers, so that the large table is cut; the checkpoint holds it whole."""
    jobs = cluster(chief=1, worker=1, ps=2)
    options = (*OPTIONS, "strategy=parameter_server")
    remote = [("worker", 0), ("ps", 0), ("ps", 1)]
    others = [start(world, tmp_path, *options, env=member(jobs, job, n)) for job, n in remote]
    try:
        result = finished(start(world, tmp_path, *options, env=member(jobs, "chief", 0)), tmp_path)
    finally:
        for process in others:
            process.kill()
            process.join()
    assert result["step"] == alone["step"]
    losses = [epoch["loss"] for epoch in result["history"]]
    assert losses[-1] < losses[0], "asynchronous training follows no fixed numbers, but it learns"
    later = finish(world, tmp_path, *OPTIONS)
    assert [later[key] for key in ("step", "ids", "history")] == [result[key] for key in ("step", "ids", "history")]


def test_a_cluster_strategy_needs_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    from recsys.training.strategies import make_strategy

    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ConfigError, match=r"training\.strategy: multi_worker without .*TF_CONFIG.*set TF_CONFIG"):
        make_strategy(TrainingConfig(strategy="multi_worker"))


@pytest.mark.parametrize(
    ("strategy", "jobs", "job", "index", "chief"),
    [
        ("multi_worker", ("worker",), "worker", 0, True),
        ("multi_worker", ("worker",), "worker", 1, False),
        ("multi_worker", ("chief", "worker"), "chief", 0, True),
        ("multi_worker", ("chief", "worker"), "worker", 0, False),
        ("parameter_server", ("chief", "worker", "ps"), "ps", 0, False),
        ("default", ("worker",), "worker", 1, True),
    ],
)
def test_one_process_is_the_chief(
    monkeypatch: pytest.MonkeyPatch, strategy: Any, jobs: tuple[str, ...], job: str, index: int, chief: bool
) -> None:
    from recsys.training.strategies import is_chief

    found = {"cluster": {name: ["a:1", "b:1"] for name in jobs}, "task": {"type": job, "index": index}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(found))
    assert is_chief(TrainingConfig(strategy=strategy)) is chief


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{cluster:", r"TF_CONFIG: is no JSON \(.*; expected the cluster and this process's task as JSON"),
        ("[1]", r"TF_CONFIG: is \[1\]; expected a JSON object"),
        (
            '{"cluster": {"worker": ["a:1"], "chief": ["b:1"]}, "task": {"type": "chief", "index": 0}}',
            r"training\.strategy: parameter_server but TF_CONFIG names no ps; .*set TF_CONFIG",
        ),
    ],
)
def test_an_unsound_cluster(monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    from recsys.training.strategies import make_strategy

    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ConfigError, match=message):
        make_strategy(TrainingConfig(strategy="parameter_server"))


def test_without_a_cluster_a_process_is_its_own_chief(monkeypatch: pytest.MonkeyPatch) -> None:
    from recsys.training.strategies import is_chief

    monkeypatch.setenv("TF_CONFIG", "")
    assert is_chief(TrainingConfig(strategy="multi_worker"))
