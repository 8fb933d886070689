"""Plans as files: what they hold, what they cost, what is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from recsys.data.dataset import CategoricalInfo, FeatureInfo, NumericInfo
from recsys.embeddings.config import EmbeddingsConfig
from recsys.embeddings.plan import (
    ElementBlock,
    EmbeddingPlan,
    Origin,
    RowBlock,
    TablePlan,
    VocabularyPlan,
    vocabulary_digest,
)
from recsys.embeddings.plan_fit import fitting_plan
from recsys.embeddings.planned import plans_of
from recsys.errors import ConfigError, DataError, RecsysError
from recsys.schema.config import SchemaConfig
from tests.embeddings.plans import mask_of, plan_of_table, random_table

KEPT = np.array([True, False, True, False, False])
ROWS = RowBlock(ids=5, coordinates=(0, 3), kept=KEPT)
SINGLE = ElementBlock(kept=np.eye(4, dtype=bool))


def vocabulary(*blocks: RowBlock | ElementBlock, digest: str = "d", weights: Any = None) -> VocabularyPlan:
    return VocabularyPlan(digest=digest, blocks=blocks, weights=weights)


def plan(**tables: TablePlan) -> EmbeddingPlan:
    origin = Origin(method="dnis", run="small", seed=3, budget=1_000, metrics={"auc": 0.75}, notes="a note")
    return EmbeddingPlan(origin=origin, tables=tables)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A plan with arrays of all sorts."""
    numbers = np.arange(8, dtype=np.float32)
    own = {"a": vocabulary(RowBlock(ids=1, coordinates=4), SINGLE, weights=numbers), "b": vocabulary(ROWS)}
    plan(t=TablePlan(dim=4, vocabularies=own)).save(tmp_path / "p")
    return tmp_path / "p"


# What it says.


def test_masks_by_hand() -> None:
    assert ROWS.mask(4).astype(int).tolist() == [[1, 0, 0, 1], [0] * 4, [1, 0, 0, 1], [0] * 4, [0] * 4]
    assert RowBlock(ids=2, coordinates=3).mask(4).astype(int).tolist() == [[1, 1, 1, 0]] * 2
    assert vocabulary(RowBlock(ids=1, coordinates=0), SINGLE).mask(4).astype(int).tolist() == [
        [0] * 4,
        *np.eye(4, dtype=int).tolist(),
    ]


def test_bytes_by_hand() -> None:
    """Rows, the shared row, numbers; 20 bytes for up to 128 bits, one set of them for all scattered rows of a table."""
    whole = RowBlock(ids=300, coordinates=8)
    scattered = RowBlock(ids=100, coordinates=(1, 5), kept=np.arange(100) < 30, pruned="shared")
    more = RowBlock(ids=100, coordinates=4, kept=np.arange(100) < 50)
    single = ElementBlock(kept=np.arange(1600).reshape(200, 8) < 40)
    table = TablePlan(dim=8, vocabularies={"a": vocabulary(whole, scattered), "b": vocabulary(more, single)})
    bits = 20 * 2 + 20 * 13  # 200 ids in 2 pages, 1,600 numbers in 12.5
    assert table.bytes() == 4 * (300 * 8 + 31 * 2 + 50 * 4 + 40) + bits
    assert table.bytes("float16") == 2 * (300 * 8 + 31 * 2 + 50 * 4 + 40) + bits
    assert table.full_bytes == 4 * 8 * 700
    rows = TablePlan(dim=8, vocabularies={"a": vocabulary(whole, scattered), "b": vocabulary(more)})
    assert rows.bytes("int8") == 300 * 10 + 31 * 4 + 50 * 6 + 20 * 2
    both = plan(t=table, u=rows)
    assert both.bytes({"u": "int8"}) == table.bytes() + rows.bytes("int8")
    assert (both.bytes(), both.full_bytes) == (table.bytes() + rows.bytes(), 4 * 8 * 1_200)


def test_blocks_that_are_whole_or_empty_need_no_bits() -> None:
    for kept, stored in ((np.ones(500, bool), 500), (np.zeros(500, bool), 0)):
        block = RowBlock(ids=500, coordinates=3, kept=kept)
        assert TablePlan(dim=4, vocabularies={"a": vocabulary(block)}).bytes() == 4 * 3 * stored
    shared = RowBlock(ids=500, coordinates=3, kept=np.zeros(500, bool), pruned="shared")
    assert TablePlan(dim=4, vocabularies={"a": vocabulary(shared)}).bytes() == 4 * 3
    nothing = ElementBlock(kept=np.zeros((500, 4), bool))
    assert TablePlan(dim=4, vocabularies={"a": vocabulary(nothing)}).bytes() == 0


