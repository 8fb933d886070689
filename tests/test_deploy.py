"""What `deploy/` says is so: its commands are taken, its routes and paths are there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.routing import APIRoute

from serving.config import ServingConfig
from serving.engine.engine import Answer
from serving.web.application import web_app
from serving.web.metrics import Metrics
from tests.documented import blocks, must_parse

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")


class Nobody:
    async def call(self, method: str, body: bytes) -> Answer:
        raise AssertionError


@pytest.fixture(scope="module")
def routes() -> set[str]:
    app = web_app(Nobody(), ServingConfig(), Metrics())
    return {route.path for route in app.routes if isinstance(route, APIRoute)}


def instruction(name: str) -> list[str]:
    (found,) = re.findall(rf"^{name} (\[.*\])$", DOCKERFILE, re.MULTILINE)
    words: list[str] = json.loads(found)
    return words


def serves(arguments: list[str]) -> None:
    must_parse(shlex.join([*instruction("ENTRYPOINT"), *arguments]))


def test_the_image(routes: set[str]) -> None:
    serves(instruction("CMD"))
    copied = [word for line in re.findall(r"^COPY (?!--)(.*) \S+$", DOCKERFILE, re.MULTILINE) for word in line.split()]
    assert copied
    assert all((ROOT / path).exists() for path in copied)
    (probed,) = re.findall(r"127\.0\.0\.1:8500(/\w+)", DOCKERFILE)
    assert probed in routes


def test_the_compose_file() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]
    server = services["server"]
    assert (DEPLOY / server["build"]["context"] / server["build"]["dockerfile"]).is_file()
    serves(server["command"])
    mounted = dict(volume.removesuffix(":ro").rsplit(":", 1) for volume in server["volumes"])
    assert server["command"][server["command"].index("--config") + 1] in mounted.values()
    assert (DEPLOY / "serving.yaml").is_file()
    assert set(server["depends_on"]) < services.keys()


def test_its_configuration() -> None:
    config = ServingConfig.load(DEPLOY / "serving.yaml")
    ports = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]["server"]["ports"]
    assert {int(port.rpartition(":")[2]) for port in ports} == {config.port, config.grpc_port}


def test_the_kubernetes_example(routes: set[str]) -> None:
    documents = yaml.safe_load_all((DEPLOY / "kubernetes" / "server.yaml").read_text(encoding="utf-8"))
    kinds: dict[str, Any] = {document["kind"]: document for document in documents}
    pod = kinds["Deployment"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    serves(container["args"])
    ports = {port["name"] for port in container["ports"]}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in routes
        assert container[probe]["httpGet"]["port"] in ports
    assert pod["metadata"]["annotations"]["prometheus.io/path"] in routes
    assert {port["targetPort"] for port in kinds["Service"]["spec"]["ports"]} == ports
    assert {mount["name"] for mount in container["volumeMounts"]} == {each["name"] for each in pod["spec"]["volumes"]}


def test_the_page_on_serving_configures_a_server(tmp_path: Path) -> None:
    (block,) = blocks((ROOT / "docs" / "serving.md").read_text(encoding="utf-8"), "yaml")
    (tmp_path / "serving.yaml").write_text(block, encoding="utf-8")
    config = ServingConfig.load(tmp_path / "serving.yaml")
    assert config.limits.keys == str(tmp_path / "keys.txt")
