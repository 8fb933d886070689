"""`recsys recommend --similar` and `--complement`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from recsys.cli import main
from tests.tiny_bundle import ITEMS, write

INPUTS = np.array([[1, 0], [0, 1], [1, 1], [0, 0], [0, 1], [1, 0]], np.float32)
OUTPUTS = np.array([[9, 0], [5, 1], [0, 7], [1, 2], [2, 3], [3, 0]], np.float32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("beside") / "bundle", beside=(INPUTS, OUTPUTS))


def items(bundle: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[tuple[str, float]]:
    assert main(["recommend", str(bundle), *arguments, "--json"]) == 0
    return [(each["item"], each["score"]) for each in json.loads(capsys.readouterr().out)["items"]]


def test_what_goes_with_an_item_is_told_by_the_other_vectors(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Item 0 asks with (1, 0): outputs 0, which is itself, 9; then 1: 5, 5: 3, 4: 2."""
    assert items(bundle, capsys, "--complement", ITEMS[0], "-k", "3") == [(ITEMS[1], 5), (ITEMS[5], 3), (ITEMS[4], 2)]
    # And it goes with item 1 by (0, 1) less than all others do: the relation has a direction.
    assert items(bundle, capsys, "--complement", ITEMS[1], "-k", "5")[-1] in [(ITEMS[0], 0), (ITEMS[5], 0)]


def test_items_like_one_are_near_in_the_towers_space(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Item 3 is (0, 0, 0, 1), item 5 half of it; a bundle need not know what goes with items."""
    found = items(tiny_bundle, capsys, "--similar", ITEMS[3], "-k", "5")
    assert found[0] == (ITEMS[5], 0.5)
    assert ITEMS[3] not in [item for item, _ in found]


def test_a_table_for_people(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", str(bundle), "--complement", ITEMS[0], "-k", "1"]) == 0
    out = capsys.readouterr().out
    assert f"Goes with {ITEMS[0]}" in out
    assert [row.split()[0] for row in out.splitlines() if row.strip()][-1] == "1"


@pytest.mark.parametrize(
    ("arguments", "found", "cure"),
    [
        (["--complement", "nothing"], "'nothing' is not in the catalogue", "look it up"),
        (["--complement", ITEMS[3]], "too few events to say what goes with it", "ask for items like it"),
        (["--similar", "nothing"], "'nothing' is not in the catalogue", "look it up"),
        (["--similar", ITEMS[0], "--complement", ITEMS[1]], "--similar and --complement", "one at a time"),
        (["--similar", ITEMS[0], "--user", "1"], "--similar and --user", "one at a time"),
        (["--similar", ITEMS[0], "-k", "0"], "k: 0", "leave it out"),
    ],
)
def test_mistakes_are_one_line_with_a_cure(
    bundle: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], found: str, cure: str
) -> None:
    assert main(["recommend", str(bundle), *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert found in line
    assert cure in line


def test_a_bundle_without_a_second_index(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", str(tiny_bundle), "--complement", ITEMS[0]]) == 1
    assert "add `complements: {}` to the YAML" in capsys.readouterr().err
