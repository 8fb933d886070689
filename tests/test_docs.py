"""The docs' figures are those of the records, and the tests that they name are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from recsys.config.load import load
from recsys.experiment_config import ExperimentConfig
from recsys.models.config import TwoTowerConfig
from recsys.objectives.config import InBatchSoftmaxConfig
from tests.documented import blocks, commands, must_parse

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))


def test_the_figures_of_unified_embedding_are_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python benchmarks/unified_embedding.py --write` makes them so."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from table import marked
    from unified_embedding import PAGE, sections

    page = PAGE.read_text(encoding="utf-8")
    for marks, text in sections().items():
        assert all(page.count(mark) == 1 for mark in marks)
        assert marked(page, marks)[1] == text


def test_the_figures_of_quantized_rows_and_lazy_optimizers_are_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python benchmarks/embedding_quality.py --write` makes them so."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from embedding_quality import MARKS, pages
    from table import marked

    for path, text in pages().items():
        page = path.read_text(encoding="utf-8")
        assert all(page.count(mark) == 1 for mark in MARKS)
        assert marked(page, MARKS)[1] == text


def test_the_frontier_of_methods_is_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python benchmarks/methods.py --write` makes it so."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from methods import MARKS, PAGE, frontier
    from table import marked

    assert marked(PAGE.read_text(encoding="utf-8"), MARKS)[1] == frontier()


def test_the_figures_of_autoint_are_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python benchmarks/autoint.py --write` makes them so."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from autoint import MARKS, PAGE, table
    from table import marked

    assert marked(PAGE.read_text(encoding="utf-8"), MARKS)[1] == table()


def test_the_speed_of_rankers_is_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python benchmarks/ranker_throughput.py --write` makes it so."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from ranker_throughput import MARKS, PAGE, recorded
    from table import marked

    assert marked(PAGE.read_text(encoding="utf-8"), MARKS)[1] == recorded()


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert not [name for name in re.findall(r"`(test_\w+)`", text) if f"def {name}(" not in tests]
    paths = re.findall(r"(?<![\w/.-])(?:recsys|tests|benchmarks|configs|docs)/[\w./-]+\.(?:py|yaml|md)\b", text)
    assert not [path for path in paths if not (ROOT / path).is_file()]


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_commands_on_a_page_take_their_arguments(page: Path) -> None:
    for command in commands(page.read_text(encoding="utf-8")):
        must_parse(command)


def test_the_yaml_of_evaluation_is_sound(tmp_path: Path) -> None:
    """Beside the README's, whose schema it extends."""
    (block,) = blocks((ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8"), "yaml")
    (readme,) = blocks((ROOT / "README.md").read_text(encoding="utf-8"), "yaml")
    (tmp_path / "readme.yaml").write_text(readme, encoding="utf-8")
    whole = "include: [readme.yaml]\n" + block.replace("category: genres", "category: tags")
    (tmp_path / "page.yaml").write_text(whole, encoding="utf-8")
    config = load(tmp_path / "page.yaml", ExperimentConfig).config
    assert len(config.evaluation.slices) == 5
    assert not config.table_schema.features["country"].input


@pytest.mark.parametrize("page", ["two_tower_losses", "ssl"])
def test_the_yaml_of_two_tower_losses_is_sound(page: str, tmp_path: Path) -> None:
    """In the README's experiment."""
    (block,) = blocks((ROOT / "docs" / "methods" / f"{page}.md").read_text(encoding="utf-8"), "yaml")
    (readme,) = blocks((ROOT / "README.md").read_text(encoding="utf-8"), "yaml")
    (tmp_path / "readme.yaml").write_text(readme, encoding="utf-8")
    (tmp_path / "page.yaml").write_text("include: [readme.yaml]\n" + block, encoding="utf-8")
    model = load(tmp_path / "page.yaml", ExperimentConfig).config.model
    assert isinstance(model, TwoTowerConfig)
    assert isinstance(model.loss, InBatchSoftmaxConfig)
    if page == "ssl":
        assert model.ssl is not None
        assert model.ssl.value_dropout == 0.1
    else:
        assert model.loss.mined is not None
        assert model.matryoshka == (16, 32)


@pytest.mark.parametrize("page", ["cold-start", "long-histories", "small-memory"])
def test_the_yaml_of_how_tos_is_sound(page: str, tmp_path: Path) -> None:
    """In the README's experiment."""
    (readme,) = blocks((ROOT / "README.md").read_text(encoding="utf-8"), "yaml")
    (tmp_path / "readme.yaml").write_text(readme, encoding="utf-8")
    for block in blocks((ROOT / "docs" / "how-to" / f"{page}.md").read_text(encoding="utf-8"), "yaml"):
        (tmp_path / "page.yaml").write_text("include: [readme.yaml]\n" + block, encoding="utf-8")
        assert load(tmp_path / "page.yaml", ExperimentConfig).config.name == "shop"
