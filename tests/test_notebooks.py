"""The notebooks run as they stand, and are stored as they ran."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from notebooks.execute import executed

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
SHOWN = {
    "1-your-own-csv": "assert len(record.metrics) >= 3 and (experiment.folder / 'report.html').exists()",
    "2-methods-and-bytes": "assert found.loc['int8, 16 wide', 'bytes'] < 0.3 * found.loc['full, 16 wide', 'bytes']",
    "3-long-histories": "search = [each['search, NDCG@10'] for each in quality.values()]; assert search[0] < search[1]",
    "4-towers-to-server": "assert len(answer['items']) == 5 and curve.point.keeps(bundle.index.config)",
}
"""What must be true at the end."""


@pytest.mark.parametrize("name", SHOWN)
def test_a_notebook_runs(name: str, tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(SHOWN[name]))
    executed(notebook, tmp_path)


def test_every_notebook_is_run() -> None:
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(SHOWN)


@pytest.mark.parametrize("name", SHOWN)
def test_a_notebook_is_stored_with_what_it_printed(name: str) -> None:
    """From the first cell to the last, in one go, without warnings, and without the paths of whoever ran it."""
    text = (NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8")
    code = [cell for cell in nbformat.reads(text, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert any(output.output_type in ("execute_result", "display_data") for output in outputs)
    assert not [output for output in outputs if output.output_type == "error"]
    assert not re.findall(r"Warning|/(?:root|home|tmp)/\w+", text)
