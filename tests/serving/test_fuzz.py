"""Whatever is sent: an answer or a refusal, never an error of the server's own, and no memory that stays."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given, settings

from serving import create_app

REQUESTS = int(os.environ.get("RECSYS_FUZZED_REQUESTS", "800"))
"""More of them take a variable."""
GROWTH = 60 * 2**20
"""Bytes by which the process may grow while it answers: caches fill, and Python keeps some of what it frees."""
VALID: dict[str, dict[str, Any]] = {
    "/v1/recommend": {
        "user": "1",
        "features": {"genre": "drama", "tags": ["new", "old"], "watched": ["10", "9"], "watched.age": [60, 5.5]},
        "k": 5,
        "exclude": ["9", 3],
        "where": {"movie": {"in": ["10", "2"]}},
        "only": ["10", "2", "日本"],
        "exclude_seen": False,
        "explain": True,
    },
    "/v1/similar": {"item": "10", "k": 3, "kind": "similar"},
    "/v1/rank": {
        "user": "42",
        "features": {"genre": "comedy", "price": 1.5},
        "items": ["10", "2", "é"],
        "explain": True,
    },
    "/v1/embed": {"queries": [{"genre": "drama", "taste": [0.5, 1]}, {}], "items": [{"movie": "10"}]},
    "/v1/models/item_tower:predict": {"instances": [{"movie": "10"}, {"movie": "?"}]},
}
ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**70), 10**400, 0.5, -0.0, 1e308, 5e-324),
    *("", " ", "0", "ü", "日本", "\x00", "\ud800", "a" * 5_000, "../../etc/passwd", "${jndi:ldap://x}", "<script>"),
    *([], [[]], [None], [[[1]]], ["10"] * 2_000, {}, {"": {}}, {"a": {"b": []}}),
    *({"in": []}, {"at_most": "x"}, {"contains": None}, {"b64": "!"}),
]
RAW = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"x"',
    b"\xff\xfe",
    b"NaN",
    b'{"k": NaN}',
    b'{"k": 1e999}',
    b'{"user": "1", "user": 2}',
    b"[" * 50_000,
    b'{"a":' * 3_000,
]


def damaged(rng: random.Random, value: Any, depth: int = 0) -> Any:
    """A value with something odd in some place of it."""
    if rng.random() < 0.3 or not isinstance(value, dict | list) or not value or depth > 4:
        return rng.choice(ODD)
    if isinstance(value, list):
        changed = list(value)
        at = rng.randrange(len(changed))
        changed[at : at + rng.randint(0, 1)] = [damaged(rng, changed[at], depth + 1)] * rng.randint(0, 3)
        return changed
    key, other = rng.choice(list(value)), dict(value)
    match rng.randrange(3):
        case 0:
            del other[key]
        case 1:
            other[rng.choice([f"{key}_", key.upper(), "é\x00", "", "__proto__", "a" * 300])] = other[key]
        case 2:
            other[key] = damaged(rng, other[key], depth + 1)
    return other


def body(rng: random.Random, route: str) -> bytes:
    """Of a request: sound, damaged in one place or several, or no JSON at all."""
    if rng.random() < 0.1:
        return rng.choice(RAW)
    value: Any = VALID[route]
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
        value = damaged(rng, value)
    text = json.dumps(value).encode()
    return text[: rng.randrange(len(text))] if rng.random() < 0.05 else text


@pytest.fixture(scope="module")
def app(ranked_bundle: Path) -> FastAPI:
    return create_app(ranked_bundle)


def test_no_request_breaks_the_server(app: FastAPI) -> None:
    rng, found, before = random.Random(0), Counter[int](), 0
    with TestClient(app, raise_server_exceptions=False) as client:
        for number in range(REQUESTS):
            route = rng.choice(list(VALID))
            sent = body(rng, route)
            answer = client.post(route, content=sent, headers={"content-type": "application/json"})
            assert answer.status_code in (200, 400, 404, 409, 413, 422), (route, sent[:500], answer.text)
            if answer.status_code != 200:
                assert "Traceback" not in answer.text
            found[answer.status_code] += 1
            if number == REQUESTS // 3:  # what is loaded at the first use is there
                before = psutil.Process().memory_info().rss
        assert psutil.Process().memory_info().rss - before < GROWTH
        assert client.post("/v1/recommend", json={"user": "1", "k": 1}).json()["items"][0]["item"] == "日本"
    assert min(found[200], found[422]) > REQUESTS // 20, found


def test_what_the_description_allows_is_answered(app: FastAPI) -> None:
    for found in schemathesis.openapi.from_asgi("/openapi.json", app).get_all_operations():
        operation = found.ok()

        @given(operation.as_strategy())
        @settings(max_examples=8)
        def is_answered(case: schemathesis.Case) -> None:
            answer = case.call()
            assert answer.status_code < 500, (case.path, answer.text)

        is_answered()
