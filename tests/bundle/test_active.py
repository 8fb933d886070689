"""Which bundle of a folder is served, and going back."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys.bundle.active import activate, active_version, rollback
from recsys.cli import main
from recsys.errors import BundleError


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    for number in (1, 2, 10):
        (tmp_path / "bundle" / str(number)).mkdir(parents=True)
    (tmp_path / "bundle" / ".draft-11").mkdir()
    return tmp_path / "bundle"


def test_the_highest_number_or_the_one_that_is_named(bundles: Path) -> None:
    assert active_version(bundles) == 10
    assert activate(bundles, 2) == 10
    assert active_version(bundles) == 2
    assert active_version(bundles.parent) is None
    assert [path.name for path in bundles.iterdir() if path.is_file()] == ["active"]


def test_back_step_by_step(bundles: Path) -> None:
    assert rollback(bundles.parent) == (10, 2)
    assert rollback(bundles) == (2, 1)
    with pytest.raises(BundleError, match="has no bundle before 1"):
        rollback(bundles)
    assert active_version(bundles) == 1


@pytest.mark.parametrize("text", ["", "3", "two", "-1", "²", "1 2", "../1"])
def test_a_name_of_no_bundle(bundles: Path, text: str) -> None:
    (bundles / "active").write_text(text, encoding="utf-8")
    with pytest.raises(BundleError, match=r"active: names .*one of 1, 2, 10; recsys activate"):
        active_version(bundles)
    assert activate(bundles, 2) is None  # which mends it
    assert active_version(bundles) == 2


def test_mistakes_of_the_command_line(bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["activate", str(bundles), "7"]) == 1
    assert "has no bundle 7; expected one of 1, 2, 10" in capsys.readouterr().err
    (bundles / "2" / "manifest.json").touch()
    assert main(["rollback", str(bundles / "2")]) == 1
    assert "is one bundle" in capsys.readouterr().err
    assert main(["rollback", str(tmp_path / "absent")]) == 1
    assert "holds no numbered bundle" in capsys.readouterr().err
