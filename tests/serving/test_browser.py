"""The page in a real browser over a real server: each view by mouse and keyboard, in both lights, and in trouble."""

from __future__ import annotations

import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from serving import create_app
from serving.messages import BundleName, Recommendations, Recommended, Why
from tests.conftest import Require
from tests.tiny_bundle import VECTORS, write

pytestmark = pytest.mark.system
PATIENCE = 60_000
"""Milliseconds: machines differ."""


class Served:
    """The tiny bundle on a port of its own, which can be stopped and started again."""

    def __init__(self, bundle: Path) -> None:
        self._app = create_app(bundle)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        config = uvicorn.Config(self._app, port=self._port, log_level="warning", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    inputs = VECTORS.copy()
    inputs[1] = 0  # of item 2 too little is known
    server = Served(write(tmp_path_factory.mktemp("page") / "bundle", beside=(inputs, VECTORS[::-1].copy())))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def browser(require: Require) -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    require(program, "needs chromium (apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, served: Served) -> Iterator[Page]:
    """A new window, which must ask nobody else for anything, and keep its console silent but for refused requests."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, color_scheme="light")
    context.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    page = context.new_page()
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(served.url)
    yield page
    context.close()
    assert asked
    assert not [url for url in asked if not url.startswith(f"{served.url}/")]
    assert not [text for text in said if not text.startswith("Failed to load resource")]


def recommended(page: Page, user: str = "1") -> None:
    """Types a user and waits for the answer."""
    page.get_by_label("User").fill(user)
    page.get_by_role("button", name="Recommend", exact=True).click()
    expect(page.locator("#answer h2")).to_have_text(f"For user {user}")


def test_a_user_is_suggested_and_gets_recommendations(page: Page) -> None:
    page.get_by_label("User").fill("zo")
    expect(page.locator("#users option")).to_have_count(1)
    assert page.locator("#users option").get_attribute("value") == "zoë"
    recommended(page)
    rows = page.locator("table.ranking:visible tbody tr")
    expect(rows).to_have_text(
        [re.compile("1.*日本 (1959).*29.500".replace("(", r"\(").replace(")", r"\)")), re.compile("2.*Été")]
    )
    expect(page.locator("#history-items li")).to_have_text(["Three", "Two", "9", "Ten"])
    expect(page.get_by_role("list", name="Latency by stage")).to_contain_text("retrieval")
    page.get_by_label("also seen ones").check()
    page.get_by_role("button", name="Recommend", exact=True).click()
    expect(rows).to_have_count(6)
    page.get_by_role("button", name="Candidates").click()
    expect(rows).to_have_count(6)
    page.go_back()
    expect(rows).to_have_count(2)


def test_an_item_leads_to_those_beside_it(page: Page) -> None:
    recommended(page, "42")
    page.locator("table.ranking:visible").get_by_role("button", name="Ten").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", name="Ten")).to_be_focused()
    expect(dialog.get_by_role("heading", level=3)).to_have_text(["Like it", "Going with it"])
    expect(dialog.locator("ol").nth(1).locator("li").first).to_contain_text("日本")
    dialog.locator("ol").first.get_by_role("button", name="Two").click()
    expect(dialog.get_by_role("heading", name="Two")).to_be_visible()
    expect(dialog).to_contain_text("too few events")
    dialog.get_by_role("button", name="Back").click()
    expect(dialog.get_by_role("heading", name="Ten")).to_be_visible()
    dialog.get_by_role("link", name="Where it stands on the map").click()
    expect(dialog).to_be_hidden()
    expect(page.locator("#tip")).to_contain_text("Ten")


def test_what_is_wrong_stands_beside_its_field(page: Page) -> None:
    page.get_by_role("button", name="Recommend", exact=True).click()
    expect(page.locator("#user-problem")).to_have_text("Give a user, or raw features.")
    page.locator("#raw summary").click()
    raw = page.get_by_label("Raw features as JSON")
    raw.fill("{")
    page.get_by_role("button", name="Recommend", exact=True).click()
    expect(page.locator("#features-problem")).to_contain_text("no JSON object")
    raw.fill('{"price": "dear", "taste": [1], "nope": 1}')
    page.get_by_role("button", name="Recommend", exact=True).click()
    expect(page.locator('[data-field="price"] .problem')).to_contain_text("number")
    expect(page.locator('[data-field="taste"] .problem')).to_contain_text("2")
    expect(page.locator("#features-problem")).to_contain_text("features.nope")
    expect(raw).to_have_attribute("aria-invalid", "true")
    expect(raw).to_be_focused()
    raw.fill("")
    for name in ("genre", "tags"):
        page.locator(f'[data-field="{name}"]').get_by_role("button").click()
    assert raw.input_value() == '{\n  "genre": "value",\n  "tags": ["value"]\n}'
    page.get_by_role("button", name="Recommend", exact=True).click()
    expect(page.locator("#answer h2")).to_have_text("For raw features")
    expect(page.locator(".problem:visible")).to_have_count(0)
    page.get_by_label("User").fill("nobody")
    raw.fill("")
    page.get_by_role("button", name="Recommend", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("Nobody knows this user")


ANSWER = Recommendations(
    items=(
        Recommended(
            item="9",
            title=None,
            score=0.9,
            propensity=0.25,
            why=Why(
                retrieved=3,
                retrieval_score=1.5,
                ranker_score=0.9,
                history={"3": 0.75, "2": 0.25},
                fields={"genre": 0.6, "price": 0.4},
                rules=("explored",),
            ),
        ),
        Recommended(
            item="10",
            title="<b>Ten</b>",
            score=0.5,
            why=Why(retrieved=1, retrieval_score=2.5, ranked=1, ranker_score=0.5),
        ),
        Recommended(item="2", title="Two", score=None, why=Why(rules=("pinned",))),
    ),
    user="1",
    bundle=BundleName(name="tiny", version=1),
    degraded=("features",),
    milliseconds={"features": 20.0, "retrieve": 5.0, "rank": 11.0, "rerank": 0.5},
)


def test_why_an_item_stands_where_it_stands(page: Page) -> None:
    def answer(route: Route) -> None:
        assert route.request.post_data_json["explain"] is True
        route.fulfill(body=ANSWER.model_dump_json(exclude_defaults=True), content_type="application/json")

    page.route("**/v1/recommend", answer)
    recommended(page)
    expect(page.get_by_role("alert")).to_contain_text("The online store did not answer in time")
    first = page.locator("table.ranking:visible tbody tr").first
    expect(first).to_contain_text("0.900")
    expect(first.get_by_role("img", name="up 2")).to_be_visible()
    expect(page.get_by_role("button", name="<b>Ten</b>", exact=True)).to_be_visible()
    assert page.locator("#answer b", has_text="Ten").count() == 0, "titles are text"
    page.get_by_role("button", name="Why 9").click()
    why = page.locator("#why-1")
    expect(why).to_contain_text("with probability 25%")
    expect(why.locator(".weights").nth(0).locator("li")).to_have_text(["Three0.750", "Two0.250"])
    expect(why.locator(".weights").nth(1).locator("li")).to_have_text(["genre0.600", "price0.400"])
    expect(page.get_by_role("list", name="Latency by stage")).to_contain_text("ranker 11 ms")
    page.get_by_role("button", name="Why <b>Ten</b>").click()
    expect(page.locator("#why-2")).to_contain_text("The ranker had it at 1")
    expect(page.locator("table.ranking:visible tbody tr:not(.why)").nth(2)).to_contain_text("not by retrieval")
    page.get_by_role("button", name="Candidates").click()
    expect(page.locator("table.ranking:visible tbody th")).to_have_text(["<b>Ten</b>", "9"])


def colour_at(page: Page, x: float, y: float) -> list[int]:
    """[r, g, b, a] of the map's canvas at a place from 0 to 1."""
    script = """([x, y]) => { const c = document.querySelector("#points");
        return [...c.getContext("2d").getImageData(Math.round(x * c.width), Math.round(y * c.height), 1, 1).data]; }"""
    found: list[int] = page.evaluate(script, [x, y])
    return found


def test_the_map(page: Page) -> None:
    recommended(page)
    page.get_by_role("link", name="Map", exact=True).click()
    legend = page.locator("#legend")
    expect(legend.locator(".entry")).to_have_count(6)
    expect(legend.locator(".marked.recommended li")).to_have_text(["日本 (1959)", "Été"])
    expect(legend.locator(".marked.history li")).to_have_count(4)
    canvas = page.locator("#points")
    box = canvas.bounding_box()
    assert box is not None
    legend.get_by_role("button", name="日本 (1959)").focus()
    expect(page.locator("#tip")).to_contain_text("日本 (1959)")
    ring = page.locator("#ring").bounding_box()
    assert ring is not None
    x, y = ring["x"] + ring["width"] / 2, ring["y"] + ring["height"] / 2
    assert colour_at(page, (x - box["x"] + 6) / box["width"], (y - box["y"]) / box["height"])[3] == 255, (
        "it is drawn there"
    )
    page.mouse.move(x + 3, y + 3)
    expect(page.locator("#tip")).to_contain_text("日本 (1959)")
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    expect(page.locator("#tip")).to_be_hidden()
    page.mouse.move(x, y)
    page.mouse.wheel(0, -600)
    page.mouse.down()
    page.mouse.move(x - 60, y - 40, steps=3)
    page.mouse.up()
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.mouse.click(x - 60, y - 40)
    expect(page.get_by_role("dialog").get_by_role("heading", name="日本 (1959)")).to_be_visible()
    page.get_by_role("button", name="Close").click()
    entry = legend.locator(".entry").first
    entry.click()
    expect(entry).to_have_attribute("aria-pressed", "true")
    entry.click()
    expect(entry).to_have_attribute("aria-pressed", "false")


def test_the_map_by_keyboard_alone(page: Page) -> None:
    recommended(page)
    page.get_by_role("link", name="Map", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#legend .entry")).to_have_count(6)
    page.locator("#points").focus()
    page.keyboard.press("n")
    expect(page.locator("#tip")).to_contain_text("日本 (1959)")
    page.keyboard.press("n")
    expect(page.locator("#tip")).to_contain_text("Été")
    page.keyboard.press("p")
    expect(page.locator("#named")).to_contain_text("日本 (1959)", use_inner_text=False)
    for key in ("+", "+", "ArrowLeft", "ArrowUp", "-", "0", "+"):
        page.keyboard.press(key)
    expect(page.locator("#tip")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator("#points")).to_be_focused()


def test_a_recommendation_by_keyboard_alone(page: Page) -> None:
    expect(page.locator("#some-users a")).to_have_count(3)
    focused = "document.activeElement.id || document.activeElement.textContent.trim()"
    order = []
    for _ in range(13):
        page.keyboard.press("Tab")
        order.append(page.evaluate(focused))
    assert order[:5] == ["Skip to the page", "Recommend", "Map", "Bundle", "theme"]
    assert order[5:] == ["user", "1", "42", "zoë", "Raw features", "k", "seen", "Recommend"]
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "the focus is seen"
    for _ in range(7):
        page.keyboard.press("Shift+Tab")
    page.keyboard.type("1")
    page.keyboard.press("Enter")
    expect(page.locator("table.ranking:visible tbody tr")).to_have_count(2)
    page.locator("#answer").get_by_role("button", name="Été").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()


def test_the_bundle(page: Page) -> None:
    page.get_by_role("link", name="Bundle", exact=True).click()
    facts = page.locator("#bundle-facts")
    expect(facts).to_contain_text("6 items")
    expect(facts.get_by_role("region", name="Test metrics by cut-off").locator("tbody tr")).to_have_text(["ndcg0.5000"])
    expect(facts).to_contain_text("exact: every item is scored")
    expect(facts).to_contain_text("watched")


CURVE: dict[str, Any] = {
    "queries": 500,
    "chosen": 1,
    "depths": [],
    "points": [
        {
            "layout": {"leaves": 100, "dimensions_per_block": 2, "anisotropic_threshold": 0.2},
            "setting": {"leaves_to_search": leaves, "reorder": 100},
            "recall": {"recall@10": {"estimate": recall, "low": recall - 0.02, "high": min(1, recall + 0.02)}},
            "milliseconds": {"estimate": time, "low": time, "high": time},
        }
        for leaves, recall, time in ((5, 0.8, 0.05), (20, 0.95, 0.1), (100, 1.0, 0.4))
    ],
}


def test_the_curve_of_an_index(page: Page, served: Served) -> None:
    def answer(route: Route) -> None:
        whole = route.fetch().json()
        route.fulfill(json={**whole, "curve": CURVE})

    page.route("**/v1/info", answer)
    page.goto("about:blank")
    page.goto(f"{served.url}/#/bundle")
    figure = page.get_by_role("figure")
    expect(figure.get_by_role("img")).to_have_accessible_name(re.compile("recall@10 by milliseconds"))
    places = figure.locator("circle.m0").evaluate_all(
        "all => all.slice(0, 3).map((each) => [+each.getAttribute('cx'), +each.getAttribute('cy')])"
    )
    (left, low), (middle, mid), (right, high) = places
    assert left < middle < right
    assert low > mid > high, "recall rises upwards"
    ratio = np.log(0.1 / 0.05) / np.log(0.4 / 0.05)
    assert (middle - left) / (right - left) == pytest.approx(ratio, abs=0.01), "a logarithmic axis"
    assert figure.locator("circle.ring").first.get_attribute("cx") == figure.locator("circle.m0").nth(1).get_attribute(
        "cx"
    )
    figure.get_by_text("The numbers").click()
    expect(figure.locator("tbody tr")).to_have_count(3)


def test_the_server_goes_and_comes_back(page: Page, served: Served) -> None:
    recommended(page, "42")
    served.stop()
    page.get_by_label("User").fill("1")
    page.get_by_role("button", name="Recommend", exact=True).click()
    notice = page.locator("#notice")
    expect(notice).to_contain_text("The server does not answer")
    expect(page.locator("#answer h2")).to_have_text("For user 42")
    served.start()
    expect(page.locator("#answer h2")).to_have_text("For user 1")
    expect(notice).not_to_contain_text("does not answer")


def test_a_key_is_asked_for_once(page: Page) -> None:
    keys: list[str | None] = []

    def answer(route: Route) -> None:
        keys.append(route.request.headers.get("authorization"))
        problem = {"place": "authorization", "found": "no API key", "expected": None, "cure": None}
        if keys[-1] == "Bearer open sesame":
            route.continue_()
        else:
            route.fulfill(status=401, json={"error": [problem]})

    page.route("**/v1/**", answer)
    page.reload()
    page.get_by_label("This server wants an API key").fill("open sesame")
    page.keyboard.press("Enter")
    recommended(page)
    assert None in keys
    assert "open sesame" not in page.evaluate("JSON.stringify(localStorage)")


PROBE = """() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((value) => value / 255)
      .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (each) => {
    const own = getComputedStyle(each).backgroundColor;
    return each.parentElement && /, 0\\)$|transparent/.test(own) ? ground(each.parentElement) : own;
  };
  const contrast = (each) => {
    const [high, low] = [light(getComputedStyle(each).color), light(ground(each))].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  };
  const seen = [...document.querySelectorAll("p, li, td, th, dt, dd, h1, h2, h3, a, summary, button, label, b")]
    .filter((each) => each.checkVisibility() && each.textContent.trim() && !each.closest(".hidden, .skip"));
  return {
    ground: getComputedStyle(document.body).backgroundColor,
    low: seen.filter((each) => contrast(each) < 4.5).map((each) => each.outerHTML.slice(0, 90)),
    wide: document.documentElement.scrollWidth - innerWidth,
    nameless: [...document.querySelectorAll("button, input, select, textarea, canvas")]
      .filter((each) => each.checkVisibility() && !(each.textContent.trim() || each.labels?.length || each.ariaLabel
        || each.getAttribute("aria-labelledby"))).map((each) => each.outerHTML.slice(0, 90)),
  };
}"""
GROUNDS = {"light": "rgb(255, 255, 255)", "dark": "rgb(17, 22, 28)"}


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1200)])
def test_every_view_reads_well(page: Page, scheme: Any, width: int) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    page.route(
        "**/v1/recommend", lambda route: route.fulfill(body=ANSWER.model_dump_json(), content_type="application/json")
    )
    recommended(page)
    page.get_by_role("button", name="Why 9").click()
    page.locator("#raw summary").click()
    for view, ready in (("Recommend", "#why-1"), ("Map", "#legend .entry"), ("Bundle", "#bundle-facts table")):
        page.get_by_role("link", name=view, exact=True).click()
        page.locator(ready).first.wait_for()
        found = page.evaluate(PROBE)
        assert (found["ground"], found["low"], found["nameless"]) == (GROUNDS[scheme], [], []), view
        assert found["wide"] <= 0, f"{view}: no scrolling sideways"


def test_the_theme_is_chosen_and_kept(page: Page) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    recommended(page)
    page.get_by_role("link", name="Map", exact=True).click()
    page.locator("#legend .entry").first.wait_for()
    before = page.evaluate("document.querySelector('#points').toDataURL()")
    page.get_by_role("button", name="Theme: system").click()
    assert page.evaluate(ground) == GROUNDS["dark"]
    page.wait_for_function("(before) => document.querySelector('#points').toDataURL() !== before", arg=before)
    page.reload()
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
    assert page.evaluate(ground) == GROUNDS["dark"]
    page.get_by_role("button", name="Theme: dark").click()
    assert page.evaluate(ground) == GROUNDS["light"]
    page.get_by_role("button", name="Theme: light").click()
    assert page.evaluate("localStorage.getItem('theme')") is None
