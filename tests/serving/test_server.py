"""One real server through its life: it answers, loses processes, swaps bundles, refuses one, goes back, and ends.

The tests follow on each other.
"""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from recsys.bundle.layout import GOLDEN
from recsys.cli import main
from tests.serving.running import PATIENCE, Running, eventually, ready
from tests.tiny_bundle import with_digests, write

CLIENTS = 4
WORKERS = 2


@pytest.fixture(scope="module")
def bundles(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "bundle"
    shutil.copytree(tiny_bundle, folder / "1")
    return folder


@pytest.fixture(scope="module")
def server(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("log")
    config = folder / "serving.yaml"
    config.write_text(f"log: {{folder: {folder / 'answers'}, seconds: 0.2}}\n")
    options = ("--workers", str(WORKERS), "--grpc-port", "0", "--config", str(config))
    running = Running(bundles.parent, folder / "server.log", *options)
    yield running
    running.kill()


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url(), timeout=PATIENCE) as client:
        yield client


class Load:
    """Clients that ask again and again."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.answers: list[dict[str, Any]] = []
        self.failures: list[object] = []

    @contextmanager
    def __call__(self) -> Iterator[None]:
        stop = threading.Event()
        threads = [threading.Thread(target=self._ask, args=[stop]) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            eventually(lambda: len(self.answers) >= CLIENTS, "the first answers")
            yield
            more = len(self.answers) + CLIENTS
            eventually(lambda: len(self.answers) >= more, "answers afterwards")
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def _ask(self, stop: threading.Event) -> None:
        with httpx.Client(base_url=self._url, timeout=PATIENCE) as client:
            while not stop.is_set():
                try:
                    answer = client.post("/v1/recommend", json={"user": "1", "k": 1})
                    if answer.status_code == 200:
                        self.answers.append(answer.json())
                    else:
                        self.failures.append(answer.text)
                except httpx.TransportError as error:
                    self.failures.append(error)
                time.sleep(0.1)  # some 40 requests a second in all: a load, not a contest for the processor


@pytest.fixture
def load(client: httpx.Client) -> Load:
    return Load(str(client.base_url))


def samples(client: httpx.Client) -> dict[tuple[str, ...], float]:
    """What `/metrics` says, by name and labels."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def test_it_answers(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    found = ready(client)
    assert (found["ready"], found["bundle"]) == (True, {"name": "tiny", "version": 1})
    answer = client.post("/v1/recommend", json={"user": "1"})
    assert [item["item"] for item in answer.json()["items"]] == ["日本", "é"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "server" not in answer.headers
    assert client.post("/v1/recommend", json={"user": "1", "k": 0}).status_code == 422
    beside = client.post("/v1/similar", json={"item": "9", "k": 1}).json()
    assert [item["item"] for item in beside["items"]] == ["日本"]
    vectors = client.post("/v1/embed", json={"queries": [{"price": 5}], "items": [{"movie": "3"}]}).json()
    assert (vectors["queries"], vectors["items"]) == ([[0, 0, 0, 5]], [[0, 0, 1, 0]])
    assert client.get("/v1/users", params={"prefix": "z"}).json() == {"users": ["zoë"]}
    assert [item["item"] for item in client.get("/v1/history", params={"user": "1", "count": 2}).json()["items"]] == [
        "3",
        "2",
    ]
    info = client.get("/v1/info").json()
    assert (info["catalogue_size"], info["metrics"]) == (6, {"ndcg@10": 0.5})


def test_counts_are_those_of_all_processes(client: httpx.Client, load: Load) -> None:
    before = samples(client)
    with load():
        pass
    after, route = samples(client), "/v1/recommend"
    asked = len(load.answers)
    for key in (
        ("recsys_requests_total", route, "200"),
        ("recsys_request_seconds_count", route),
        ("recsys_stage_seconds_count", "retrieve"),
    ):
        assert after[key] - before[key] == asked
    assert after["recsys_bundle_version",] == 1
    assert not load.failures
    written = ("recsys_log_rows_total", "responses", "written")
    eventually(lambda: samples(client)[written] - before.get(written, 0) >= asked, "every answer in the log")


def test_an_item_that_is_gone_is_not_recommended(client: httpx.Client) -> None:
    assert client.post("/v1/items", json={"delete": ["日本"]}).json()["items"] == 5
    items = client.post("/v1/recommend", json={"user": "1"}).json()["items"]
    assert [item["item"] for item in items] == ["é"]
    added = client.post("/v1/items", json={"upsert": [{"item": "日本", "title": "日本 (1959)", "movie": "日本"}]})
    assert added.json()["items"] == 6


def test_tensorflow_servings_grpc(server: Running, bundles: Path) -> None:
    """Google's stubs get what the SavedModel gives."""
    import tensorflow as tf
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_service_pb2_grpc,
    )

    inputs = {
        "genre": tf.constant(["drama", "comedy"]),
        "tags": tf.constant([["new", "old"], ["", ""]]),
        "watched": tf.constant([["10", "9"], ["3", ""]]),
        "watched.age": tf.constant([[86_400.0, 0.0], [0.0, 0.0]]),
        "price": tf.constant([0.1, float("nan")]),
        "taste": tf.constant([[0.3, 0.7], [0.0, 0.1]]),
    }
    tower = tf.saved_model.load(str(bundles / "1" / "query_tower" / "1")).signatures["serving_default"]
    expected = tower(**{name.replace(".", "_"): tensor for name, tensor in inputs.items()})["embedding"].numpy()
    with grpc.insecure_channel(server.grpc()) as channel:
        prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "query_tower"
        for name, tensor in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(tensor))
        response = prediction.Predict(request, timeout=PATIENCE)
        assert np.array_equal(tf.make_ndarray(response.outputs["embedding"]), expected)
        assert list(response.outputs["embedding"].float_val) == expected.reshape(-1).tolist()
        assert (response.model_spec.version.value, response.model_spec.signature_name) == (1, "serving_default")

        for change, code, text in (
            ({"name": "tower"}, grpc.StatusCode.NOT_FOUND, "Servable not found for request: Latest(tower)"),
            ({"version": {"value": 7}}, grpc.StatusCode.NOT_FOUND, "Specific(query_tower, 7)"),
            ({"signature_name": "x"}, grpc.StatusCode.FAILED_PRECONDITION, 'signature key "x" not found'),
        ):
            wrong = predict_pb2.PredictRequest()
            wrong.CopyFrom(request)
            wrong.model_spec.MergeFrom(type(request.model_spec)(**change))
            with pytest.raises(grpc.RpcError) as raised:
                prediction.Predict(wrong, timeout=PATIENCE)
            assert (raised.value.code(), text in raised.value.details()) == (code, True)
        del request.inputs["price"]
        with pytest.raises(grpc.RpcError, match=r"Missing but required: \{price\}") as raised:
            prediction.Predict(request, timeout=PATIENCE)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT

        asked = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        asked.model_spec.name = "item_tower"
        signatures = get_model_metadata_pb2.SignatureDefMap()
        prediction.GetModelMetadata(asked, timeout=PATIENCE).metadata["signature_def"].Unpack(signatures)
        assert list(signatures.signature_def["serving_default"].inputs) == ["movie"]

        models = model_service_pb2_grpc.ModelServiceStub(channel)
        status = get_model_status_pb2.GetModelStatusRequest()
        status.model_spec.name = "item_tower"
        (version,) = models.GetModelStatus(status, timeout=PATIENCE).model_version_status
        assert (version.version, version.state) == (1, get_model_status_pb2.ModelVersionStatus.AVAILABLE)
        with pytest.raises(grpc.RpcError) as raised:
            models.GetModelStatus(get_model_status_pb2.GetModelStatusRequest(), timeout=PATIENCE)
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_killed_worker_takes_only_its_own_requests(server: Running, client: httpx.Client, load: Load) -> None:
    with load():
        killed = server.processes("worker")[0]
        killed.kill()
    assert len(load.failures) <= CLIENTS  # those in flight in the killed process
    assert all(isinstance(failure, httpx.TransportError) for failure in load.failures)
    assert not any("degraded" in answer for answer in load.answers)
    eventually(lambda: len(server.processes("worker")) == WORKERS, "another worker")
    eventually(lambda: ready(client)["restarts"] == {"web": 1}, "a note of it")


