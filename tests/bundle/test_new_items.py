"""New items from files, and the bundle that has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.bundle import Bundle, Manifest
from recsys.bundle.catalogue_update import next_bundle, queries_of
from recsys.bundle.manifest import CategoricalField, MultiValuedField, NumericField
from recsys.bundle.new_items import NewItems
from recsys.errors import BundleError, DataError, RequestError
from recsys.retrieval import ScannConfig, ScannIndex
from serving import Pipeline, Request
from tests.tiny_bundle import EXACT, ITEMS, VECTORS, write

FIELDS = {
    "sku": CategoricalField(role="item"),
    "tags": MultiValuedField(role="item", max_length=2),
    "price": NumericField(role="item"),
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(write(tmp_path_factory.mktemp("run") / "bundle"))


@pytest.fixture
def shop(bundle: Bundle) -> Manifest:
    """A shop's items, of which no model reads the colour."""
    return bundle.manifest.model_copy(
        update={
            "item": FIELDS,
            "described": {"colour": CategoricalField(role="item")},
            "item_columns": {"item": "product_id", "title": "product_name", "sku": "product_id", "tags": "labels"},
            "item_separators": {"tags": "|"},
        }
    )


CSV = "product_id,product_name,labels,price,colour,weight\n007,Pen,new|red|old,1.5,red,3\n8,,,,,\n"


