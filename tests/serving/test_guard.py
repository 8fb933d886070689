"""Keys, rates and sizes: who is let in, and what is refused before it costs anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from recsys.errors import ConfigError
from serving.config import Limits, ServingConfig
from serving.engine.engine import Answer, EngineGoneError
from serving.web.application import web_app
from serving.web.guard import CLIENTS, Keys, Rates, is_local
from serving.web.metrics import Metrics

KEY, OTHER = "k" * 32, "another-key-of-mine"


class Recorder:
    """An engine that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gone = False

    async def call(self, method: str, body: bytes) -> Answer:
        """See `serving.engine.engine.Engine`."""
        if self.gone:
            raise EngineGoneError("killed")
        if method == "boom":
            raise ZeroDivisionError("a secret")
        self.asked.append(method)
        return Answer(200, b'{"name": "x", "version": 1}')


@pytest.fixture
def keys(tmp_path: Path) -> str:
    path = tmp_path / "keys.txt"
    path.write_text(f"# of ours\n{KEY}\n\n{OTHER}\n", encoding="utf-8")
    return str(path)


def client(engine: Recorder, limits: Limits | None = None, **config: object) -> TestClient:
    told = ServingConfig(limits=limits or Limits()).model_copy(update=config)
    return TestClient(web_app(engine, told, Metrics()), raise_server_exceptions=False)


def test_without_a_key_nobody_asks(keys: str) -> None:
    engine = Recorder()
    server = client(engine, Limits(keys=keys))
    body = {"user": "1"}
    for headers in ({}, {"x-api-key": KEY[:-1]}, {"authorization": f"Basic {KEY}"}, {"x-api-key": "ключ".encode()}):
        refused = server.post("/v1/recommend", json=body, headers=headers)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert refused.json()["error"][0]["place"] == "authorization"
    assert server.get("/metrics").status_code == server.get("/v1/models/ranker").status_code == 401
    assert engine.asked == []
    for headers in ({"x-api-key": OTHER}, {"authorization": f"bearer {KEY}"}):
        assert server.post("/v1/recommend", json=body, headers=headers).status_code == 200
    assert engine.asked == ["recommend"] * 2
    assert server.get("/healthz").status_code == server.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("text", "found"),
    [("", "holds no key"), ("# nothing\n", "holds no key"), ("\nshort\n", "keys.txt:2: a key of fewer than 16")],
)
def test_files_without_keys(tmp_path: Path, text: str, found: str) -> None:
    path = tmp_path / "keys.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=found):
        Keys.read(path)


def test_no_file_of_keys(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Keys.read(tmp_path / "absent")


def test_a_bucket_of_tokens() -> None:
    rates = Rates(2.0)
    assert [rates.wait("a", now=10.0) for _ in range(2)] == [0, 0]
    assert rates.wait("a", now=10.0) == 0.5
    assert rates.wait("b", now=10.0) == 0
    assert rates.wait("a", now=10.5) == 0
    assert rates.wait("a", now=10.75) == 0.25
    assert [rates.wait("a", now=1000.0) for _ in range(3)] == [0, 0, 0.5]  # never more than a second's


def test_rates_of_clients_who_have_long_been_away_are_forgotten() -> None:
    rates = Rates(1.0)
    for number in range(CLIENTS + 10):
        rates.wait(str(number), now=0.0)
    assert len(rates._buckets) == CLIENTS
    assert rates.wait(str(CLIENTS), now=0.0) == 1


def test_who_asks_too_often_is_told_when_to_come_back() -> None:
    server = client(Recorder(), Limits(requests_per_second=0.1))
    assert server.get("/v1/info").status_code == 200
    refused = server.get("/v1/info")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "10")
    assert server.get("/healthz").status_code == 200
    assert {server.get(path).status_code for path in ("/", "/docs") * 5} == {200}, "the page is not rationed"


@pytest.mark.parametrize("route", ["/v1/recommend", "/v1/models/ranker:predict"])
def test_a_body_is_refused_while_it_is_read(route: str) -> None:
    engine, sent = Recorder(), list[int]()

    def body() -> Iterator[bytes]:
        for number in range(100):
            sent.append(number)
            yield b" " * 50

    server = client(engine, Limits(body_bytes=100))
    refused = server.post(route, content=b" " * 101, headers={"content-type": "application/json"})
    assert refused.status_code == 413
    assert server.post(route, content=body(), headers={"content-type": "application/json"}).status_code == 413
    assert engine.asked == []


def test_an_open_server_without_keys_lets_nothing_be_changed(keys: str) -> None:
    for route, body in (
        ("/v1/items", {"delete": ["1"]}),
        ("/v1/events", {"user": "1", "item": "1"}),
        ("/v1/feedback", {"request_id": "a", "item": "1", "label": "click"}),
    ):
        assert client(Recorder()).post(route, json=body).status_code == 200
        assert client(Recorder(), host="0.0.0.0").post(route, json=body).status_code == 403
        guarded = client(Recorder(), Limits(keys=keys), host="0.0.0.0")
        assert guarded.post(route, json=body, headers={"x-api-key": KEY}).status_code == 200


@pytest.mark.parametrize(
    ("host", "local"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False)]
)
def test_which_addresses_are_this_machine(host: str, local: bool) -> None:
    assert is_local(host) is local


def test_a_bug_tells_the_client_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(method: str, body: bytes) -> Answer:
        raise ZeroDivisionError("a secret")

    engine = Recorder()
    monkeypatch.setattr(engine, "call", fail)
    answer = client(engine).post("/v1/recommend", json={"user": "1"})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    number = answer.json()["error"][0]["cure"].split()[2]
    assert number in caplog.text
    assert "a secret" in caplog.text


def test_who_finds_nobody_is_told_to_come_back() -> None:
    engine = Recorder()
    engine.gone = True
    server = client(engine)
    refused = server.post("/v1/recommend", json={"user": "1"})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    ready = server.get("/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (503, False)


def test_a_path_that_there_is_not() -> None:
    answer = client(Recorder()).get("/v2/recommend")
    assert answer.status_code == 404
    assert answer.json()["error"][0]["place"] == "GET /v2/recommend"
    assert client(Recorder()).get("/v1/recommend").status_code == 405


def test_the_documentation_loads_nothing_from_elsewhere() -> None:
    page = client(Recorder()).get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "http" not in page.text
    assert '<h3 id="Recommendations">' in page.text
    assert "What it was ordered by" in page.text