def test_without_a_model_process_there_are_popular_items(server: Running, client: httpx.Client, load: Load) -> None:
    with load():
        (killed,) = server.processes("model_process")
        killed.kill()
        eventually(lambda: any("degraded" in answer for answer in load.answers), "a degraded answer")
        answer = client.post("/v1/recommend", json={"user": "1", "k": 2, "exclude": ["10"]})
        assert answer.json()["degraded"] == ["model"]
        assert [item["item"] for item in answer.json()["items"]] == ["2", "9"]
        for conditions in ({"only": ["2"]}, {"where": {"movie": "2"}}):
            refused = client.post("/v1/recommend", json={"user": "1", **conditions})
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200
        eventually(lambda: ready(client)["ready"], "the model process again")
    assert not load.failures
    assert "degraded" not in load.answers[-1]
    assert ready(client)["restarts"] == {"web": 1, "model": 1}
    assert samples(client)["recsys_degraded_total", "model"] >= 1


def test_a_new_bundle_takes_over(server: Running, client: httpx.Client, load: Load, bundles: Path) -> None:
    (before,) = server.processes("model_process")
    with load():
        assert write(bundles, golden=True) == bundles / "2"
        eventually(lambda: ready(client)["bundle"] == {"name": "tiny", "version": 2}, "the new bundle")
    assert not load.failures
    assert not any("degraded" in answer for answer in load.answers)
    assert {answer["bundle"]["version"] for answer in load.answers} == {1, 2}
    eventually(lambda: not before.is_running(), "the end of the old model process")
    found = samples(client)
    assert (found["recsys_swaps_total",], found["recsys_bundle_version",]) == (1, 2)


