"""Losses across replicas: what one process computes on the global batch, whatever is drawn, estimated or remembered."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.worlds import write_world


def test_two_replicas_are_one_process(tmp_path: Path) -> None:
    script = Path(__file__).with_name("on_replicas.py")
    world = write_world(tmp_path / "prepared")
    run = subprocess.run([sys.executable, script, world], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    for loss, found in json.loads(run.stdout.splitlines()[-1]).items():
        one, two = found["one"], found["two"]
        assert one.keys() == two.keys()
        for name, values in one.items():
            if name.startswith(("loss", "ssl_loss", "total", "count")):
                continue  # each replica's sums
            np.testing.assert_allclose(two[name], values, rtol=2e-3, atol=2e-5, err_msg=f"{loss}: {name}")
        moved = [name for name, values in one.items() if "interval" in name and np.ptp(values) > 0]
        assert bool(moved) == (loss == "everything")