# Files.


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_it_survives_its_folder(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    target = tmp_path_factory.mktemp("plans") / "p"
    before = plan_of_table(random_table(seed))
    before.save(target)
    for path in (target, target / "plan.json"):
        after = EmbeddingPlan.load(path)
        assert after.digest == before.digest
        assert after.origin == before.origin
        np.testing.assert_array_equal(mask_of(after.tables["t"]), mask_of(before.tables["t"]))


def test_people_can_read_it(folder: Path) -> None:
    text = (folder / "plan.json").read_text()
    found = json.loads(text)
    assert found["format"] == 1
    assert found["origin"]["method"] == "dnis"
    assert found["tables"]["t"]["vocabularies"]["b"]["blocks"][0]["coordinates"] == [0, 3]
    assert text.count("\n") > 20
    assert len(list(folder.iterdir())) == 4, "the plan, two arrays of bits, one of weights"
    weights = np.load(folder / found["tables"]["t"]["vocabularies"]["a"]["weights"]["file"])
    np.testing.assert_array_equal(weights, np.arange(8))


def test_the_digest_is_of_what_tables_depend_on() -> None:
    """Of every bit and weight; not of where the plan comes from, nor where it is."""
    table = TablePlan(dim=4, vocabularies={"a": vocabulary(ROWS)})
    one = plan(t=table)
    assert one.digest == EmbeddingPlan(origin=Origin(method="other"), tables={"t": table}).digest
    weighted = vocabulary(ROWS, weights=np.zeros(4, np.float32))
    others = [
        vocabulary(ROWS.model_copy(update={"kept": ~KEPT})),
        vocabulary(ROWS.model_copy(update={"pruned": "shared"})),
        vocabulary(ROWS, digest="e"),
        weighted,
        vocabulary(ROWS, weights=np.array([0, 0, 0, 1e-9], np.float32)),
    ]
    digests = {plan(t=TablePlan(dim=4, vocabularies={"a": other})).digest for other in others}
    assert len(digests | {one.digest}) == len(others) + 1


def test_nothing_is_overwritten_and_nothing_half_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (folder / "plan.json").read_bytes()
    again = EmbeddingPlan.load(folder)
    with pytest.raises(DataError, match="is there already"):
        again.save(folder)
    assert (folder / "plan.json").read_bytes() == before
    write = Path.write_bytes

    def full_disk(self: Path, data: bytes) -> int:
        if self.name.startswith("float32"):
            raise OSError("no space left")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="no space"):
        again.save(folder.parent / "q")
    assert [path.name for path in folder.parent.iterdir()] == ["p"]


def test_arrays_of_a_plan_cannot_be_changed_from_outside() -> None:
    kept = KEPT.copy()
    block = RowBlock(ids=5, coordinates=2, kept=kept)
    digest = plan(t=TablePlan(dim=4, vocabularies={"a": vocabulary(block)})).digest
    kept[:] = True
    assert block.kept_rows == 2
    assert plan(t=TablePlan(dim=4, vocabularies={"a": vocabulary(block)})).digest == digest


# Damage.


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def act(folder: Path) -> None:
        path = folder / "plan.json"
        raw = json.loads(path.read_text())
        change(raw)
        path.write_text(json.dumps(raw))

    return act


