"""The page in a real browser: light, dark, on a phone, and without a sound on its console."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from recsys.report import write_report
from tests.conftest import Require

PROBE = """
<script>
addEventListener("load", () => {
  const wide = [...document.querySelectorAll("body *")].filter(
    (each) => !each.closest(".scroll, pre, .hidden, .skip") && each.getBoundingClientRect().right > innerWidth + 1);
  const contrast = (element, ground) => {
    const light = (colour) => {
      const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((value) => value / 255)
        .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const pair = [light(getComputedStyle(element).color), light(ground)].sort((a, b) => b - a);
    return (pair[0] + 0.05) / (pair[1] + 0.05);
  };
  const ground = getComputedStyle(document.body).backgroundColor;
  const texts = [...document.querySelectorAll("p, li, td, th, dt, dd, h1, h2, h3, a, summary")];
  parent.postMessage(JSON.stringify({
    width: innerWidth, scroll: document.documentElement.scrollWidth,
    wide: wide.map((each) => each.outerHTML.slice(0, 80)),
    ground, least: Math.min(...texts.map((each) => contrast(each, ground))),
    drawn: [...document.querySelectorAll("figure svg")].map((each) => each.getBoundingClientRect().height),
  }), "*");
});
</script>
"""
FRAME = """<!doctype html><meta name="color-scheme" content="light dark">
<script>addEventListener("message", (told) => { document.documentElement.dataset.found = told.data; });</script>
<iframe src="%s" style="width:%dpx; height:900px; border:0"></iframe>"""
"""A browser's own window cannot be as narrow as a phone."""
WIDTH, PHONE = 1100, 390


def opened(page: Path, width: int, *options: str) -> dict[str, object]:
    """What the page is like in a frame of this width; fails where the browser complains."""
    program = shutil.which("chromium") or shutil.which("google-chrome") or "chromium"
    command = [
        program,
        "--headless",
        "--hide-scrollbars",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--dump-dom",
    ]
    frame = page.with_name(f"frame-{width}.html")
    frame.write_text(FRAME % (page.as_uri(), width))
    command += [f"--user-data-dir={page.parent / 'profile'}", "--window-size=1300,950", *options, frame.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert not re.findall(r".*CONSOLE.*", done.stderr), "the console is silent"
    found = re.search(r'data-found="([^"]*)"', done.stdout)
    assert found is not None, done.stdout[:500]
    said: dict[str, object] = json.loads(found[1].replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">"))
    return said


@pytest.mark.system
def test_it_reads_well_light_dark_and_on_a_phone(whole_run: Path, tmp_path: Path, require: Require) -> None:
    require(shutil.which("chromium") or shutil.which("google-chrome"), "needs chromium (apt-get install chromium)")
    page = tmp_path / "probed.html"
    page.write_text(write_report(whole_run).read_text(encoding="utf-8").replace("</body>", f"{PROBE}</body>"))
    dark = opened(page, WIDTH, "--blink-settings=preferredColorScheme=0")
    phone = opened(page, PHONE, "--blink-settings=preferredColorScheme=1")
    assert (dark["ground"], phone["ground"]) == ("rgb(17, 22, 28)", "rgb(255, 255, 255)")
    assert (dark["width"], phone["width"]) == (WIDTH, PHONE)
    for found in (dark, phone):
        assert found["scroll"] == found["width"], "no scrolling sideways"
        assert found["wide"] == []
        assert isinstance(found["least"], float)
        assert found["least"] >= 4.5, "WCAG AA"
        assert isinstance(found["drawn"], list)
        assert len(found["drawn"]) == 5, "two charts, their keys, and what the ring means"
        assert min(found["drawn"]) > 5
