"""docs/getting-started.md, run as it stands there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.documented import blocks

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "getting-started.md").read_text(encoding="utf-8")


def test_the_way_from_a_csv_to_a_served_recommendation(tmp_path: Path) -> None:
    """One shell runs all blocks; job control makes `kill %1` what it is at a prompt."""
    script = "set -euo pipefail -m\ntrap 'kill $(jobs -p) 2> /dev/null' EXIT\n" + "\n".join(blocks(PAGE, "sh"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "RECSYS_CACHE": str(tmp_path / "cache"), "no_proxy": "localhost"}
    written, said = tmp_path / "stdout", tmp_path / "stderr"
    with written.open("w") as out, said.open("w") as err:  # no pipes: a server that outlives the shell would hold them
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=environment, stdout=out, stderr=err, check=False
        )
    output = written.read_text()
    assert done.returncode == 0, f"{output[-2000:]}\n{said.read_text()[-3000:]}"
    health, known, unknown = answers(output[output.index('{"ready"') :])
    assert health["ready"]
    assert len(known["items"]) == len(unknown["items"]) == 5
    run = tmp_path / "runs" / "clicks"
    assert all((run / each).exists() for each in ("bundle/1/manifest.json", "report.html"))


def answers(text: str) -> list[dict[str, Any]]:
    """JSON objects among other lines: the server logs its requests where curl writes."""
    found, at = [], text.find("{")
    while at >= 0:
        answer, end = json.JSONDecoder().raw_decode(text, at)
        found.append(answer)
        at = text.find("{", end)
    return found