def test_a_file_like_the_sources(shop: Manifest, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text(CSV)
    found = NewItems.read(tmp_path / "new.csv", shop)
    assert (found.ids, found.titles) == (["007", "8"], ["Pen", None])
    first = {"sku": "007", "tags": ["new", "red", "old"], "price": 1.5, "colour": "red"}
    assert found.features[0] == first
    assert found.features[1]["price"] is None
    assert found.inputs(shop.item)[0] == {name: first[name] for name in ("sku", "tags", "price")}
    schema = pa.schema(
        [
            *((name, pa.string()) for name in ("item", "title", "raw.sku", "raw.colour")),
            ("raw.tags", pa.list_(pa.string())),
            ("raw.price", pa.float32()),
            ("deleted", pa.bool_()),
        ]
    )
    assert found.table(schema).to_pylist() == [
        {
            "item": "007",
            "title": "Pen",
            "raw.sku": "007",
            "raw.tags": ["new", "red", "old"],
            "raw.price": 1.5,
            "raw.colour": "red",
            "deleted": False,
        },
        {
            "item": "8",
            "title": None,
            "raw.sku": "8",
            "raw.tags": [],
            "raw.price": None,
            "raw.colour": None,
            "deleted": False,
        },
    ]


def test_every_kind_of_file_says_the_same(shop: Manifest, tmp_path: Path) -> None:
    rows = [
        {"item": 7, "title": "Pen", "sku": 7, "tags": ["new"], "price": 2, "colour": None},
        {"item": 8, "title": None, "sku": "x", "tags": [], "price": None, "colour": "blue"},
    ]
    (tmp_path / "new.jsonl").write_text("\n".join(json.dumps({**row, "sku": str(row["sku"])}) for row in rows))
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    columns["sku"] = ["7", "x"]
    pq.write_table(pa.table(columns), tmp_path / "new.parquet")
    found = [NewItems.read(tmp_path / name, shop) for name in ("new.jsonl", "new.parquet")]
    assert found[0] == found[1]
    assert found[0].ids == ["7", "8"]
    assert [each["sku"] for each in found[0].features] == ["7", "x"]


@pytest.mark.parametrize(
    ("name", "text", "error", "message"),
    [
        ("a.csv", None, DataError, r"a\.csv: no such file"),
        ("a.txt", "x", DataError, "no known kind of file; expected"),
        ("a.parquet", "x", DataError, r"a\.parquet: cannot be read"),
        ("a.jsonl", "{", DataError, r"a\.jsonl: cannot be read"),
        (
            "a.csv",
            "product_id,price\n1,2\n",
            DataError,
            "no column 'labels' for tags; expected one beside prod",
        ),
        ("a.csv", CSV.replace("8,", "007,"), RequestError, r"items\[1\]\.item: '007' twice"),
        ("a.csv", CSV.replace("8,", ","), RequestError, r"items\[1\]\.item: no id"),
        ("a.csv", CSV.replace("1.5", "cheap"), RequestError, r"items\[0\]\.features\.price: str cheap; expected a num"),
    ],
)
def test_mistakes_in_files(
    shop: Manifest, tmp_path: Path, name: str, text: str | None, error: type[Exception], message: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(error, match=message):
        NewItems.read(tmp_path / name, shop)


def asked(folder: Path) -> list[str]:
    found = Pipeline(Bundle.load(folder)).recommend(Request(user="1", exclude_seen=False)).items
    return [item.item for item in found]


def test_the_next_bundle_has_them(tmp_path: Path) -> None:
    first = write(tmp_path / "bundle")
    bundle = Bundle.load(first)
    new = NewItems.of([{"item": "new", "title": "New", "movie": "9"}, {"item": "2", "movie": "é"}], bundle.manifest)
    second = next_bundle(bundle, new, ["3"])
    assert second.name == "2"
    assert asked(second) == ["9", "new", "日本", "10", "2", "é"]
    assert asked(first) == ["9", "日本", "2", "3", "10", "é"], "the one before is as it was"
    manifests = [Bundle.load(folder).manifest for folder in (first, second)]
    assert manifests[1].catalogue_size == 7
    assert manifests[1].catalogue != manifests[0].catalogue
    third = next_bundle(Bundle.load(second), None, ["new"])
    assert asked(third) == ["9", "日本", "10", "2", "é"]
    fourth = next_bundle(Bundle.load(third), NewItems.of([{"item": "3", "movie": "3"}], bundle.manifest))
    assert asked(fourth) == ["9", "日本", "3", "10", "2", "é"]
    assert pq.read_table(fourth / "items.parquet")["item"].to_pylist() == [*ITEMS, "new"]
    with pytest.raises(RequestError, match="at least one vector"):
        next_bundle(Bundle.load(fourth), None, [*ITEMS, "new"])
    assert sorted(path.name for path in (tmp_path / "bundle").iterdir()) == ["1", "2", "3", "4"]


def test_the_snapshot_says_which_catalogue_it_holds(tmp_path: Path) -> None:
    import tensorflow as tf

    bundle = Bundle.load(write(tmp_path / "bundle"))
    folders = [next_bundle(bundle, NewItems.of([{"item": "new", "movie": movie}], bundle.manifest)) for movie in "92"]
    versions = []
    for folder in folders:
        retriever = tf.saved_model.load(str(Bundle.load(folder).graph_folder("retriever")))
        versions.append(retriever.signatures["catalogue"]()["version"].numpy().decode())
        assert Bundle.load(folder).manifest.catalogue == versions[-1]
        query = {"genre": ["comedy"], "tags": [["new"]], "watched": [["2"]], "watched_age": [[0.0]], "price": [50.0]}
        tensors = {name: tf.constant(value) for name, value in {**query, "taste": [[0.0, 0.0]]}.items()}
        answer = retriever.signatures["serving_default"](**tensors)
        best = [text.decode() for text in answer["item"].numpy()[0]]
        assert best[:2] == (["9", "new"] if folder is folders[0] else ["9", "日本"])
    assert versions[0] != versions[1]


def test_queries_are_needed_to_measure_an_index(tmp_path: Path) -> None:
    index = ScannIndex.build(VECTORS, ScannConfig())
    folder = write(tmp_path / "bundle", index=index, facts=EXACT.model_copy(update={"kind": "scann"}))
    with pytest.raises(BundleError, match=r"queries\.parquet: cannot be read"):
        queries_of(Bundle.load(folder))
    plain = Bundle.load(write(tmp_path / "plain"))
    np.testing.assert_array_equal(queries_of(plain), np.empty((0, 4), np.float32))
