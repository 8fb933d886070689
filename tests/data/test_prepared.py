"""A prepared folder small enough to compute every window and every held-out query on paper.

user  events (time: item, stage)
ann   10: 0 train, 20: 1 train, 20: 2 train, 30: 3 valid, 40: 4 test, 45: 0 test
bob   5: 4 train, 50: 4 test                                                   (what is held out was seen)
cem   -                                                                        (one negative example in test)
dee   7: 2 context, 9: 1 test                                                  (a held-out user)
eva   8: 3 train                                                               (nothing held out)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.data.dataset import (
    CategoricalInfo,
    Counts,
    DatasetInfo,
    FingerprintInfo,
    NumericInfo,
    SequenceInfo,
    VectorInfo,
)
from recsys.data.prepared import Prepared
from recsys.errors import DataError
from recsys.schema.config import SchemaConfig

ANN, BOB, CEM, DEE, EVA = range(5)
START = np.array([0, 6, 8, 8, 10], np.int64)
FINGERPRINTS = np.array([2**62 + 1, 2**40 + 3, 0, 5, 2**62 + 7], np.int64)
EVENTS = {
    "user_index": pa.array([0, 0, 0, 0, 0, 0, 1, 1, 3, 3, 4], pa.int32()),
    "item_index": pa.array([0, 1, 2, 3, 4, 0, 4, 4, 2, 1, 3], pa.int32()),
    "time": pa.array([10, 20, 20, 30, 40, 45, 5, 50, 7, 9, 8], pa.int64()),
    "stage": pa.array([0, 0, 0, 1, 2, 2, 0, 2, 3, 2, 0], pa.int8()),
}
SCHEMA: dict[str, Any] = {
    "user": "user",
    "item": "item",
    "timestamp": "time",
    "features": {
        "film": {"kind": "categorical", "role": "item"},
        "recent": {"kind": "sequence", "of": "film", "max_length": 3, "age": True},
    },
}


def _info(unit: Literal["s", "ms", "us"]) -> DatasetInfo:
    return DatasetInfo(
        name="paper",
        digest="paper",
        table_schema=SchemaConfig.model_validate(SCHEMA | {"timestamp_unit": unit}),
        features={
            "film": CategoricalInfo(role="item", rows=7, oov_rows=1),
            "print": FingerprintInfo(role="item"),
            "tags": CategoricalInfo(role="item", rows=9, oov_rows=1, max_length=3),
            "marks": FingerprintInfo(role="user", max_length=2),
            "taste": VectorInfo(role="user", dim=2),
            "screen": CategoricalInfo(role="context", rows=9, oov_rows=1),
            "price": NumericInfo(role="context", transform="standardize", mean=0.0, std=1.0),
            "shops": CategoricalInfo(role="item", input=False, rows=9, oov_rows=1, max_length=2),
            "region": NumericInfo(role="user", input=False, transform="standardize", mean=0.0, std=1.0),
            "site": FingerprintInfo(role="context", input=False),
            "recent": SequenceInfo(of="film", max_length=3, age=True),
            "prints": SequenceInfo(of="print", max_length=5, age=False),
        },
        counts=Counts(users=5, items=5, events=11, train=1, valid=1, test=5, dropped=0),
        split="temporal",
        has_time=True,
        rows_per_group=64,
    )


def _part(path: Path, *rows: tuple[int, int, float, int, int, int, float]) -> None:
    """(user, item, label, time, history_stop, screen, price) of each example; by the time go weight, site and
    propensity.
    """
    user, item, label, time, stop, screen, price = zip(*rows, strict=True)
    path.mkdir()
    columns = {
        "user_index": pa.array(user, pa.int32()),
        "item_index": pa.array(item, pa.int32()),
        "label": pa.array(label, pa.float32()),
        "weight": pa.array([moment / 10 for moment in time], pa.float32()),
        "time": pa.array(time, pa.int64()),
        "history_stop": pa.array(stop, pa.int64()),
        "screen": pa.array(screen, pa.int32()),
        "price": pa.array(price, pa.float32()),
        "site": pa.array([2 * moment for moment in time], pa.int64()),
        "propensity": pa.array([1 / moment for moment in time], pa.float64()),
    }
    pq.write_table(pa.table(columns), path / "part-00000.parquet")


def write_paper(path: Path, unit: Literal["s", "ms", "us"] = "s") -> Path:
    path.mkdir()
    items = {
        "item": [f"i{n}" for n in range(5)],
        "train_count": pa.array([1, 1, 1, 1, 1], pa.int64()),
        "film": pa.array([2, 3, 4, 5, 6], pa.int32()),
        "print": pa.array(FINGERPRINTS),
        "tags": pa.array([[7], [], [5, 3, 8], [2, 4], [6]], pa.list_(pa.int32())),
        "shops": pa.array([[3], [], [2, 4], [5], [6]], pa.list_(pa.int32())),
    }
    users = {
        "user": ["ann", "bob", "cem", "dee", "eva"],
        "event_start": pa.array(START),
        "event_count": pa.array([6, 2, 0, 2, 1], pa.int32()),
        "marks": pa.array([[2**61, 3], [], [1], [], [2]], pa.list_(pa.int64())),
        "taste": pa.array([[n, n + 0.5] for n in range(5)], pa.list_(pa.float32(), 2)),
        "region": pa.array([0.5, 1.5, np.nan, 3.5, 4.5], pa.float32()),
    }
    pq.write_table(pa.table(items), path / "items.parquet", row_group_size=2)
    pq.write_table(pa.table(users), path / "users.parquet", row_group_size=2)
    (path / "events").mkdir()
    pq.write_table(pa.table(EVENTS), path / "events" / "part-00000.parquet", row_group_size=4)
    _part(path / "train", (ANN, 2, 1.0, 20, 1, 1, 0.0))
    _part(path / "valid", (ANN, 3, 1.0, 30, 3, 2, 0.5))
    _part(  # the later of Ann's two stands first
        path / "test",
        (ANN, 0, 1.0, 45, 5, 7, 7.5),
        (DEE, 1, 1.0, 9, 9, 5, 5.5),
        (CEM, 2, 0.0, 60, 8, 8, 8.5),
        (ANN, 4, 1.0, 40, 4, 3, 3.5),
        (BOB, 4, 1.0, 50, 7, 4, 4.5),
    )
    (path / "dataset.json").write_text(_info(unit).model_dump_json())
    return path


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(write_paper(tmp_path_factory.mktemp("prepared") / "paper"))


def _query(prepared: Prepared, user: list[int], stop: list[int], time: list[int]) -> dict[str, Any]:
    return prepared.query_features(np.array(user, np.int32), np.array(stop, np.int64), {}, np.array(time, np.int64))


def test_a_history_keeps_the_newest_oldest_first_and_pads_the_end(paper: Prepared) -> None:
    query = _query(paper, [ANN, ANN, ANN, BOB, CEM, EVA, EVA], [1, 5, 6, 7, 8, 10, 11], [20, 45, 46, 50, 60, 8, 9])
    assert query["recent"].tolist() == [[2, 0, 0], [4, 5, 6], [5, 6, 2], [6, 0, 0], [0, 0, 0], [0, 0, 0], [5, 0, 0]]
    assert query["recent"].dtype == np.int32
    ages = [[10, 0, 0], [25, 15, 5], [16, 6, 1], [45, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0]]
    assert query["recent.age"].tolist() == ages
    assert query["recent.age"].dtype == np.float32


def test_fingerprints_keep_all_63_bits_in_histories(paper: Prepared) -> None:
    query = _query(paper, [ANN, BOB], [5, 8], [45, 60])
    assert query["prints"].dtype == np.int64
    assert query["prints"].tolist() == [FINGERPRINTS.tolist(), [FINGERPRINTS[4], FINGERPRINTS[4], 0, 0, 0]]
    assert "prints.age" not in query


@pytest.mark.parametrize(("unit", "second"), [("s", 1), ("ms", 1_000), ("us", 1_000_000)])
def test_ages_are_seconds_in_every_unit(tmp_path: Path, unit: Literal["s", "ms", "us"], second: int) -> None:
    query = _query(Prepared(write_paper(tmp_path / "p", unit)), [ANN], [3], [20 + 90 * second])
    expected = np.float32([[(10 + 90 * second) / second, 90.0, 90.0]])
    np.testing.assert_array_equal(query["recent.age"], expected)


def test_multi_valued_columns_are_padded_at_the_end(paper: Prepared) -> None:
    tags = paper.item_features["tags"]
    assert tags.tolist() == [[7, 0, 0], [0, 0, 0], [5, 3, 8], [2, 4, 0], [6, 0, 0]]
    assert tags.dtype == np.int32
    marks = paper.user_features["marks"]
    assert marks.tolist() == [[2**61, 3], [0, 0], [1, 0], [0, 0], [2, 0]]
    assert marks.dtype == np.int64


def test_vectors_are_a_matrix(paper: Prepared) -> None:
    taste = _query(paper, [DEE, ANN], [8, 0], [7, 10])["taste"]
    assert taste.tolist() == [[3.0, 3.5], [0.0, 0.5]]
    assert taste.dtype == np.float32


def test_held_out_asks_at_the_moment_of_the_first_held_out_positive(paper: Prepared) -> None:
    held_out = paper.held_out("test")
    assert held_out.user_index.tolist() == [ANN, BOB, DEE]
    assert [sorted(row.tolist()) for row in held_out.relevant] == [[0, 4], [4], [1]]
    assert [sorted(row.tolist()) for row in held_out.seen] == [[0, 1, 2, 3], [4], [2]]
    query = held_out.query
    assert query["screen"].tolist() == [3, 4, 5]
    assert query["price"].tolist() == [3.5, 4.5, 5.5]
    assert query["recent"].tolist() == [[3, 4, 5], [6, 0, 0], [4, 0, 0]]
    assert query["recent.age"].tolist() == [[20, 20, 10], [45, 0, 0], [2, 0, 0]]
    assert query["taste"].tolist() == [[0.0, 0.5], [1.0, 1.5], [3.0, 3.5]]


def test_held_out_knows_the_context_that_the_model_does_not_read(paper: Prepared) -> None:
    held_out = paper.held_out("test")
    assert list(held_out.context) == ["screen", "price", "site"]
    assert held_out.context["site"].tolist() == [80, 100, 18]
    assert held_out.context["screen"].tolist() == held_out.query["screen"].tolist() == [3, 4, 5]
    assert set(held_out.query) == {"marks", "taste", "screen", "price", "recent", "recent.age", "prints"}


def test_a_gain_stands_by_its_event(paper: Prepared) -> None:
    held_out = paper.held_out("test")
    gains = dict(
        zip(zip(held_out.relevant.row_of_value, held_out.relevant.values, strict=True), held_out.gain, strict=True)
    )
    assert gains == pytest.approx({(0, 4): 4.0, (0, 0): 4.5, (1, 4): 5.0, (2, 1): 0.9})
    assert held_out.gain.dtype == np.float32


def test_values_of_any_feature_that_users_or_items_have(paper: Prepared) -> None:
    assert paper.values("shops").tolist() == [[3, 0], [0, 0], [2, 4], [5, 0], [6, 0]]
    np.testing.assert_array_equal(paper.values("region"), np.float32([0.5, 1.5, np.nan, 3.5, 4.5]))
    assert paper.values("film").tolist() == [2, 3, 4, 5, 6]
    assert paper.values("taste").shape == (5, 2)
    for name in ("recent", "screen", "site"):
        with pytest.raises(ValueError, match=f"{name} is no column of the users or the items"):
            paper.values(name)


def test_columns_of_a_part_in_the_order_of_its_files(paper: Prepared) -> None:
    table = paper.examples("test", ["site", "propensity", "user_index"])
    assert table.column_names == ["site", "propensity", "user_index"]
    assert table["site"].to_pylist() == [90, 18, 120, 80, 100]
    assert table["propensity"].to_pylist() == [1 / 45, 1 / 9, 1 / 60, 1 / 40, 1 / 50]


def test_validation_knows_nothing_of_the_test_part(paper: Prepared) -> None:
    held_out = paper.held_out("valid")
    assert held_out.user_index.tolist() == [ANN]
    assert held_out.relevant[0].tolist() == [3]
    assert sorted(held_out.seen[0].tolist()) == [0, 1, 2]
    assert held_out.query["recent"].tolist() == [[2, 3, 4]]


def test_seen_before_has_a_row_for_every_user(paper: Prepared) -> None:
    def rows(part: Any) -> list[list[int]]:
        return [sorted(row.tolist()) for row in paper.seen_before(part)]

    assert rows("train") == [[], [], [], [2], []]
    assert rows("test") == [[0, 1, 2, 3], [4], [], [2], [3]]
    assert rows(None) == [[0, 0, 1, 2, 3, 4], [4, 4], [], [1, 2], [3]]


def test_names_by_role(paper: Prepared) -> None:
    assert paper.names("item") == ["film", "print", "tags"]
    assert paper.names("user", "context") == ["marks", "taste", "screen", "price", "recent", "prints"]
    assert list(paper.user_features) == ["marks", "taste"]
    assert list(paper.item_features) == ["film", "print", "tags"]
    assert set(paper.info.features) - set(paper.info.inputs) == {"shops", "region", "site"}


@pytest.mark.parametrize(
    "text",
    [None, "", "{", '{"format": 1}', "\xff", "[]"],
    ids=["absent", "empty", "cut off", "incomplete", "no text", "a list"],
)
def test_a_damaged_dataset_json_is_named(tmp_path: Path, text: str | None) -> None:
    folder = write_paper(tmp_path / "p")
    if text is None:
        (folder / "dataset.json").unlink()
    else:
        (folder / "dataset.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError) as caught:
        Prepared(folder)
    assert caught.value.problems[0].place == str(folder / "dataset.json")
    assert "prepare again" in str(caught.value)


def test_another_format_is_refused(tmp_path: Path) -> None:
    folder = write_paper(tmp_path / "p")
    text = (folder / "dataset.json").read_text()
    assert '"format":1' in text
    (folder / "dataset.json").write_text(text.replace('"format":1', '"format":2'))
    with pytest.raises(DataError, match="prepare again"):
        Prepared(folder)


@pytest.mark.parametrize("name", ["items.parquet", "users.parquet", "events", "train"])
def test_a_folder_that_lacks_a_table_is_refused(tmp_path: Path, name: str) -> None:
    folder = write_paper(tmp_path / "p")
    (folder / name).rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=f"lacks {name}.*prepare again"):
        Prepared(folder)


def test_a_part_without_examples_is_an_error(tmp_path: Path) -> None:
    folder = write_paper(tmp_path / "p")
    (folder / "valid" / "part-00000.parquet").unlink()
    with pytest.raises(DataError, match=r"paper: valid: no examples.*data\.split"):
        Prepared(folder).held_out("valid")
    with pytest.raises(DataError, match=r"paper: valid: no examples.*data\.split"):
        Prepared(folder).examples("valid", ["label"])
