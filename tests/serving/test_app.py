"""The web server over the tiny bundle."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from recsys.errors import BundleError
from serving import create_app

NAMED = {"name": "tiny", "version": 1}


@pytest.fixture(scope="module")
def client(tiny_bundle: Path) -> TestClient:
    return TestClient(create_app(tiny_bundle), raise_server_exceptions=False)


def test_health(client: TestClient) -> None:
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["ready"], ready.json()["bundle"]) == (200, True, NAMED)


def test_a_known_user(client: TestClient) -> None:
    answer = client.post("/v1/recommend", json={"user": "1"})
    assert answer.status_code == 200
    told = answer.json()
    assert list(told.pop("milliseconds")) == ["features", "retrieve", "rerank"]
    assert len(told.pop("request_id")) == 32
    assert told == {
        "items": [
            {"item": "日本", "title": "日本 (1959)", "score": 29.5},
            {"item": "é", "title": "Été", "score": -2.0},
        ],
        "user": "1",
        "bundle": NAMED,
    }


def test_every_option(client: TestClient) -> None:
    request = {"user": 1, "features": {"price": 5}, "k": 2, "exclude": [9], "exclude_seen": False, "time": 4 * 86_400}
    items = client.post("/v1/recommend", json=request).json()["items"]
    assert items == [
        {"item": "日本", "title": "日本 (1959)", "score": 32.5},
        {"item": "2", "title": "Two", "score": 17.0},
    ]


def test_raw_features(client: TestClient) -> None:
    answer = client.post("/v1/recommend", json={"features": {"genre": "comedy"}, "k": 1}).json()
    del answer["milliseconds"], answer["request_id"]
    assert answer == {"items": [{"item": "10", "title": "Ten", "score": 2.0}], "user": None, "bundle": NAMED}


def test_an_unknown_user_gets_what_is_popular(client: TestClient) -> None:
    answer = client.post("/v1/recommend", json={"user": "4", "k": 2})
    assert answer.status_code == 200
    told = answer.json()
    assert [item["item"] for item in told["items"]] == ["2", "9"]
    assert (told["user"], told["degraded"]) == ("4", ["unknown_user"])


@pytest.mark.parametrize(
    ("body", "place", "cure"),
    [
        ("", "request", "JSON object"),
        ("{", "request", "JSON object"),
        ('{"body": 1}', "body", "leave it out"),
        ("[]", "request", "JSON object"),
        ("null", "request", "JSON object"),
        ("{}", "request", '"user"'),
        ('{"user": 1.5}', "user", "text"),
        ('{"user": "\\ud800"}', "request", "JSON object"),
        ('{"user": "1", "limit": 3}', "limit", "leave it out"),
        ('{"user": "1", "k": 1001}', "k", "leave it out"),
        ('{"user": "1", "exclude": [[]]}', "exclude.0", "text"),
        ('{"features": {"taste": [1, NaN]}}', "features.taste[1]", "null"),
        ('{"features": {"price": 1e999}}', "features.price", "null"),
        ('{"features": {"genre": {"a": [1, 2]}}}', "features.genre", "one value"),
        ('{"features": {"tags": ' + "[" * 1000 + "]" * 1000 + "}}", "request", "JSON object"),
        ('{"features": {"genres": 1}}', "features.genres", "did you mean genre?"),
    ],
)
def test_bad_requests(client: TestClient, body: str, place: str, cure: str) -> None:
    answer = client.post("/v1/recommend", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    (problem,) = answer.json()["error"]
    assert problem["place"] == place
    assert cure in problem["cure"]
    assert set(problem) == {"place", "found", "expected", "cure"}


def test_all_problems_of_a_request_at_once(client: TestClient) -> None:
    answer = client.post("/v1/recommend", json={"features": {"price": "3", "genre": 2.5}})
    assert [p["place"] for p in answer.json()["error"]] == ["features.genre", "features.price"]


def test_a_damaged_bundle_is_not_served(tiny_bundle: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(tiny_bundle, tmp_path / "1")
    (damaged / "users.parquet").write_bytes(b"")
    with pytest.raises(BundleError, match=r"users\.parquet: has 0 bytes"):
        create_app(damaged)


FRESH = """
import json, sys
from importlib.machinery import PathFinder

# As if these were not installed: TensorFlow itself imports Keras where it finds it, and goes on without where not.
absent = {"keras", "tf_keras", "tensorflow_recommenders", "duckdb", "ibis", "pandas", "typer", "rich"}
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name in absent else find(name, *rest)
from serving import create_app
app = create_app(sys.argv[1])
from fastapi.testclient import TestClient
answer = TestClient(app).post("/v1/recommend", json={"user": "1", "exclude_seen": False, "k": 1})
print(json.dumps([answer.json(), sorted(sys.modules)]))
"""


def test_serving_needs_nothing_of_the_engine(tiny_bundle: Path) -> None:
    """A fresh process, in an environment without Keras and TFRS, answers a request and has loaded no model code."""
    done = subprocess.run([sys.executable, "-c", FRESH, tiny_bundle], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer, modules = json.loads(done.stdout.splitlines()[-1])
    assert answer["items"] == [{"item": "9", "title": None, "score": 59.0}]
    of_recsys = {name.split(".")[1] for name in modules if name.startswith("recsys.")}
    own = {"_scann", "_versions", "bundle", "config", "errors", "files", "metrics", "ragged", "retrieval", "schema"}
    assert of_recsys <= own
    assert not {"keras", "tf_keras", "tensorflow_recommenders"} & set(modules)


def answers_of(client: TestClient, requests: list[dict[str, Any]]) -> list[Any]:
    return [client.post("/v1/recommend", json=r).json()["items"] for r in requests]


def test_requests_at_the_same_time_get_their_own_answers(client: TestClient) -> None:
    from concurrent.futures import ThreadPoolExecutor

    requests: list[dict[str, Any]] = [
        {"features": {"genre": "comedy", "price": n, "tags": ["new"] * (n % 3)}} for n in range(32)
    ]
    alone = answers_of(client, requests)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda r: client.post("/v1/recommend", json=r).json()["items"], requests))
    assert together == alone