def test_an_altered_bundle_is_refused(server: Running, client: httpx.Client, load: Load, bundles: Path) -> None:
    draft = shutil.copytree(bundles / "2", bundles / ".draft")
    content = bytearray((draft / "items.parquet").read_bytes())
    content[10] ^= 1
    (draft / "items.parquet").write_bytes(content)
    with load():
        draft.rename(bundles / "3")
        eventually(lambda: ready(client)["refused"], "a refusal")
    assert not load.failures
    assert {answer["bundle"]["version"] for answer in load.answers} == {2}
    found = ready(client)
    assert (found["ready"], found["bundle"]["version"]) == (True, 2)
    assert "items.parquet: has SHA-256" in found["refused"]["3"]
    (line,) = [line for line in server.said().splitlines() if "refused" in line]
    assert "items.parquet: has SHA-256" in line
    assert samples(client)["recsys_swaps_refused_total",] == 1


def test_a_bundle_that_answers_otherwise_is_refused(
    server: Running, client: httpx.Client, load: Load, bundles: Path
) -> None:
    """Whole, and by its digests unaltered, but its towers do not give what its exporter saw."""
    draft = shutil.copytree(bundles / "2", bundles / ".draft")
    golden = json.loads((draft / GOLDEN).read_bytes())
    golden["requests"][0]["scores"][0] += 1.0
    (draft / GOLDEN).write_text(json.dumps(golden))
    with_digests(draft)
    with load():
        draft.rename(bundles / "4")
        eventually(lambda: "4" in ready(client)["refused"], "a refusal")
    assert not load.failures
    assert {answer["bundle"]["version"] for answer in load.answers} == {2}
    assert "golden.json" in ready(client)["refused"]["4"]
    assert samples(client)["recsys_swaps_refused_total",] == 2


def test_back_in_one_command(
    client: httpx.Client, load: Load, bundles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["activate", str(bundles), "2"]) == 0
    assert "before, it was 4" in capsys.readouterr().out
    with load():
        assert main(["rollback", str(bundles)]) == 0
        assert "bundle 1 is active; before, it was 2" in capsys.readouterr().out
        eventually(lambda: ready(client)["bundle"]["version"] == 1, "the bundle before")
    assert not load.failures
    assert ready(client)["refused"] == {}


def test_told_to_end_it_answers_what_has_begun(server: Running, client: httpx.Client) -> None:
    body = b'{"user": "1", "k": 1}'
    head = (
        f"POST /v1/recommend HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    )
    host, port = client.base_url.host, client.base_url.port
    children = [*server.processes("worker"), *server.processes("model_process")]
    with socket.create_connection((host, port), timeout=PATIENCE) as begun:
        begun.sendall(f"{head}\r\n".encode() + body[:5])
        time.sleep(0.5)  # until a worker has read that
        ended: list[int] = []
        thread = threading.Thread(target=lambda: ended.append(server.end()))
        thread.start()
        eventually(lambda: "Shutting down" in server.said(), "the workers' end")
        begun.sendall(body[5:])
        assert begun.recv(65_536).startswith(b"HTTP/1.1 200")
    thread.join()
    assert ended == [0], server.said()
    assert not [child for child in children if child.is_running()]
    assert "Traceback" not in server.said()
