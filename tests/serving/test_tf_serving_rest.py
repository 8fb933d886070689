"""TensorFlow Serving's REST API, asked as its documentation says, over the tiny bundle.

What a request gives is what the SavedModel gives; errors are those of TensorFlow Serving's sources.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from serving import create_app
from tests.trained import Trained

QUERY: dict[str, Any] = {
    "genre": "comedy",
    "tags": ["new"],
    "watched": ["10", "9"],
    "watched.age": [86_400, 0],
    "price": 0.1,
    "taste": [0.3, 0.7],
}
OTHER = QUERY | {"genre": {"b64": base64.b64encode(b"drama").decode()}, "price": 2, "taste": [0, 0]}


@pytest.fixture(scope="module")
def client(tiny_bundle: Path) -> TestClient:
    return TestClient(create_app(tiny_bundle), raise_server_exceptions=False)


@pytest.fixture(scope="module")
def expected(tiny_bundle: Path) -> list[list[float]]:
    """What the SavedModel says of the two queries."""
    import tensorflow as tf

    tower = tf.saved_model.load(str(tiny_bundle / "query_tower" / "1")).signatures["serving_default"]
    return (
        tower(
            genre=tf.constant(["comedy", "drama"]),
            tags=tf.constant([["new"], ["new"]]),
            watched=tf.constant([["10", "9"]] * 2),
            watched_age=tf.constant([[86_400.0, 0.0]] * 2),
            price=tf.constant([0.1, 2.0]),
            taste=tf.constant([[0.3, 0.7], [0.0, 0.0]]),
        )["embedding"]
        .numpy()
        .tolist()
    )


@pytest.mark.parametrize("path", ["query_tower", "query_tower/versions/1"])
def test_by_row(client: TestClient, expected: list[list[float]], path: str) -> None:
    answer = client.post(f"/v1/models/{path}:predict", json={"instances": [QUERY, OTHER]})
    assert (answer.status_code, answer.json()) == (200, {"predictions": expected})


def test_by_name(client: TestClient, expected: list[list[float]]) -> None:
    inputs = {name: [QUERY[name], OTHER[name]] for name in QUERY}
    body = {"signature_name": "serving_default", "inputs": inputs}
    assert client.post("/v1/models/query_tower:predict", json=body).json() == {"outputs": expected}


def test_a_single_input_needs_no_name(client: TestClient) -> None:
    """Any content type will do, as `curl -d` sends another."""
    vectors = [[0, 0, 1, 0], [1, 0, 0, 0]]
    for body in ('{"instances": ["3", "10"]}', '{"instances": [{"movie": "3"}, {"movie": "10"}]}'):
        answer = client.post("/v1/models/item_tower:predict", content=body, headers={"content-type": "text/plain"})
        assert answer.json() == {"predictions": vectors}
    assert client.post("/v1/models/item_tower:predict", json={"inputs": ["3", "10"]}).json() == {"outputs": vectors}


def test_a_row_alone_is_the_row_among_others(trained_run: Trained) -> None:
    """Of a trained tower: shapes may be computed by other kernels, 1e-5 apart at most."""
    client = TestClient(create_app(trained_run.bundle))
    rows = [
        {
            "user_id": str(n),
            "history": [str(n % 7), str(n)],
            "history_age": [60.0 * n, 1],
            "age": "25",
            "device": "tv",
        }
        for n in range(33)
    ]

    def predicted(instances: list[dict[str, Any]]) -> list[list[float]]:
        answer = client.post("/v1/models/query_tower:predict", json={"instances": instances})
        assert answer.status_code == 200, answer.text
        found: list[list[float]] = answer.json()["predictions"]
        return found

    together = predicted(rows)
    assert np.ptp(together, axis=0).min() > 0.01, "users differ"
    np.testing.assert_allclose([predicted([row])[0] for row in rows], together, rtol=1e-5, atol=1e-7)


def test_a_number_that_is_none_is_one(client: TestClient) -> None:
    """The documentation allows NaN and infinities, which JSON does not."""
    missing = '"genre": [""], "tags": [[]], "watched": [[]], "watched.age": [[]], "taste": [[0, 0]]'
    body = f'{{"inputs": {{{missing}, "price": [NaN]}}}}'
    answer = client.post("/v1/models/query_tower:predict", content=body)
    assert answer.json() == {"outputs": [[0, 0, 0, -1]]}


def test_status(client: TestClient) -> None:
    status = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for path in ("query_tower", "query_tower/versions/1"):
        assert client.get(f"/v1/models/{path}").json() == {"model_version_status": [status]}


def test_metadata(client: TestClient) -> None:
    found = client.get("/v1/models/item_tower/metadata").json()
    assert found["model_spec"] == {"name": "item_tower", "signature_name": "", "version": "1"}
    signature = found["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    assert signature["inputs"]["movie"]["dtype"] == "DT_STRING"
    shape = signature["outputs"]["embedding"]["tensor_shape"]
    assert [dim["size"] for dim in shape["dim"]] == ["-1", "4"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("POST", "tower:predict", '{"instances": [1]}', 404, "Servable not found for request: Latest(tower)"),
        ("POST", "item_tower/versions/9:predict", "{}", 404, "Servable not found for request: Specific(item_tower, 9)"),
        ("GET", "tower", "", 404, "Could not find any versions of model tower"),
        ("GET", "item_tower/versions/9", "", 404, "Could not find version 9 of model item_tower"),
        ("GET", "tower/metadata", "", 404, "Servable not found for request: Latest(tower)"),
        ("GET", "item_tower:predict", "", 400, "Malformed request: GET /v1/models/item_tower:predict"),
        ("POST", "item_tower:guess", "{}", 400, "Malformed request: POST /v1/models/item_tower:guess"),
        ("POST", "item_tower:classify", "{}", 400, "Expected classify signature method_name"),
        ("POST", "item_tower:predict", "", 400, "JSON Parse error: The document is empty"),
        ("POST", "item_tower:predict", "{", 400, "JSON Parse error"),
        ("POST", "item_tower:predict", "[" * 100_000, 400, "JSON Parse error"),
        ("POST", "item_tower:predict", "[]", 400, "Is not object"),
        ("POST", "item_tower:predict", "{}", 400, "Missing 'inputs' or 'instances' key"),
        ("POST", "item_tower:predict", '{"instances": [], "inputs": []}', 400, "expecting only one of"),
        ("POST", "item_tower:predict", '{"instances": []}', 400, "No values in 'instances' array"),
        ("POST", "item_tower:predict", '{"instances": {}}', 400, "'instances' to be an list/array"),
        ("POST", "item_tower:predict", '{"instances": [1]}', 400, "is not of expected type: string"),
        ("POST", "item_tower:predict", '{"instances": ["1", ["2"]]}', 400, "Encountered list at unexpected level: 1"),
        ("POST", "item_tower:predict", '{"instances": [["1"]]}', 400, "to have shape (None,)"),
        ("POST", "item_tower:predict", '{"instances": [{"film": "1"}]}', 400, "keys must be equal to: movie"),
        ("POST", "item_tower:predict", '{"instances": [{"b64": "!"}]}', 400, "Unable to base64 decode"),
        ("POST", "item_tower:predict", '{"instances": ["\\ud800"]}', 400, "is no Unicode"),
        ("POST", "item_tower:predict", '{"inputs": {"film": "1"}}', 400, "Missing named input: movie"),
        ("POST", "item_tower:predict", '{"instances": ["1"], "signature_name": "x"}', 400, '"x" not found'),
        ("POST", "query_tower:predict", '{"instances": ["1"]}', 400, "expecting list of objects"),
        ("POST", "query_tower:predict", '{"inputs": ["1"]}', 400, "expecting an object"),
    ],
)
def test_errors(client: TestClient, method: str, path: str, body: str, status: int, text: str) -> None:
    answer = client.request(method, f"/v1/models/{path}", content=body)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert text in answer.json()["error"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"price": "3"}, "is not of expected type: float32"),
        ({"price": True}, "is not of expected type: float32"),
        ({"price": 2**24 + 1}, "without loss of precision"),
        ({"price": 1e39}, "without loss of precision"),
        ({"taste": [1]}, "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
    ],
)
def test_numbers_that_are_not_what_they_should_be(client: TestClient, change: dict[str, Any], text: str) -> None:
    answer = client.post("/v1/models/query_tower:predict", json={"instances": [QUERY, QUERY | change]})
    assert (answer.status_code, text in answer.json()["error"]) == (400, True)
