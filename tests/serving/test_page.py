"""The page's files: what is served, and how."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from serving.page import FOLDER, add_page


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()
    add_page(app)
    return TestClient(app)


FILES = ["/", *(f"/page/{path.name}" for path in sorted(FOLDER.iterdir()) if path.name != "index.html")]


@pytest.mark.parametrize("path", FILES)
def test_every_file_is_served_and_may_load_nothing_from_elsewhere(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"].startswith("default-src 'self';")
    again = client.get(path, headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path", ["/page/", "/page/index.html", "/page/%2e%2e/__init__.py", "/page/..%2f__init__.py", "/page/x.js"]
)
def test_no_other_file_is(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_files_name_nothing_that_is_not_there(client: TestClient) -> None:
    for path in FILES:
        named = re.findall(r"[\"(](/page/[\w.-]+)[\")]", client.get(path).text)
        assert not [each for each in named if each not in FILES], path
        assert not re.findall(r"(?:https?:)?//(?!www\.w3\.org/)[\w-]+\.[\w.]+/", client.get(path).text), path


def test_ids_that_scripts_ask_for_are_in_the_page() -> None:
    ids = set(re.findall(r'\bid="([\w-]+)"', (FOLDER / "index.html").read_text()))
    scripts = "".join(path.read_text() for path in Path(FOLDER).glob("*.js"))
    assert set(re.findall(r'\bat\("([\w-]+)"\)', scripts)) <= ids
