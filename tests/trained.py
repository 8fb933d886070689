"""One small experiment on simulated users with planted tastes, run once per test session by the command line itself."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

CONFIG = """\
name: small
seed: 1

data:
  source: {kind: simulated, users: 500, items: 200, events: 10000, seed: 3, zipf: 0.5, taste: 3.0}
  positives: {column: rating, at_least: 3}
  split: {kind: leave_last_out}

schema:
  user: user_id
  item: item_id
  timestamp: timestamp
  title: title
  features:
    item_id: {kind: categorical, role: item}
    category: {kind: categorical, role: item}
    tags: {kind: multi_valued, role: item}
    history: {kind: sequence, of: item_id, max_length: 10, age: true}
    user_id: {kind: categorical, role: user}
    age: {kind: categorical, role: user}
    device: {kind: categorical, role: context}

embeddings:
  tables:
    item: {dim: 16}
    user: {dim: 16}
    attribute: {dim: 8}
  features:
    item_id: {table: item}
    history: {table: item}
    user_id: {table: user}
    category: {table: attribute}
    tags: {table: attribute}
    age: {table: attribute}
    device: {table: attribute}
  optimizer: {kind: lazy_adam, learning_rate: 0.01}

model:
  kind: two_tower
  query: {output_dim: 16, dropout: 0.1}
  item: {output_dim: 16, dropout: 0.1}
  loss: {temperature: 0.2}

training: {batch_size: 128, epochs: 3}
evaluation:
  ks: [5, 10, 20]
  category: category
  slices: [{kind: item_frequency}, {kind: user_activity}, {kind: returning}, {feature: age}, {feature: device}]
retrieval:
  index: {kind: scann, promise: {recall@10: 0.5}}
  retriever_k: 10
"""


@dataclass(frozen=True)
class Trained:
    """What `recsys run small.yaml` did."""

    folder: Path
    """The working folder: small.yaml, runs/small."""
    cache: Path
    code: int
    stdout: str
    stderr: str

    @property
    def config(self) -> Path:
        return self.folder / "small.yaml"

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "small"

    @property
    def bundle(self) -> Path:
        return self.run / "bundle" / "1"


def recsys(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The installed command in a process of its own, in `folder`."""
    command = [str(Path(sys.executable).with_name("recsys")), *arguments]
    env = {**os.environ, **environment}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=600)


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The shared run, which tests read and do not change. Workers of pytest-xdist wait for the one that makes it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / "trained"
    cache, result = folder / "cache", folder / "result.json"
    folder.mkdir(exist_ok=True)
    with (shared / "trained.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed
        if not result.exists():
            (folder / "small.yaml").write_text(CONFIG)
            done = recsys(folder, "run", "small.yaml", RECSYS_CACHE=str(cache))
            result.write_text(json.dumps({"code": done.returncode, "stdout": done.stdout, "stderr": done.stderr}))
    trained = Trained(folder, cache, **json.loads(result.read_text()))
    assert trained.code == 0, trained.stderr[-3000:]
    return trained


@pytest.fixture
def trained_copy(trained_run: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """A copy of the shared run and its cache, to be changed at will; its folder is the working folder."""
    folder = tmp_path / "copy"
    shutil.copytree(trained_run.folder, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RECSYS_CACHE", str(folder / "cache"))
    return replace(trained_run, folder=folder, cache=folder / "cache")