def own(raw: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = raw["tables"]["t"]["vocabularies"][name]
    return found


def array(folder: Path, kind: str) -> Path:
    return next(folder.glob(f"{kind}-*.npy"))


def flip(folder: Path) -> None:
    path = array(folder, "bool")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def replace(folder: Path, values: np.ndarray, kind: str = "float32") -> None:
    """Another array, whose digest the plan holds."""
    path = array(folder, kind)
    np.save(path, values)
    text = (folder / "plan.json").read_text()
    raw = json.loads(text)
    reference = own(raw, "a")["weights"]
    reference |= {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "shape": list(values.shape)}
    (folder / "plan.json").write_text(json.dumps(raw))


DAMAGE: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "a bit": (flip, ("plan.json: tables.t.vocabularies.", "kept: ", "is not what the plan was saved with (SHA-256)")),
    "a file gone": (lambda f: array(f, "float32").unlink(), ("vocabularies.a.weights: ", "cannot be read (No such")),
    "cut JSON": (lambda f: (f / "plan.json").write_text("{"), ("plan.json: ", "Invalid JSON")),
    "no plan": (lambda f: (f / "plan.json").unlink(), ("plan.json: no such plan", "a plan's folder", "recsys search")),
    "another format": (edit(lambda raw: raw.update(format=2)), ("plan.json: format: ", "Input should be 1")),
    "an unknown key": (edit(lambda raw: raw.update(extra=1)), ("plan.json: extra: ", "not permitted")),
    "another shape": (
        edit(lambda raw: own(raw, "b")["blocks"][0]["kept"].update(shape=[4])),
        ("vocabularies.b.blocks.0.rows.kept: ", "has the shape (5,), not (4,)"),
    ),
    "a file elsewhere": (
        edit(lambda raw: own(raw, "a")["weights"].update(file="../x.npy")),
        ("'../x.npy' is no file of the plan's folder",),
    ),
    "ids that do not fit": (
        edit(lambda raw: own(raw, "b")["blocks"][0].update(ids=6)),
        ("6 ids, but `kept` has", "(5,)"),
    ),
    "a width beyond the table": (
        edit(lambda raw: own(raw, "b")["blocks"][0].update(coordinates=[0, 4])),
        ("plan.json: tables.t: ", "block 0 of 'b' is 5 wide, the table 4"),
    ),
    "falling coordinates": (
        edit(lambda raw: own(raw, "b")["blocks"][0].update(coordinates=[3, 0])),
        ("coordinates must rise",),
    ),
    "no number": (
        lambda f: replace(f, np.array([np.nan] * 8, np.float32)),
        ("vocabularies.a.weights: ", "a number that is not finite"),
    ),
    "too few weights": (lambda f: replace(f, np.zeros(7, np.float32)), ("8 numbers are kept", "(7,)")),
    "weights of another type": (lambda f: replace(f, np.zeros(8)), ("numbers of type float64, not float32",)),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_said_in_one_line(name: str, folder: Path) -> None:
    act, words = DAMAGE[name]
    act(folder)
    with pytest.raises(DataError) as raised:
        EmbeddingPlan.load(folder)
    lines = str(raised.value).splitlines()
    assert len(lines) == len(raised.value.problems) == 1
    for word in (str(folder), *words):
        assert word in lines[0]


def test_pickles_are_not_opened(folder: Path) -> None:
    np.save(array(folder, "float32"), np.array([{}], object), allow_pickle=True)
    raw = json.loads((folder / "plan.json").read_text())
    reference = own(raw, "a")["weights"]
    reference["sha256"] = hashlib.sha256(array(folder, "float32").read_bytes()).hexdigest()
    (folder / "plan.json").write_text(json.dumps(raw))
    with pytest.raises(DataError, match="allow_pickle=False"):
        EmbeddingPlan.load(folder)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: RowBlock(ids=3, coordinates=(1, 1)),
        lambda: RowBlock(ids=3, coordinates=-1),
        lambda: RowBlock(ids=3, coordinates=1, kept=np.ones((3, 1), bool)),
        lambda: RowBlock(ids=0, coordinates=1),
        lambda: TablePlan(dim=3, vocabularies={"a": vocabulary(SINGLE)}),
        lambda: TablePlan(dim=5, vocabularies={"a": vocabulary(SINGLE)}),
        lambda: TablePlan(dim=5, vocabularies={"a": vocabulary(ElementBlock(kept=np.ones(5, bool)))}),
        lambda: TablePlan(dim=5, vocabularies={}),
        lambda: vocabulary(),
        lambda: vocabulary(ROWS, weights=np.zeros(3, np.float32)),
    ],
)
def test_what_is_no_plan(wrong: Callable[[], object]) -> None:
    with pytest.raises(ValidationError):
        wrong()


# Whether it fits.

SCHEMA = SchemaConfig.model_validate(
    {
        "user": "u",
        "item": "i",
        "timestamp": "t",
        "features": {
            "a": {"kind": "categorical", "role": "user"},
            "b": {"kind": "categorical", "role": "item"},
            "past": {"kind": "sequence", "of": "b"},
            "price": {"kind": "numeric", "role": "item", "transform": "bucketize"},
        },
    }
)
INFOS: dict[str, FeatureInfo] = {
    "a": CategoricalInfo(role="user", rows=5, oov_rows=1),
    "b": CategoricalInfo(role="item", rows=5, oov_rows=2),
    "price": NumericInfo(role="item", transform="bucketize", mean=0.0, std=1.0, boundaries=(1.0, 2.0, 3.0)),
}
VALUES = {"a": np.array(["x", "y", "z"], object), "b": np.array(["x", "y"], object)}


def config(path: Path, table: dict[str, Any] | None = None, **more: Any) -> EmbeddingsConfig:
    features = {name: {"table": "t"} for name in ("a", "b", "past", "price")}
    raw = {"tables": {"t": {"dim": 4, **(table or {})}}, "features": features, "plan": str(path), **more}
    return EmbeddingsConfig.model_validate(raw)


