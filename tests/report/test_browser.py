"""The page in a real browser, where there is one."""

import json
import re
import shutil
import subprocess

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")

_PROBE = """
<script>
(() => {
  const found = { errors: window.problems || [] };
  const panels = [...document.querySelectorAll(".panel")];
  found.panels = panels.map((panel) => panel.querySelector("h4").textContent);
  const words = () => [...panels[0].querySelectorAll(".word")];
  found.reachable = words().filter((word) => word.tabIndex === 0).length;
  words()[0].focus();
  words()[0].dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown", bubbles: true }));
  found.focused = words().indexOf(document.activeElement);
  found.pressed = words().findIndex((word) => word.getAttribute("aria-pressed") === "true");
  found.live = document.querySelector(".live").textContent;
  found.word = words()[1].textContent;
  found.reads = panels[0].querySelectorAll(".reads li").length;
  const select = document.querySelector("select");
  found.options = select.options.length;
  document.querySelector("[data-step='1']").click();
  found.selected = select.value;
  found.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const frame = document.createElement("pre");
  frame.id = "probe";
  frame.textContent = JSON.stringify(found);
  document.body.append(frame);
})();
</script>
"""
_WATCH = "<script>window.problems = []; addEventListener('error', (e) => window.problems.push(e.message));</script>"


def chromium(page, *options):
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
        *options, page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.mark.parametrize("width", [500, 1400])
def test_the_explorer_works_by_keyboard_and_the_page_does_not_scroll_sideways(small_report, tmp_path, width):
    text = (small_report / "report.html").read_text()
    probed = tmp_path / "page.html"
    probed.write_text(text.replace("<head>", f"<head>{_WATCH}", 1).replace("</body>", f"{_PROBE}</body>", 1))
    dom = chromium(probed, f"--window-size={width},900", "--dump-dom")
    found = json.loads(
        re.search(r'<pre id="probe">(.*?)</pre>', dom, re.DOTALL)[1]
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
    )
    assert found["errors"] == []
    assert found["panels"] == ["bahdanau", "hard", "luong"]
    assert found["reachable"] == 1, "one stop for the Tab key, arrow keys from there on"
    assert found["focused"] == found["pressed"] == 1
    assert found["live"].startswith(f"bahdanau: “{found['word']}” reads ")
    assert found["reads"] > 5
    assert found["options"] == 4
    assert found["selected"] == "1"
    assert found["wide"] <= 0


def test_a_screenshot_can_be_taken(small_report, tmp_path):
    picture = tmp_path / "page.png"
    chromium(small_report / "report.html", "--window-size=500,2000", f"--screenshot={picture}")
    assert picture.stat().st_size > 20_000