def sound(**changes: Any) -> TablePlan:
    own = {
        name: vocabulary(
            RowBlock(ids=5, coordinates=2), digest=vocabulary_digest(INFOS[name], lambda n=name: VALUES[n])
        )
        for name in ("a", "b", "price")
    }
    return TablePlan(dim=4, vocabularies=own | changes)


def refused(path: Path, made: EmbeddingPlan, fitting: EmbeddingsConfig) -> str:
    made.save(path)
    with pytest.raises(RecsysError) as raised:
        fitting_plan(fitting, SCHEMA)
    assert isinstance(raised.value, ConfigError)
    (problem,) = raised.value.problems
    assert problem.place.startswith(f"{path}: tables."), problem.place
    assert problem.cure
    return str(problem)


def test_a_plan_that_fits(tmp_path: Path) -> None:
    made = plan(t=sound())
    made.save(tmp_path / "p")
    found = fitting_plan(config(tmp_path / "p"), SCHEMA)
    assert found is not None
    assert found.digest == made.digest
    assert fitting_plan(config(tmp_path / "p").model_copy(update={"plan": None}), SCHEMA) is None
    assert plans_of(config(tmp_path / "p"), INFOS, VALUES.__getitem__).keys() == {"t"}


MISFITS: dict[str, tuple[EmbeddingPlan, dict[str, Any], str]] = {
    "table": (plan(x=sound()), {}, "tables.x: no table 'x' in the config; it has t"),
    "method": (plan(t=sound()), {"table": {"method": "multiplexed", "rows": 9}}, "'t' is multiplexed; set its method"),
    "dim": (plan(t=sound()), {"table": {"dim": 8}}, "tables.t.dim: made for dim 4, and the config's table 't' has 8"),
    "precision": (
        plan(t=sound()),
        {"table": {"precision": "int8"}},
        "set precision of 't' to float32, and served_prec",
    ),
    "int8 of numbers": (
        plan(t=sound(a=vocabulary(SINGLE, RowBlock(ids=1, coordinates=1)))),
        {"table": {"served_precision": "int8"}},
        "set served_precision of 't' to float16",
    ),
    "feature": (plan(t=sound(c=vocabulary(ROWS))), {}, "tables.t.vocabularies.c: no feature that reads table 't'"),
    "lacking": (
        plan(t=TablePlan(dim=4, vocabularies={name: sound().vocabularies[name] for name in ("a", "price")})),
        {},
        "tables.t.vocabularies: lacks 'b', which table 't' holds too",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit_a_config(name: str, tmp_path: Path) -> None:
    made, changes, words = MISFITS[name]
    assert words in refused(tmp_path / "p", made, config(tmp_path / "p", **changes))


def test_a_plan_of_another_vocabulary_names_table_feature_found_expected_cure(tmp_path: Path) -> None:
    plan(t=sound()).save(tmp_path / "p")
    others = {"a": VALUES["a"], "b": np.array(["y", "x"], object)}  # the same values by other counts
    with pytest.raises(DataError) as raised:
        plans_of(config(tmp_path / "p"), INFOS, others.__getitem__)
    (problem,) = raised.value.problems
    now = vocabulary_digest(INFOS["b"], lambda: others["b"])
    assert problem.place == f"{tmp_path / 'p'}: tables.t.vocabularies.b"
    assert sound().vocabularies["b"].digest[:12] in problem.found
    assert "5 ids" in problem.found
    assert problem.expected == f"that of the prepared data: 5 ids, digest {now[:12]}"
    assert "recsys search" in problem.cure


def test_the_vocabularys_digest() -> None:
    """Of the order, of how many OOV ids there are, and of a number's buckets; texts do not run together."""

    def of(values: list[str], oov_rows: int = 1) -> str:
        info = CategoricalInfo(role="user", rows=1 + oov_rows + len(values), oov_rows=oov_rows)
        return vocabulary_digest(info, lambda: np.array(values, object))

    assert of(["a", "b"]) == of(["a", "b"])
    buckets = [
        vocabulary_digest(
            NumericInfo(role="item", transform="bucketize", mean=mean, std=1.0, boundaries=bounds), lambda: VALUES["a"]
        )
        for mean, bounds in ((0.0, (1.0, 2.0)), (9.0, (1.0, 2.0)), (0.0, (1.0, 2.5)))
    ]
    assert buckets[0] == buckets[1]
    found = [of(["a", "b"]), of(["b", "a"]), of(["a", "b"], 2), of(["ab"]), of(["a", "b", ""]), buckets[0], buckets[2]]
    assert len(set(found)) == len(found)
